"""What hides which function is called: libraries that run what does not stand in the source, attributes, built-ins.

Other people's code may do so in ways without end.  So an exercise that may not call everything may use no library but
those that are named here, and of these nothing that reads files, strings or attributes by their names.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

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
KNOWN_ROOTS = ("torch", "torchvision", "course_utils")  # where a forbidden thing may be found under another name


def hides_calls(dotted: str, *, restricted: bool) -> bool:
    """Whether what a dotted name stands for may call, or lead to, what does not stand in the source.

    Parameters
    ----------
    dotted : str
        The real name of a library's module, class or function (`autograder.library_names`).
    restricted : bool
        Whether it is asked for an exercise that may not call everything; those may use less.
    """
    parts = dotted.split(".")
    private = [p.startswith("_") and not p.endswith("__") for p in parts]
    hidden = any(private) if restricted or parts[0] in KNOWN_ROOTS[:2] else any(private[:-1])
    # Modules are also attributes of the modules that import them: contextlib.sys.modules.
    rests = [".".join(parts[k:]) for k in range(len(parts)) if ".".join(parts[: k + 1]) not in NAMESAKE_MODULES]
    unreadable = any(is_below(rest, UNREADABLE_MODULES) or _is_unreadable_of_sys(rest) for rest in rests)
    foreign = restricted and (parts[0] not in LIBRARIES or is_below(dotted, FILES) or _is_getter(dotted))
    if parts[0] == "os" and len(parts) > 1:
        foreign = restricted and not is_below(dotted, READABLE_OF_OS)
    return hidden or unreadable or foreign or any(is_unreadable_dunder(p) or p.startswith("array_api") for p in parts)


def _is_getter(dotted: str) -> bool:
    root, *rest = dotted.split(".")
    by_name = is_below(dotted, GETTERS) and not is_below(dotted, NO_GETTERS)
    return by_name or (root == "torch" and bool(rest) and rest[0] in COMPILER)


def is_below(dotted: str, modules: Iterable[str]) -> bool:
    """Whether a dotted name is one of these, or leads on from one."""
    return any(dotted == m or dotted.startswith(f"{m}.") for m in modules)


def _is_unreadable_of_sys(dotted: str) -> bool:
    root, _, rest = dotted.partition(".")
    return root == "sys" and bool(rest) and rest.split(".")[0] not in READABLE_OF_SYS


def is_unreadable_dunder(name: str) -> bool:
    """Whether an attribute of Python's own leads to what does not stand in the source, as `__dict__` does."""
    return name.startswith("__") and name.endswith("__") and name not in READABLE_DUNDERS
