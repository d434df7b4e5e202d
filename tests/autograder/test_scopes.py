"""Which names are local: Python's own symbol table is the oracle."""

from __future__ import annotations

import ast
import symtable

import pytest

from autograder.scopes import Scopes

PROGRAMS = {
    "arguments": "def f(a, /, b, *c, d=x, **e):\n    return a, b, c, d, e, y\n",
    "assignment anywhere in a function": "def f():\n    print(a, b)\n    a = 1\n    b: int\n    c += 1\n",
    "global": "def f():\n    global a\n    a = b\n    return a\n",
    "nonlocal": "def f():\n    a = 1\n    def g():\n        nonlocal a\n        a = b\n    return g, a\n",
    "closure": "def f(a):\n    def g(b):\n        return a + b + c\n    return g\n",
    "lambda": "f = lambda a, b=c: a + b + d\n",
    "loops": "def f():\n    for a, (b, *c) in d:\n        pass\n    with e as g:\n        return a, b, c, g\n",
    "walrus": "def f():\n    return (a := b) + a\n",
    "walrus in a comprehension": "def f(x):\n    z = [(a := y) for y in x]\n    return a, z, y\n",
    "imports": "def f():\n    import a.b, c as d\n    from e import g as h\n    return a, c, d, e, g, h\n",
    "exception": "def f():\n    try:\n        pass\n    except a as b:\n        return b\n",
    "match": "def f(x):\n    match x:\n        case [a, *b] | {'k': a, **b}:\n            pass\n"
    "        case e:\n            return a, b, e, f\n",
    "definitions": "def f():\n    def g():\n        return f, g, h\n    class h:\n        pass\n    return g, h\n",
    "del": "def f():\n    del a\n    return a\n",
    "decorators and defaults": "def f(a):\n    @b\n    def g(c=a, d: e = h) -> i:\n        return c, d\n    return g\n",
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_functions_agree_with_python(program: str) -> None:
    tree = ast.parse(program)
    scopes = Scopes([tree])
    globals_of_python: set[str] = set()
    tables = [symtable.symtable(program, "cell", "exec")]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        is_module = table.get_type() == "module"
        globals_of_python |= {s.get_name() for s in table.get_symbols() if is_module or s.is_global()}
    read = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and scopes.is_global(n)}
    defined = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    assert read | defined == globals_of_python


def names(program: str) -> dict[str, list[bool]]:
    """For each name, in the order of lines, whether it is global."""
    tree = ast.parse(program)
    scopes, found = Scopes([tree]), {}
    for node in sorted((n for n in ast.walk(tree) if isinstance(n, ast.Name)), key=lambda n: (n.lineno, n.col_offset)):
        found.setdefault(node.id, []).append(scopes.is_global(node))
    return found


def test_the_names_of_a_class_are_not_seen_in_its_methods() -> None:
    assert names("class A:\n    a = 1\n    b = a\n    def f(self):\n        return a\n")["a"] == [False, False, True]


def test_a_comprehension_keeps_its_variable_to_itself() -> None:
    assert names("x = 1\ny = [x for x in x]\nz = x\n")["x"] == [True, False, False, True, True]


def test_a_name_may_be_an_import_in_one_function_and_a_variable_in_another() -> None:
    tree = ast.parse("import torch.nn as F\ndef f():\n    return F\ndef g(F):\n    return F\n")
    scopes = Scopes([tree])
    first, second = (n for n in ast.walk(tree) if isinstance(n, ast.Name))
    assert scopes.of(first).imports == {"F": {"torch.nn"}}
    assert scopes.of(second).imports == {} and isinstance(scopes.of(second).node, ast.FunctionDef)


def test_cells_share_one_module() -> None:
    first, second = ast.parse("import math as m\nfrom cmath import *\n"), ast.parse("m = 3\n")
    module = Scopes([first, second]).module
    assert module.imports == {"m": {"math"}} and "m" in module.bindings and module.star_imports == ["cmath"]
