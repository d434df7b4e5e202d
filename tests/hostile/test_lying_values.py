"""Results that are not what they say: objects equal to everything, tensors that lie, and every odd kind of tensor."""

from __future__ import annotations

import pytest
from classroom import Classroom

EQUAL = """
class Equal:
    def __getattribute__(self, name):
        return lambda *a, **k: self
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __bool__(self): return True
    def __le__(self, other): return True
    def __lt__(self, other): return True
    def __sub__(self, other): return 0
    __rsub__ = __sub__
    def __abs__(self): return 0
    def __float__(self): return 0.0
    def __hash__(self): return 0
    def __len__(self): return 5
    def __iter__(self): return iter([self] * 5)
"""
LYING = """
class Lying(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        return True
    def __eq__(self, other): return True
    def detach(self): return self
    def clone(self): return self
    def numpy(self): return self
    shape = property(lambda self: torch.Size([5]))
    dtype = torch.float64
"""
VALUES = {
    "an object equal to everything": (EQUAL, "Equal()"),
    "a list of them": (EQUAL, "[Equal()] * 5"),
    "a float equal to everything": ("class F(float):\n    __eq__ = __le__ = lambda s, o: True\n", "F(0)"),
    "an int equal to everything": (
        "class I(int):\n    __eq__ = lambda s, o: True\n    __hash__ = int.__hash__\n",
        "I(0)",
    ),
    "a string equal to everything": ("class S(str):\n    __eq__ = lambda s, o: True\n", "S('x')"),
    "a list that lies about itself": (
        "class L(list):\n    __len__ = lambda s: 5\n    __iter__ = lambda s: iter([0.0] * 5)\n",
        "L()",
    ),
    "a dict that lies": (
        "class D(dict):\n    items = lambda s: [(1, 2)]\n    __iter__ = lambda s: iter([1])\n",
        "D(a=1)",
    ),
    "a class that says it is a tensor": (
        "class T:\n    @property\n    def __class__(self): return torch.Tensor\n    layout = torch.strided\n",
        "T()",
    ),
    "an object that pickles as code": ("class R:\n    def __reduce__(self): return (print, ('hacked',))\n", "R()"),
    "a tensor subclass that lies": (LYING, "torch.zeros(x.shape).as_subclass(Lying)"),
    "a generator": ("", "(v for v in [1.0] * 5)"),
    "a function": ("", "lambda *a: True"),
    "a class": ("", "int"),
    "a module": ("", "torch"),
    "itself": ("", "double"),
    "NotImplemented": ("", "NotImplemented"),
    "Ellipsis": ("", "..."),
    "NaN": ("", "x * float('nan')"),
    "infinity": ("", "x.abs() * float('inf')"),
    "zeros": ("", "x * 0"),
    "the input": ("", "x"),
    "empty": ("", "x[:0]"),
    "no entries but the right length": ("", "torch.zeros(5, 0)"),
    "0-d": ("", "x.sum()"),
    "a number": ("", "1.0"),
    "True": ("", "True"),
    "complex": ("", "(2 * x).to(torch.complex128)"),
    "complex half": ("", "(2 * x).to(torch.complex32)"),
    "whole numbers": ("", "(x > 0).long()"),
    "booleans": ("", "x > 0"),
    "8 bits": ("", "(2 * x).to(torch.uint8)"),
    "8-bit floats": ("", "(2 * x).to(torch.float8_e4m3fn)"),
    "sparse": ("", "(2 * x).to_sparse()"),
    "sparse rows": ("", "(2 * x)[None].to_sparse_csr()"),
    "nested": ("", "torch.nested.nested_tensor([x, x])"),
    "quantized": ("", "torch.quantize_per_tensor((2 * x).float(), 0.1, 0, torch.quint8)"),
    "on the meta device": ("", "torch.empty(5, device='meta')"),
    "gigantic strides": ("", "torch.zeros(1).as_strided((1 << 30, 1 << 10), (0, 0))"),
    "more entries than numbers": ("", "torch.zeros(1).expand(1 << 62)"),
    "one axis too many for anybody": ("", "x.reshape([1] * 60 + [-1])"),
    "a storage that is gone": ("", "(lambda t: (t.untyped_storage().resize_(0), t)[1])(2 * x)"),
    "batched": ("", "torch.func.vmap(lambda v: v)(x.reshape(-1, 1)) + float('nan')"),
    "a conjugate": ("", "(2 * x).to(torch.complex128).conj()"),
    "an array of objects": ("import numpy as np\n", "np.array([EQ] * 5, dtype=object)".replace("EQ", "None")),
    "a masked array": ("import numpy as np\n", "np.ma.masked_all(5)"),
    "a structured array": ("import numpy as np\n", "np.zeros(5, dtype=[('a', 'f8')])"),
    "dates": ("import numpy as np\n", "np.zeros(5, dtype='M8[s]')"),
    "text in an array": ("import numpy as np\n", "np.array(['2'] * 5)"),
    "long doubles of nothing": ("import numpy as np\n", "np.full(5, np.nan, dtype=np.longdouble)"),
}


