"""What a dotted name of a library stands for, by whatever name a program has reached it."""

from __future__ import annotations

import ast
import importlib
import sys
from functools import cache
from types import ModuleType

from autograder.bounded import Overrun
from autograder.unreadable import ARGUMENTS, GETTERS, KNOWN_ROOTS, LIBRARIES, UNREADABLE_MODULES, is_below


@cache
def real_name(dotted: str) -> str:
    """The name of what a dotted name stands for, where it leads over other modules: torchvision.ops.misc.torch.exp."""
    root, *rest = dotted.split(".")
    here: object = _module(root)
    name = root
    for k, part in enumerate(rest):
        if isinstance(here, ModuleType) and not part.startswith("_") and not hasattr(here, part):
            _module(f"{name}.{part}")
        here = getattr(here, part, None) if isinstance(here, ModuleType) else None
        if not isinstance(here, ModuleType):
            left = ".".join(rest[k + 1 :])
            known = _known_as(here, root)
            return f"{known}.{left}".rstrip(".") if known else ".".join([name, *rest[k:]])
        name = here.__name__
    return name


def _known_as(value: object, root: str) -> str:
    """The full name of what may not be read, where the library `root` has it from another one; "" for all else."""
    try:
        if name := _unreadable_things().get(id(value)):
            return name
        module, name = (getattr(value, of, None) for of in ("__module__", "__qualname__"))
    except Overrun:
        raise
    except Exception:  # a library's own idea of attributes
        return ""
    if isinstance(module, str) and isinstance(name, str) and module.split(".")[0] not in (root, *KNOWN_ROOTS):
        return f"{module}.{name}" if is_below(module, UNREADABLE_MODULES) else ""
    return ""


@cache
def _unreadable_things() -> dict[int, str]:
    """The classes and functions of Python's own among what may not be read, by their identity."""
    found: dict[int, str] = {}
    for dotted in (*UNREADABLE_MODULES, *GETTERS, *(rule.partition("(")[0] for rule in ARGUMENTS)):
        module, _, name = dotted.rpartition(".")
        if module and module.split(".")[0] not in KNOWN_ROOTS and hasattr(_module(module), name):
            value = getattr(_module(module), name)
            found |= {} if isinstance(value, ModuleType) else {id(value): dotted}
    return found


def is_module(dotted: str) -> bool:
    """Whether a dotted name is that of a module, one that is loaded."""
    return dotted in sys.modules


def exports(module: str) -> set[str] | None:
    """What a star import of a module binds; None where that is not known."""
    parts = module.split(".")
    if "torch" in parts[1:]:  # a library's own
        return exports(".".join(parts[parts.index("torch", 1) :]))
    found = _module(module)
    if found is None:
        return None
    return set(getattr(found, "__all__", None) or (n for n in vars(found) if not n.startswith("_")))


@cache
def _module(name: str) -> ModuleType | None:
    """A module of the libraries, loaded if need be; None for another one, and for one that cannot be loaded."""
    parts = name.split(".")
    known = parts[0] in LIBRARIES and not any(p.startswith(("_", "test", "conftest")) for p in parts)
    if name not in sys.modules and known:
        try:
            importlib.import_module(name)
        except Overrun:
            raise
        except Exception:  # whatever a library raises that wants something which is not there
            return None
    return sys.modules.get(name)


def imported(statement: ast.Import | ast.ImportFrom) -> list[tuple[str, str]]:
    """The names that an import binds, and what each stands for."""
    if isinstance(statement, ast.Import):
        names = [(a.asname or a.name.split(".")[0], a) for a in statement.names]
        return [(name, a.name if a.asname else name) for name, a in names]
    return [(a.asname or a.name, f"{statement.module}.{a.name}") for a in statement.names if a.name != "*"]
