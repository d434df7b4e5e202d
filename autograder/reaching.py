"""What of the machine or of the grader a student's code reaches for, read from its source, for a person to look at.

The jail stops what is tried; this only says who may have tried.  Names in strings are not seen.
"""

from __future__ import annotations

import ast

MODULES = {
    *("asyncio", "builtins", "ctypes", "fcntl", "gc", "http", "importlib", "inspect", "marshal", "mmap"),
    *("multiprocessing", "os", "pickle", "pty", "requests", "resource", "shutil", "signal", "socket", "subprocess"),
    *("sys", "threading", "traceback", "urllib", "autograder", "nbgrader"),
}
CALLS = {"__import__", "breakpoint", "compile", "eval", "exec", "get_ipython", "globals", "locals", "open", "vars"}
ATTRIBUTES = {"__bases__", "__builtins__", "__class__", "__code__", "__globals__", "__mro__", "__subclasses__"}
ATTRIBUTES |= {"f_back", "f_globals", "f_locals", "tb_frame"}
MAX_SOURCE = 100_000  # characters of a cell that is read


def reaches(source: str) -> set[str]:
    """Modules, built-in functions and attributes in a cell's code through which programs leave their own business."""
    try:
        tree = ast.parse(source[:MAX_SOURCE])
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names if a.name.split(".")[0] in MODULES}
        elif isinstance(node, ast.ImportFrom):
            name = node.module or ""
            if name.split(".")[0] in MODULES or name.startswith("course_utils.checking"):
                found.add(name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in CALLS:
            found.add(f"{node.id}()")
        elif isinstance(node, ast.Attribute) and node.attr in ATTRIBUTES:
            found.add(node.attr)
    return found