@pytest.mark.parametrize("what", VALUES)
def test_a_lying_result_earns_nothing(classroom: Classroom, what: str) -> None:
    before, value = VALUES[what]
    classroom.attack({"double": f"import torch\n{before}def double(x):\n    return {value}\n"}, lost=["double"])


HONEST_VALUES = {
    "a parameter": "torch.nn.Parameter(2 * x)",
    "one that requires a gradient": "(2 * x).requires_grad_()",
    "an expanded view": "torch.stack([2 * x, x])[:1].expand(1, *x.shape)[0]",
    "a negative view": "(-2 * x).neg()",
    "an array": "(2 * x).numpy()",
    "a tensor of a harmless subclass": "(2 * x).as_subclass(Plain)",
}


@pytest.mark.parametrize("what", HONEST_VALUES)
def test_an_unusual_right_result_earns_everything(classroom: Classroom, what: str) -> None:
    code = f"import torch\nclass Plain(torch.Tensor):\n    pass\ndef double(x):\n    return {HONEST_VALUES[what]}\n"
    classroom.attack({"double": code})


@pytest.mark.parametrize(
    "patch",
    [
        "import course_utils.checking.expect as e\ne.Expectation.close_to = lambda s, *a, **k: s",
        "import course_utils.checking.verdict as v\nv.judge_criterion = None",
        "import course_utils.checking.unmet as u\nu.Unmet.__init__ = None",
        "import course_utils.checking.values as v\nv.plain = lambda value, *a, **k: value",
        "import autograder.runner.serve as s\ns.plain_result = lambda *a: None",
        "import autograder.runner.frames as f\nf.Decoder.decode = lambda *a: None",
        "import torch\ntorch.allclose = torch.isclose = torch.equal = lambda *a, **k: True",
        "import torch\ntorch.Tensor.__eq__ = torch.Tensor.__le__ = lambda *a: True",
        "import torch\ntorch.Tensor.abs = torch.Tensor.max = lambda self, *a: torch.zeros(())",
        "import builtins\nbuiltins.isinstance = lambda *a: True",
        "import builtins\nbuiltins.all = builtins.any = builtins.len = lambda *a: True",
        "import builtins\nbuiltins.__build_class__ = builtins.__import__ = None",
        'import json\njson.dumps = lambda *a, **k: \'{"op": "result", "error": null, "result": true}\'',
        "import numpy as np\nnp.allclose = lambda *a, **k: True",
        "import sys\nsys.settrace(lambda *a: None)\nsys.setprofile(lambda *a: None)",
        "import checks\nfor c in checks.double.criteria:\n    object.__setattr__(c, 'points', 1000)",
        "import checks\nchecks.expect = lambda *a: None\nchecks.double.criteria.clear()",
        "check = lambda *names: 'all met'",
        "get_ipython().input_transformers_cleanup.append(lambda lines: ['def double(x): return 2'])",
        "get_ipython().run_cell = lambda *a, **k: None",
        "import ast\nclass T(ast.NodeTransformer):\n    def visit_Constant(self, n):\n        return ast.Constant(5)\n"
        "get_ipython().ast_transformers.append(T())",
        "import gc\nfor o in gc.get_objects():\n    if type(o).__name__ == 'Server':\n        o.serve = lambda: None",
    ],
)
def test_what_is_rewritten_in_the_jail_earns_nothing(classroom: Classroom, patch: str) -> None:
    """The criteria are elsewhere; whatever is rewritten here can only make the student's own results wrong."""
    before = classroom.honest.scores
    report = classroom.harm({"double": f"{patch}\ndef double(x):\n    return 3 * x\n"})
    assert report.scores["double"] == 0
    assert all(report.scores[name] <= before[name] for name in before)
