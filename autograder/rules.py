"""Read from a student's source whether an exercise calls what it is meant to write.

An exercise's code is its own function and whatever helpers, classes and aliases it reaches by name, up to other
exercises (those are judged by themselves); and what runs when the cells run, where that can hand the exercise
something: a table filled later, an attribute set on a class, a patched library.  Code whose calls cannot be read
from the source (`getattr` with a computed name, `eval`, `__dict__`) is refused where anything is forbidden.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from types import ModuleType

import torch

from autograder.bounded import Overrun
from autograder.scopes import Function, Scopes
from course_utils.checking.ready_made import NAMESAKES
from course_utils.sure_definitions import cannot_fail

# Ways of calling something whose name does not stand in the source.
UNREADABLE_CALLS = {"eval", "exec", "compile", "__import__", "globals", "locals", "vars", "get_ipython", "open"}
UNREADABLE_CALLS |= {"breakpoint"}  # calls what an environment variable names
UNREADABLE_MODULES = (
    "IPython",
    "__main__",
    "autograder",
    "builtins",
    "checks",  # its oracles are ready-made solutions
    "cloudpickle",
    "code",
    "codecs",
    "course_utils.checking",
    "course_utils.cli",
    "ctypes",
    "dataclasses.fields",
    "dill",
    "functools.singledispatch",  # runs the strings that are hints
    "functools.singledispatchmethod",
    "functools.update_wrapper",  # reads and sets attributes by name
    "gc",
    "importlib",
    "inspect",
    "joblib",
    "marshal",
    "multiprocessing",
    "numpy.core",
    "numpy.ctypeslib",
    "numpy.f2py",
    "numpy.lib.format",
    "numpy.lib.npyio",
    "numpy.load",
    "numpy.testing",
    "operator.attrgetter",
    "operator.methodcaller",
    "pickle",
    "pkgutil",
    "pydoc",
    "pytest",
    "runpy",
    "shelve",
    "signal",
    "site",
    "sklearn.externals",
    "string.Formatter",
    "subprocess",
    "threading.setprofile",
    "threading.settrace",
    "torch.ao",
    "torch.classes",
    "torch.distributed",
    "torch.export",
    "torch.fx",
    "torch.get_device_module",
    "torch.hub",
    "torch.jit",
    "torch.library",
    "torch.load",
    "torch.multiprocessing",
    "torch.onnx",
    "torch.ops",
    "torch.overrides",
    "torch.package",
    "torch.quantization",
    "torch.serialization",
    "torch.testing",
    "torch.utils.backend_registration",
    "torch.utils.benchmark",
    "torch.utils.bundled_inputs",
    "torch.utils.cpp_extension",
    "types.CodeType",
    "types.FunctionType",
    "types.LambdaType",
    "types.ModuleType",
    "typing.ForwardRef",
    "typing.get_type_hints",
    "typing_extensions.ForwardRef",
    "typing_extensions.evaluate_forward_ref",
    "typing_extensions.get_type_hints",
    "unittest.mock",
    "zipimport",
)
NAMESAKE_MODULES = {"scipy.signal", "torch.signal"}  # they compute, and are not the module `signal`
# Of those, what may be used, and nothing below it: every module and function leads to its builtins.
READABLE = {
    "course_utils.checking.checker",
    "sys.path.append",
    "torch.jit.script",
    "torch.jit.trace",
    "IPython.display",
}
READABLE |= {
    f"IPython.display.{name}"
    for name in (
        *("Audio", "Code", "DisplayHandle", "HTML", "IFrame", "Image", "JSON", "Javascript", "Latex", "Markdown"),
        *("Math", "Pretty", "ProgressBar", "SVG", "Video", "clear_output", "display", "update_display"),
    )
}
READABLE_OF_SYS = {
    "argv",
    "byteorder",
    "exit",
    "float_info",
    "getrecursionlimit",
    "getsizeof",
    "int_info",
    "maxsize",
    "platform",
    "setrecursionlimit",
    "stderr",
    "stdout",
    "version",
    "version_info",
}
# What an exercise that may not call everything may use of other people's: libraries that compute, and those of
# Python's own that neither read nor run what does not stand in the source.  Others may do both, in ways without end.
LIBRARIES = {
    *("torch", "torchvision", "numpy", "scipy", "sklearn", "einops", "opt_einsum", "numba", "course_utils"),
    *("matplotlib", "mpl_toolkits", "seaborn", "tqdm", "IPython", "jaxtyping", "typing_extensions"),
    *(
        "__future__",
        "abc",
        "array",
        "bisect",
        "cmath",
        "collections",
        "concurrent",
        "contextlib",
        "copy",
        "dataclasses",
    ),
    *("datetime", "decimal", "enum", "fractions", "functools", "hashlib", "heapq", "itertools", "json", "keyword"),
    *("logging", "math", "numbers", "operator", "os", "platform", "pprint", "queue", "random", "re", "reprlib"),
    *("secrets", "statistics", "string", "struct", "sys", "textwrap", "threading", "time", "types", "typing"),
    *("unicodedata", "uuid", "warnings", "weakref", "zlib", "graphlib"),
}
READABLE_OF_OS = {"os.environ", "os.cpu_count", "os.getpid", "os.name", "os.sep"}
# Of those libraries, what leads to files, through which another process could answer, or to names in strings.
FILES = (
    "logging.FileHandler",
    "logging.config",
    "logging.handlers",
    "matplotlib.cbook",
    "matplotlib.image",
    "matplotlib.pyplot.imread",
    "numpy.DataSource",
    "numpy.fromfile",
    "numpy.fromregex",
    "numpy.genfromtxt",
    "numpy.loadtxt",
    "numpy.memmap",
    "numpy.save",
    "numpy.savetxt",
    "numpy.savez",
    "scipy.datasets",
    "scipy.io",
    "torch.UntypedStorage",
    "torch.from_file",
    "torch.save",
    "torchvision.io",
)
# And what reads an attribute whose name is a string, or makes what is called out of a text.
GETTERS = (
    "contextlib.redirect_stderr",  # a class made from it names the attribute of `sys` that is read
    "contextlib.redirect_stdout",
    "dataclasses.make_dataclass",
    "matplotlib.backends",
    "matplotlib.testing",
    "mpl_toolkits.axisartist",
    "numpy.distutils",
    "sklearn.base",
    "sklearn.compose",
    "sklearn.feature_selection",
    "sklearn.pipeline",
    "sklearn.utils",
    "torch.compiler",
    "torch.utils",
    "tqdm.cli",
    "tqdm.contrib",
    "tqdm.std",
    "tqdm.utils",
    "types.new_class",
)
NO_GETTERS = (
    "sklearn.utils.check_random_state",
    "sklearn.utils.extmath",
    "sklearn.utils.resample",
    "sklearn.utils.shuffle",
    "torch.utils.checkpoint.checkpoint",
    "torch.utils.data.BatchSampler",
    "torch.utils.data.ConcatDataset",
    "torch.utils.data.DataLoader",
    "torch.utils.data.Dataset",
    "torch.utils.data.IterableDataset",
    "torch.utils.data.RandomSampler",
    "torch.utils.data.Sampler",
    "torch.utils.data.SequentialSampler",
    "torch.utils.data.StackDataset",
    "torch.utils.data.Subset",
    "torch.utils.data.SubsetRandomSampler",
    "torch.utils.data.TensorDataset",
    "torch.utils.data.WeightedRandomSampler",
    "torch.utils.data.dataloader",
    "torch.utils.data.dataset",
    "torch.utils.data.default_collate",
    "torch.utils.data.random_split",
    "torch.utils.data.sampler",
    "torch.utils.dlpack",
)
GETTER_ATTRIBUTES = {"get_params"}  # of scikit-learn's classes, whatever a student's own class adds to them
# Rules on arguments that hold with any others: what is read by name, which class gets fields, who rewrites the code.
ARGUMENTS = (
    *("functools.wraps(assigned)", "functools.wraps(updated)"),
    *("dataclasses.dataclass(cls)", "torch.compile(backend)"),
)
# What torch has of its compiler, which reads programs from strings, beside its functions of tensors.
COMPILER = frozenset(
    name
    for name in set(dir(torch._C)) - set(dir(torch._C._VariableFunctions))
    if (name[0].isupper() and not name.endswith("Error")) or "parse_" in name or "import_ir" in name
) - {"AVG", "DeviceObjType", "Event", "Generator", "Size", "Stream", "StreamObjType", "SUM", "Tag"}
# Attributes of frames, of wrappers, and of files by the names that arrays and storages have for them.
UNREADABLE_ATTRIBUTES = {
    *("f_back", "f_builtins", "f_code", "f_globals", "f_locals", "tb_frame", "tb_next", "gi_frame", "gi_code"),
    *("cr_frame", "cr_code", "ag_frame", "ag_code", "from_file", "tofile"),
    *("wrapper_getattr", "wrapper_setattr", "_evaluate"),
}
MODULES_BY_ATTRIBUTE = {"builtins", "importlib", "inspect", "os", "sys", "torch", "torchvision", "types"}
MATCHED_BY_VALUE = {"bool", "bytearray", "bytes", "dict", "float", "frozenset", "int", "list", "set", "str", "tuple"}
REFLECTION = {"getattr", "setattr", "delattr"}
READABLE_DUNDERS = {
    "__abs__",
    "__add__",
    "__bool__",
    "__call__",
    "__class__",
    "__contains__",
    "__doc__",
    "__enter__",
    "__eq__",
    "__exit__",
    "__file__",
    "__float__",
    "__floordiv__",
    "__future__",
    "__ge__",
    "__getitem__",
    "__gt__",
    "__hash__",
    "__init__",
    "__int__",
    "__iter__",
    "__le__",
    "__len__",
    "__lt__",
    "__matmul__",
    "__mod__",
    "__mul__",
    "__name__",
    "__ne__",
    "__neg__",
    "__next__",
    "__post_init__",
    "__pow__",
    "__radd__",
    "__repr__",
    "__rmul__",
    "__rsub__",
    "__rtruediv__",
    "__setitem__",
    "__str__",
    "__sub__",
    "__truediv__",
    "__version__",
}
# Decorators that keep the function for later, and bases that do nothing with a class that is made of them.
ONLY_WRAP = {"functools.cache", "functools.lru_cache", "torch.enable_grad", "torch.inference_mode", "torch.no_grad"}
ONLY_INHERITED = ("torch.nn", "torch.utils.data.Dataset", "torch.utils.data.IterableDataset")
AUTOGRAD_WORDS = {"backward", "requires_grad", "requires_grad_"}
HARMLESS = {"torch.func.vmap"}  # nothing is differentiated
KNOWN_ROOTS = ("torch", "torchvision", "course_utils")  # where a forbidden thing may be found under another name


@dataclass
class Reading:
    """What reading one exercise's source found.

    Attributes
    ----------
    violations : list of str
        What is used though it is forbidden, each as a short text.
    exercises : set of str
        Other exercises that the code refers to, directly or through helpers and further exercises.
    replaced : set of str
        Those of them that use what this exercise may not use, though they may: the reference stands in for them.
    keeps_nothing : bool
        Whether its calls surely leave nothing behind (`autograder.stateless`).
    """

    violations: list[str] = field(default_factory=list)
    exercises: set[str] = field(default_factory=set)
    replaced: set[str] = field(default_factory=set)
    keeps_nothing: bool = False


class Source:
    """All top-level names of a submission, and the code behind each.

    Parameters
    ----------
    modules : sequence of ast.Module
        The parsed cells, in the order in which they run; a later definition replaces an earlier one.
    setup : sequence of ast.Module
        What runs before them; only its imports matter.
    """

    def __init__(self, modules: Sequence[ast.Module], setup: Sequence[ast.Module] = ()) -> None:
        self.statements = [s for module in modules for s in module.body]
        self._hidden: dict[ast.AST, list[str]] = {}
        self.scopes = Scopes([*setup, *modules])
        self._globals: dict[ast.AST, frozenset[str]] = {}  # asked for again and again
        self._add_star_imports()
        self.bound: dict[str, list[ast.stmt]] = {}  # at the end of the notebook
        self.ever: dict[str, list[ast.stmt]] = {}
        self.final_imports: dict[str, set[str]] = {}
        for statement in self.statements:
            self._bind(statement)
        self._forget_replaced_imports()
        self.classes = {s.name: s for s in self.statements if isinstance(s, ast.ClassDef)}
        self._used_unbound = self._find_unbound_uses()
        self.splats_into_torch = any(
            isinstance(n, ast.Call) and any(k.arg is None for k in n.keywords) and self._is_torch(n.func)
            for s in self.statements
            for n in ast.walk(s)
        )
        self.own_methods = {m.name for c in self.classes.values() for m in c.body if isinstance(m, ast.FunctionDef)}
        self.passes_modules = any(self._passes_module(s) for s in self.statements)

    def _add_star_imports(self) -> None:
        """Turn `from torch import *` into imports of the names that the source uses."""
        used = {n.id for s in self.statements for n in ast.walk(s) if isinstance(n, ast.Name)}
        for module in self.scopes.module.star_imports:
            exported = _exports(module)
            for name in used if exported is None else used & exported:
                if exported is not None or not self.scopes.module.binds(name):
                    self.scopes.module.imports.setdefault(name, set()).add(f"{module}.{name}")

    def _bind(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            for name, dotted in _imported(statement):
                self.bound.setdefault(name, [])
                self.final_imports.setdefault(name, set()).add(dotted)
            if isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*":
                for name in set(self.bound) & (_exports(statement.module or "") or set()):
                    self.final_imports.setdefault(name, set()).add(f"{statement.module}.{name}")
            return
        names = self._stored(statement)
        for name in names:
            # What may fail leaves the name as it was: then what it was bound to before counts too.
            if cannot_fail(statement):
                self.bound[name] = [statement]
                self.final_imports.pop(name, None)
            else:
                self.bound[name] = [*self.bound.get(name, []), statement]
        for name in names:
            self.ever.setdefault(name, []).append(statement)
        for node in ast.walk(statement):
            if isinstance(node, ast.Global):
                for name in node.names:
                    self.bound[name] = [*self.bound.get(name, []), statement]
            elif not isinstance(statement, Function | ast.ClassDef) and isinstance(node, ast.Import | ast.ImportFrom):
                for name, dotted in _imported(node):
                    self.final_imports.setdefault(name, set()).add(dotted)

    def _forget_replaced_imports(self) -> None:
        """Let a name that is imported, and then defined before anything uses it, stand for the definition alone."""
        imports = self.scopes.module.imports
        declared = {name for s in self.statements for n in ast.walk(s) if isinstance(n, ast.Global) for name in n.names}
        mentioned = set(declared)
        for statement in self.statements:
            for name in self._stored(statement) & set(imports) - mentioned:
                if self.bound[name] == [statement] and name not in self.final_imports:
                    del imports[name]
            mentioned |= self.globals_in(statement)

    def _stored(self, statement: ast.stmt) -> set[str]:
        """The module's names that a statement binds, definitions inside an `if` and the like included."""
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            return {statement.name}
        names = set()
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load) and self.scopes.is_global(node):
                names.add(node.id)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.MatchAs | ast.MatchStar | ast.MatchMapping):
                captured = node.rest if isinstance(node, ast.MatchMapping) else node.name
                names |= {captured} if captured else set()
            elif isinstance(node, ast.Import | ast.ImportFrom):
                names |= {name for name, _ in _imported(node)}
        return names

    def _find_unbound_uses(self) -> set[str]:
        """Classes from which a method is taken without an instance, so that its `self` may be anything."""
        found = set()
        for node in (n for s in self.statements for n in ast.walk(s)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in self.classes:
                method = _method(self.classes[node.value.id], node.attr)
                if method is not None and not _decorators(method) & {"staticmethod", "classmethod"}:
                    found.add(node.value.id)
        return found

    def _passes_module(self, statement: ast.stmt) -> bool:
        """Whether a module of torch is used as a value, so that any variable may be one."""
        bases = {n.value for n in ast.walk(statement) if isinstance(n, ast.Attribute)}
        for node in ast.walk(statement):
            if isinstance(node, ast.Name | ast.Attribute) and node not in bases and isinstance(node.ctx, ast.Load):
                for dotted in self.meanings(node)[0]:
                    if _is_module(dotted) and dotted.startswith(KNOWN_ROOTS):
                        return True
        return False

    def _is_torch(self, node: ast.AST) -> bool:
        dotted, other = self.meanings(node)
        return other or any(d.startswith("torch") for d in dotted)

    def meanings(self, node: ast.AST) -> tuple[set[str], bool]:
        """The dotted names that an expression may stand for, and whether it may be anything else too."""
        if isinstance(node, ast.Attribute):
            bases, other = self.meanings(node.value)
            if node.attr == "__call__":  # which is the function itself
                return bases, other
            return {f"{base}.{node.attr}" for base in bases}, other
        if not isinstance(node, ast.Name):
            return set(), True
        scope = self.scopes.of(node)
        meant = scope.imports.get(node.id, set())
        return {_real_name(dotted) for dotted in meant}, not meant or node.id in scope.bindings

    def is_builtin(self, node: ast.Name) -> bool:
        """Whether a name is one of Python's own that nothing binds anew."""
        return hasattr(builtins, node.id) and self.scopes.is_global(node) and not self.scopes.module.binds(node.id)

    def globals_in(self, node: ast.AST) -> frozenset[str]:
        """The module's names that some code mentions."""
        if node not in self._globals:
            names = (n for n in ast.walk(node) if isinstance(n, ast.Name))
            self._globals[node] = frozenset(n.id for n in names if self.scopes.is_global(n))
        return self._globals[node]

    def reach(self, start: Iterable[str], stops: Iterable[str]) -> tuple[list[ast.stmt], set[str], set[str]]:
        """The code that `start` reaches by name, the names met on the way, and those in `stops` where it ended."""
        seen, met = set(start), set()
        stops = set(stops) - seen
        queue, code = list(seen), []
        while queue:
            for node in self.bound.get(queue.pop(), []):
                if node in code:
                    continue
                code.append(node)
                for name in self.globals_in(node):
                    if name in stops:
                        met.add(name)
                    elif name in self.bound and name not in seen:
                        seen.add(name)
                        queue.append(name)
        return code, seen, met

    @cached_property
    def executed(self) -> list[ast.AST]:
        """What runs when the cells run: statements, the heads of definitions, and the functions that those reach."""
        return self.reached_by(self.statements)

    def reached_by(self, statements: Iterable[ast.stmt]) -> list[ast.AST]:
        """The same for some statements."""
        found = [part for s in statements for part in _immediate(self, s)]
        seen: set[str] = set()
        for part in found:  # grows while it is read
            for name in self.globals_in(part) - seen:
                seen.add(name)
                found += [s for s in self.ever.get(name, []) if isinstance(s, Function | ast.ClassDef)]
        return found

    def hidden_in(self, part: ast.AST) -> list[str]:
        """What some code that runs with the cells uses though it hides what is called; a file may be opened."""
        if part not in self._hidden:
            self._hidden[part] = [v for v in _violations(self, part, ()) if not v.startswith("open()")]
        return self._hidden[part]

    def holds_nothing(self, name: str) -> bool:
        """Whether a top-level name stands for a function, a module or a constant, in which nothing can be put."""
        return all(
            isinstance(s, ast.FunctionDef | ast.AsyncFunctionDef)
            or (isinstance(s, ast.Assign | ast.AnnAssign) and s.value is not None and is_constant(s.value))
            for s in self.bound.get(name, [])
        )

    def owner(self, node: ast.AST) -> ast.ClassDef | None:
        """The student's own class of which an expression is surely an instance (or which it is itself)."""
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            return self._plain_class(node.func.id) if self.scopes.is_global(node.func) else None
        if not isinstance(node, ast.Name):
            return None
        scope = self.scopes.of(node)
        bindings = scope.bindings.get(node.id, [])
        if node.id in scope.imports or not bindings:
            return None
        if all(isinstance(b, ast.Call) for b in bindings):
            owners = {self.owner(b) for b in bindings}
            return owners.pop() if len(owners) == 1 else None
        if len(bindings) == 1 and isinstance(scope.node, ast.FunctionDef) and scope.parent is not None:
            first, around = [*scope.node.args.posonlyargs, *scope.node.args.args][:1], scope.parent.node
            if first == bindings and isinstance(around, ast.ClassDef) and not scope.node.decorator_list:
                return self._plain_class(around.name)
        return None

    def _plain_class(self, name: str, heirs: tuple[str, ...] = ()) -> ast.ClassDef | None:
        """A class whose instances have what stands in it, and nothing of torch's."""
        found = self.classes.get(name)
        bases = [b.id if isinstance(b, ast.Name) else "" for b in found.bases] if found else []
        if (
            found is None
            or name in heirs  # no program, but it can be written
            or self.scopes.module.bindings.get(name) != [found]
            or name in self._used_unbound
            or found.keywords
            or not _decorators(found) <= {"dataclass"}
            or any(b != "object" and self._plain_class(b, (*heirs, name)) is None for b in bases)
        ):
            return None
        return found

    def owner_itself(self, node: ast.Attribute) -> ast.ClassDef | None:
        """The student's own class of which an expression takes a static method or class method."""
        if not isinstance(node.value, ast.Name) or not self.scopes.is_global(node.value):
            return None
        found = self._plain_class(node.value.id)
        method = _method(found, node.attr) if found else None
        return found if method is not None and _decorators(method) & {"staticmethod", "classmethod"} else None

    def has_own(self, owner: ast.ClassDef, attribute: str) -> bool:
        """Whether a class of the student's defines a method, or sets an attribute of its instances."""
        for node in ast.walk(owner):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.attr == attribute:
                return True
        if _method(owner, attribute) is not None:
            return True
        bases = [self.classes[b.id] for b in owner.bases if isinstance(b, ast.Name) and b.id in self.classes]
        return any(self.has_own(b, attribute) for b in bases)


def read(source: Source, exercise: str, forbidden: Sequence[str], exercises: Sequence[str]) -> Reading:
    """What the code of one exercise uses though it may not, and which other exercises it leans on."""
    code, own, met = source.reach([exercise], exercises)
    reading = Reading(exercises=set(met))
    queue = list(met)
    while queue:
        for name in source.reach([queue.pop()], exercises)[2] - reading.exercises - {exercise}:
            reading.exercises.add(name)
            queue.append(name)
    if forbidden:
        found = [text for dotted in source.final_imports.get(exercise, ()) if (text := _dotted(dotted, forbidden))]
        found += [v for node in code for v in _violations(source, node, forbidden)]
        found += _side_doors(source, code, own - set(exercises) | {exercise}, forbidden, exercises)
        reading.violations = list(dict.fromkeys(found))
    return reading


def hidden_when_run(source: Source, statement: ast.stmt) -> list[str]:
    """What hides its calls among what a statement of a cell does when the cell runs, each as a short text."""
    return [text for part in source.reached_by([statement]) for text in source.hidden_in(part)]


def _side_doors(
    source: Source, code: list[ast.stmt], own: set[str], forbidden: Sequence[str], exercises: Sequence[str]
) -> list[str]:
    """What else runs with the cells and may hand the exercise something forbidden, or hide that it does.

    Such as ``table["f"] = torch.softmax`` where the exercise calls ``table["f"]``, or ``torch.f = torch.softmax``.
    A comparison with the forbidden function, as a test of one's own, is none.
    """
    executed = [node for node in source.executed if node not in code]
    found = [text for node in executed for text in source.hidden_in(node)]
    words = {n.attr for node in code for n in ast.walk(node) if isinstance(n, ast.Attribute)}
    words |= {name for node in code for name in source.globals_in(node)}
    mentioned = {id(node): source.globals_in(node) for node in executed}
    related = {n for n in own if n not in exercises and not source.holds_nothing(n)}
    grown = True
    while grown:
        size = len(related)
        for names in mentioned.values():
            if names & related:
                related |= {n for n in names if n in source.bound and n not in exercises} - {
                    n for n in names if source.holds_nothing(n)
                }
        grown = len(related) > size
    for node in executed:
        if mentioned[id(node)] & related or _stores(source, node, words):
            reached, _, _ = source.reach(mentioned[id(node)] - set(exercises), exercises)
            found += [v for part in [node, *reached] for v in _violations(source, part, forbidden)]
    return found


def _stores(source: Source, code: ast.AST, words: set[str]) -> bool:
    """Whether code sets an attribute that the exercise may meet: of one of its words, of an operator, of a library."""
    for node in ast.walk(code):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if node.attr in words or node.attr.startswith("__") or source.meanings(node.value)[0]:
                return True
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "setattr":
            return True
    return False


def _violations(source: Source, code: ast.AST, forbidden: Sequence[str]) -> list[str]:
    """What some code uses though it may not; a dotted name is read as a whole, and type hints are not read."""
    found, queue = [], [code]
    while queue:
        node = queue.pop(0)
        text = _violation(source, node, forbidden)
        if text:
            found.append(text)
        unread: list[ast.AST | None] = []
        if isinstance(node, ast.Attribute):
            dotted, other = source.meanings(node)
            if dotted and not other:
                continue
        elif isinstance(node, ast.Call) and (
            (isinstance(node.func, ast.Name) and node.func.id in REFLECTION)
            or _with_rules(source, node.func, forbidden)
        ):
            unread.append(node.func)  # read with its arguments
        elif isinstance(node, ast.arg | ast.AnnAssign):
            unread.append(node.annotation)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            unread.append(node.returns)
        unread = [n for n in unread if n is not None and (isinstance(node, ast.Call) or is_hint(source, n))]
        if isinstance(node, ast.FunctionDef | ast.ClassDef):  # as a decorator it gets the definition and nothing else
            unread += [d for d in node.decorator_list if _with_rules(source, d, forbidden)]
        queue += [child for child in ast.iter_child_nodes(node) if child not in unread]
    return found


def _violation(source: Source, node: ast.AST, forbidden: Sequence[str]) -> str | None:
    if isinstance(node, ast.Call):
        return _reflection(source, node, forbidden) or _forbidden_argument(source, node, forbidden)
    if isinstance(node, ast.keyword | ast.Dict) and "torch.autograd.*" in forbidden:
        return _requires_grad(node)
    if isinstance(node, ast.MatchClass):
        return _pattern(source, node, forbidden)
    if isinstance(node, ast.ClassDef) and forbidden:
        return _mixture(source, node)
    if isinstance(node, ast.ImportFrom):
        names = [f"{node.module}.{a.name}" for a in node.names if a.name != "*"]
        names = [n for n in names if not any(of.startswith(f"{n}.") for of in NO_GETTERS)]  # on the way to those
        return next((text for dotted in names if (text := _dotted(dotted, forbidden))), None)
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        return _name(source, node, forbidden)
    if isinstance(node, ast.Attribute):
        dotted, other = source.meanings(node)
        text = next((text for d in sorted(dotted) if (text := _dotted(d, forbidden))), None)
        text = text or _handed_on(source, node, forbidden)
        return text or (_attribute(source, node, forbidden) if other else None)
    return None


def _mixture(source: Source, node: ast.ClassDef) -> str | None:
    """A class that is a tensor and something else too, which may read the tensor's attributes by their names."""
    for inner in (n for s in node.body for n in ast.walk(s) if isinstance(n, ast.Import | ast.ImportFrom)):
        if module := next((d for _, d in _imported(inner) if _is_module(d) and d.startswith(KNOWN_ROOTS)), ""):
            return f"{module} in a class, which hides what is called"
    queue, seen, known, mixed = [node], {node}, set[str](), False
    while queue:
        one = queue.pop()
        mixed |= len(one.bases) > 1 or bool(one.decorator_list)
        for base in one.bases:
            own = source.classes.get(base.id) if isinstance(base, ast.Name) else None
            if own is None:
                known |= source.meanings(base)[0] or {"torch.Tensor"}  # a variable may be anything
            elif own not in seen:
                seen.add(own)
                queue.append(own)
        if any(_method(one, "__mro_entries__") for one in source.classes.values()):
            return "__mro_entries__, which hides what a class is made of"
    if any(_is_below(name, ("sklearn",)) for name in known):
        return "a class of scikit-learn's as a base, which reads attributes by their names"
    if mixed and any(name.split(".")[0] == "torch" and not _is_below(name, ("torch.nn",)) for name in known):
        return "a class that is a tensor and something else, which hides what is read"
    return None


def _pattern(source: Source, node: ast.MatchClass, forbidden: Sequence[str]) -> str | None:
    """A class in a pattern: `case A(softmax=f)` reads an attribute, `case A(f)` one that the class names."""
    for name in node.kwd_attrs:
        attribute = ast.Attribute(value=ast.Constant(None), attr=name, ctx=ast.Load())
        if text := _attribute(source, attribute, forbidden):
            return text
    known = isinstance(node.cls, ast.Name) and node.cls.id
    if node.patterns and known not in MATCHED_BY_VALUE and source.owner(ast.Call(node.cls, [], [])) is None:
        return "a pattern of a class, which hides what is read"
    return None


def _handed_on(source: Source, node: ast.AST, forbidden: Sequence[str]) -> str | None:
    """A function that may not be given some argument, used other than in a call that shows its arguments."""
    for name, parameter in _with_rules(source, node, forbidden):
        return f"{name} by another name, which hides whether it gets {parameter}"
    return None


def _reflection(source: Source, node: ast.Call, forbidden: Sequence[str]) -> str | None:
    """`getattr` and the like; with a name that stands there it is read as an attribute (`constant_getattr`)."""
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    if name == "type" and forbidden and len(node.args) > 1 and ast.unparse(node.args[1]) not in ("()", "(object,)"):
        return "type with several arguments, which hides what a class is made of"
    if name not in REFLECTION or not source.scopes.is_global(node.func):  # type: ignore[arg-type]
        return None
    key = node.args[1] if len(node.args) > 1 else None
    if isinstance(key, ast.Constant) and isinstance(key.value, str) and not _is_unreadable_dunder(key.value):
        return None
    return f"{name} with a computed name, which hides what is called"


@cache
def _argument_rules(forbidden: tuple[str, ...]) -> list[tuple[str, str]]:
    """The rules "function(parameter)" as pairs."""
    every = (*forbidden, *ARGUMENTS) if forbidden else ()
    pairs = (re.fullmatch(r"([\w.]+)\((\w+)\)", rule) for rule in every)
    return [(pair[1], pair[2]) for pair in pairs if pair]


def _with_rules(source: Source, function: ast.AST, forbidden: Sequence[str]) -> list[tuple[str, str]]:
    """The rules on arguments of what an expression may stand for."""
    dotted = source.meanings(function)[0]
    return [(name, parameter) for name, parameter in _argument_rules(tuple(forbidden)) if name in dotted]


def _forbidden_argument(source: Source, node: ast.Call, forbidden: Sequence[str]) -> str | None:
    """A call that passes an argument which it may not, or whose arguments cannot be read."""
    for name, parameter in _with_rules(source, node.func, forbidden):
        by_name = any(k.arg in (parameter, None) for k in node.keywords)
        unpacked = any(isinstance(a, ast.Starred) for a in node.args)
        if by_name or unpacked or len(node.args) > _position(name, parameter):
            return f"{name} with {parameter}"
    return None


@cache
def _position(name: str, parameter: str) -> int:
    """The place of a parameter among those that a function takes."""
    module, _, attribute = name.rpartition(".")
    return list(inspect.signature(getattr(importlib.import_module(module), attribute)).parameters).index(parameter)


def _requires_grad(node: ast.keyword | ast.Dict) -> str | None:
    if isinstance(node, ast.Dict):
        wanted = any(isinstance(k, ast.Constant) and k.value == "requires_grad" for k in node.keys)
    else:
        off = isinstance(node.value, ast.Constant) and node.value.value is False
        wanted = node.arg == "requires_grad" and not off
    return "requires_grad (autograd)" if wanted else None


def _name(source: Source, node: ast.Name, forbidden: Sequence[str]) -> str | None:
    for dotted in sorted(source.meanings(node)[0]):
        text = _dotted(dotted, forbidden)
        if text:
            return text
    if handed_on := _handed_on(source, node, forbidden):
        return handed_on
    if not source.scopes.is_global(node):
        return None
    bindings = source.scopes.module.bindings.get(node.id, [])
    if bindings and all(isinstance(b, ast.FunctionDef | ast.ClassDef) for b in bindings):
        return None
    if node.id in UNREADABLE_CALLS:
        return f"{node.id}(), which hides what is called"
    if node.id in REFLECTION or _is_unreadable_dunder(node.id):
        return f"{node.id}, which hides what is called"
    return None


def _attribute(source: Source, node: ast.Attribute, forbidden: Sequence[str]) -> str | None:
    """An attribute of something that is not known: a method of a tensor, perhaps."""
    if _is_unreadable_dunder(node.attr) or node.attr in UNREADABLE_ATTRIBUTES:
        return f"{node.attr}, which hides what is called"
    owner = source.owner(node.value) or source.owner_itself(node)
    if owner is not None and source.has_own(owner, node.attr):
        return None
    if node.attr in MODULES_BY_ATTRIBUTE or (forbidden and node.attr in GETTER_ATTRIBUTES):
        return f".{node.attr}, which hides what is called"
    for name, parameter in _argument_rules(tuple(forbidden)):
        if isinstance(node.ctx, ast.Store) and node.attr == parameter:
            return f".{parameter} (as {name}({parameter}))"
        if source.passes_modules and node.attr == name.split(".")[-1]:
            return f".{node.attr} (as {name}({parameter}))"
    for rule in forbidden:
        parts = rule.split(".")
        if parts[0] not in KNOWN_ROOTS or (rule in NAMESAKES and not source.passes_modules):
            continue
        known = hasattr(torch.Tensor, node.attr) or source.passes_modules  # else it is an attribute of their own
        if known and parts[-1] != "*" and node.attr in (parts[-1], f"{parts[-1]}_"):
            return f".{node.attr} (as {rule})"
        if parts[-1] == "*" and node.attr == parts[-2] and source.passes_modules:
            return f".{node.attr} (as {rule})"
        inner = node.value.attr if isinstance(node.value, ast.Attribute) else ""
        if parts[-1] == "*" and inner == parts[-2] and node.attr in (_exports(".".join(parts[:-1])) or ()):
            return f".{inner}.{node.attr} (as {rule})"
    if "torch.autograd.*" in forbidden and node.attr in AUTOGRAD_WORDS:
        if node.attr == "requires_grad" and isinstance(node.ctx, ast.Load):
            return None
        if node.attr == "backward" and "backward" in source.own_methods and not source.splats_into_torch:
            return None  # a layer's; a tensor has nothing to go back through unless it requires a gradient
        return f".{node.attr} (autograd)"
    return None


def _dotted(dotted: str, forbidden: Sequence[str]) -> str | None:
    dotted = _real_name(dotted)
    parts = dotted.split(".")
    if dotted in HARMLESS:
        return None
    for rule in forbidden:
        if rule.endswith(".*"):
            if dotted == rule[:-2] or dotted.startswith(rule[:-1]):
                return dotted
        elif (
            dotted == rule
            or (
                rule.startswith("torch.")
                and dotted.startswith(("torch.Tensor.", "torch.special.", "torch.masked.", "torch.sparse."))
                and parts[-1] == rule.split(".")[-1]
                and rule not in NAMESAKES
            )
            or (rule.startswith("torch.") and dotted in (f"torch._{rule[6:]}", f"torch.{rule[6:]}_"))
        ):
            return dotted
    if "torch.autograd.*" in forbidden and dotted.startswith("torch.Tensor.") and parts[-1] in AUTOGRAD_WORDS:
        return f"{dotted} (autograd)"
    if dotted in READABLE:
        return None
    if parts[0] not in KNOWN_ROOTS and "torch" in parts:  # a library's own torch
        return _dotted(".".join(parts[parts.index("torch") :]), forbidden)
    private = [p.startswith("_") and not p.endswith("__") for p in parts]
    hidden = any(private) if forbidden or parts[0] in KNOWN_ROOTS[:2] else any(private[:-1])
    # Modules are also attributes of the modules that import them: contextlib.sys.modules.
    rests = [".".join(parts[k:]) for k in range(len(parts)) if ".".join(parts[: k + 1]) not in NAMESAKE_MODULES]
    unreadable = any(_is_below(rest, UNREADABLE_MODULES) or _is_unreadable_of_sys(rest) for rest in rests)
    foreign = bool(forbidden) and (parts[0] not in LIBRARIES or _is_below(dotted, FILES) or _is_getter(dotted))
    if parts[0] == "os" and len(parts) > 1:
        foreign = bool(forbidden) and not _is_below(dotted, READABLE_OF_OS)
    if hidden or unreadable or foreign or any(_is_unreadable_dunder(p) or p.startswith("array_api") for p in parts):
        return f"{dotted}, which hides what is called"
    return None


def _is_getter(dotted: str) -> bool:
    root, *rest = dotted.split(".")
    by_name = _is_below(dotted, GETTERS) and not _is_below(dotted, NO_GETTERS)
    return by_name or (root == "torch" and bool(rest) and rest[0] in COMPILER)


def _is_below(dotted: str, modules: Iterable[str]) -> bool:
    return any(dotted == m or dotted.startswith(f"{m}.") for m in modules)


def _is_unreadable_of_sys(dotted: str) -> bool:
    root, _, rest = dotted.partition(".")
    return root == "sys" and bool(rest) and rest.split(".")[0] not in READABLE_OF_SYS


def _is_unreadable_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__") and name not in READABLE_DUNDERS


@cache
def _real_name(dotted: str) -> str:
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
        return f"{module}.{name}" if _is_below(module, UNREADABLE_MODULES) else ""
    return ""


@cache
def _unreadable_things() -> dict[int, str]:
    """The classes and functions of Python's own among what may not be read, by their identity."""
    found: dict[int, str] = {}
    for dotted in (*UNREADABLE_MODULES, *GETTERS, *(name for name, _ in _argument_rules(("none",)))):
        module, _, name = dotted.rpartition(".")
        if module and module.split(".")[0] not in KNOWN_ROOTS and hasattr(_module(module), name):
            value = getattr(_module(module), name)
            found |= {} if isinstance(value, ModuleType) else {id(value): dotted}
    return found


def _is_module(dotted: str) -> bool:
    return dotted in sys.modules


def _exports(module: str) -> set[str] | None:
    """What a star import of a module binds; None where that is not known."""
    parts = module.split(".")
    if "torch" in parts[1:]:  # a library's own
        return _exports(".".join(parts[parts.index("torch", 1) :]))
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


def _imported(statement: ast.Import | ast.ImportFrom) -> list[tuple[str, str]]:
    """The names that an import binds, and what each stands for."""
    if isinstance(statement, ast.Import):
        names = [(a.asname or a.name.split(".")[0], a) for a in statement.names]
        return [(name, a.name if a.asname else name) for name, a in names]
    return [(a.asname or a.name, f"{statement.module}.{a.name}") for a in statement.names if a.name != "*"]


def _immediate(source: Source, statement: ast.stmt) -> list[ast.AST]:
    """What of a statement runs with the cell: all of it, but of a definition only its head.

    A definition is handed as a whole to its decorators and its bases, so where it has any, the whole counts.
    """
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        given: list[ast.AST] = [*statement.args.defaults, *(d for d in statement.args.kw_defaults if d is not None)]
        hints = [a.annotation for a in ast.walk(statement.args) if isinstance(a, ast.arg) and a.annotation is not None]
        given += [h for h in [*hints, statement.returns] if h is not None and not is_hint(source, h)]
        given += statement.decorator_list
        return given if all(_only_wraps(source, d) for d in statement.decorator_list) else [statement]
    if isinstance(statement, ast.ClassDef):
        if _decorators(statement) - {"dataclass"} or statement.keywords or not _is_only_inherited(source, statement):
            return [statement]
        return [part for s in statement.body for part in _immediate(source, s)]
    return [] if isinstance(statement, ast.Import | ast.ImportFrom) else [statement]


def _only_wraps(source: Source, decorator: ast.expr) -> bool:
    """Whether a decorator calls nothing of the function that it is handed before somebody calls that."""
    head = decorator.func if isinstance(decorator, ast.Call) else decorator
    if isinstance(head, ast.Name) and head.id in ("property", "staticmethod", "classmethod"):
        return source.is_builtin(head)
    dotted, other = source.meanings(head)
    return bool(dotted) and not other and dotted <= ONLY_WRAP


def _is_only_inherited(source: Source, definition: ast.ClassDef, heirs: tuple[str, ...] = ()) -> bool:
    """Whether the bases of a class call nothing of it when it is made: torch's modules, and their heirs."""
    for base in definition.bases:
        own = source.classes.get(base.id) if isinstance(base, ast.Name) else None
        if own is not None and own.name not in heirs:
            if source.scopes.module.bindings.get(own.name) != [own] or _method(own, "__init_subclass__"):
                return False
            if own.keywords or own.decorator_list or not _is_only_inherited(source, own, (*heirs, own.name)):
                return False
        else:
            dotted, other = source.meanings(base)
            if other or not dotted or not all(_is_below(d, ONLY_INHERITED) for d in dotted):
                return False
    return True


def _decorators(definition: ast.FunctionDef | ast.ClassDef) -> set[str]:
    """The names of a definition's decorators, where they are plain names or calls of one."""
    heads = [d.func if isinstance(d, ast.Call) else d for d in definition.decorator_list]
    return {h.id if isinstance(h, ast.Name) else ast.unparse(h) for h in heads}


def _method(owner: ast.ClassDef, name: str) -> ast.FunctionDef | None:
    return next((m for m in owner.body if isinstance(m, ast.FunctionDef) and m.name == name), None)


def is_constant(value: ast.AST) -> bool:
    allowed = ast.Constant | ast.Tuple | ast.UnaryOp | ast.BinOp | ast.operator | ast.unaryop | ast.expr_context
    return all(isinstance(n, allowed) for n in ast.walk(value))


def is_hint(source: Source, node: ast.AST) -> bool:
    """Whether a type hint is a plain one, which calls nothing: no brackets and no ``|`` of something of their own."""
    allowed = ast.Name | ast.Attribute | ast.Subscript | ast.Constant | ast.BinOp | ast.BitOr | ast.Tuple | ast.List
    if not all(isinstance(n, allowed | ast.expr_context) for n in ast.walk(node)):
        return False
    called: list[ast.AST] = [n for n in ast.walk(node) if isinstance(n, ast.BinOp)]
    called += [n.value for n in ast.walk(node) if isinstance(n, ast.Subscript)]
    names = [n for part in called for n in ast.walk(part) if isinstance(n, ast.Name)]
    return all(not source.meanings(n)[1] or (source.is_builtin(n)) for n in names)
