"""Reading a student's notebook: whatever it is, a submission comes out, and what is odd is said in a sentence."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autograder import submission
from autograder.submission import Submission, read_notebook, read_notebook_bytes, read_program
from course_utils import notebook_code

EXERCISES = ("double", "halve")
EXPERIMENTS = {"growth": "W = 3\nshow(double(W))"}
DOUBLE = "def double(x):\n    return x + x\n"
HALVE = "def halve(x):\n    return x / 2\n"


def cell(source: object, kind: str = "code", **metadata: object) -> dict[str, object]:
    return {"cell_type": kind, "source": source, "metadata": metadata, "outputs": []}


def notebook(*cells: object, **more: object) -> bytes:
    cells = tuple(cell(c) if isinstance(c, str) else c for c in cells)
    return json.dumps({"cells": cells, "nbformat": 4, "nbformat_minor": 5, "metadata": {}, **more}).encode()


def read(*cells: object) -> Submission:
    return read_notebook_bytes(notebook(*cells), EXERCISES, EXPERIMENTS)


def run(submission: Submission, **given: object) -> dict[str, Any]:
    """The names after all cells ran here, each by itself, as in the jail."""
    namespace: dict[str, Any] = {"__name__": "__main__", **given}
    for c in submission.cells:
        if not c.error:
            with contextlib.suppress(NameError), contextlib.redirect_stdout(io.StringIO()):
                exec(compile(c.source, c.name, "exec"), namespace)
    return namespace


# --- What is no notebook ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\x00" * 100, "not valid JSON"),
        (b"[" * 200_000, "not valid JSON"),
        (b"1" * 10_000, "not valid JSON"),
        (b"\xff\xfe{\x00}\x00", "not UTF-8"),
        (b"[]", "no list of cells"),
        (b"5", "no list of cells"),
        (b"{}", "no list of cells"),
        (b'{"cells": {}}', "no list of cells"),
        (b'{"cells": null, "worksheets": 5}', "no list of cells"),
    ],
)
def test_what_is_no_notebook_is_said_to_be_none(data: bytes, says: str) -> None:
    found = read_notebook_bytes(data, EXERCISES)
    assert found.cells == [] and found.defined == set()
    assert len(found.oddities) == 1 and says in found.oddities[0]


def test_links_folders_and_missing_files_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "real.ipynb").write_bytes(notebook(DOUBLE))
    (tmp_path / "link.ipynb").symlink_to(tmp_path / "real.ipynb")
    (tmp_path / "dangling.ipynb").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.ipynb").mkdir()
    assert read_notebook(tmp_path / "real.ipynb", EXERCISES).defined == {"double"}
    for name in ("link", "dangling", "folder", "missing"):
        found = read_notebook(tmp_path / f"{name}.ipynb", EXERCISES)
        assert found.defined == set() and len(found.oddities) == 1
        assert str(tmp_path) not in found.oddities[0]


def test_a_large_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "MAX_BYTES", 1 << 20)
    (tmp_path / "large.ipynb").write_bytes(b" " * (3 << 20))
    assert "3 MiB, more than 1" in read_notebook(tmp_path / "large.ipynb", EXERCISES).oddities[0]


def test_cells_of_the_wrong_kind_are_passed_over() -> None:
    junk = [1, None, "x", [], {}, {"cell_type": 5, "source": 7, "metadata": [], "outputs": {}}, cell([DOUBLE, 5, None])]
    found = read_notebook_bytes(json.dumps({"cells": junk}).encode(), EXERCISES)
    assert found.defined == {"double"} and found.oddities == []


def test_format_3_is_read_alike() -> None:
    old = {"cell_type": "code", "input": DOUBLE.splitlines(True), "outputs": [], "metadata": {}}
    data = json.dumps({"nbformat": 3, "worksheets": [{"cells": [old]}, {"cells": 5}, 7]}).encode()
    assert read_notebook_bytes(data, EXERCISES).defined == {"double"}


def test_a_byte_order_mark_is_no_harm() -> None:
    assert read_notebook_bytes(b"\xef\xbb\xbf" + notebook(DOUBLE), EXERCISES).defined == {"double"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(DOUBLE),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["cells", "worksheets", "cell_type", "source", "input", "metadata", "outputs", "course", "role", "name"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=15,
)


@settings(max_examples=150, deadline=None)
@given(json_values)
def test_any_json_gives_a_submission(value: object) -> None:
    found = read_notebook_bytes(json.dumps(value).encode(), EXERCISES, EXPERIMENTS)
    assert all(o.endswith(".") for o in found.oddities)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([*"()[]{}:=%!?\"'\\#\n\t ", "def double(x)", "return", "\ud800", "\0", "\r", "f'{"])))
def test_any_source_gives_a_submission(parts: list[str]) -> None:
    found = read("".join(parts), HALVE)
    assert "halve" in found.defined


# --- Which code is run -----------------------------------------------------------------------------------------------


def test_all_of_an_exercises_cell_is_run_in_order() -> None:
    source = "import math\n" + DOUBLE + "state = []\nprint(double(3))\n"
    found = read(source, HALVE)
    assert [c.name for c in found.cells] == ["double", "double", "double", "halve"]
    assert [ast.unparse(c.tree) for c in found.cells[:3] if c.tree] == [
        "import math",
        ast.unparse(ast.parse(DOUBLE + "state = []")),
        "print(double(3))",
    ]
    assert found.cells[2].source.splitlines()[-1] == "print(double(3))"
    assert len(found.cells[2].source.splitlines()) == len(source.splitlines())  # lines keep their numbers
    assert found.shown == {"double": source, "halve": HALVE}
    assert found.spare == [] and found.oddities == []


def test_a_definition_below_what_fails_is_run() -> None:
    """Else the name would keep what an earlier cell gave it, which is not what the rules read."""
    for first in ("1 / 0\n", "import nonexistent\n", "x: y = 3\n", "f = g\n", "def f(a=1 / 0): ...\n"):
        found = read(first + DOUBLE)
        assert [c.source.strip("#\n") for c in found.cells] == [first.strip(), DOUBLE.strip()]
        helper = read(first + "def helper(x):\n    return x\n", "def double(x):\n    return helper(x)\n")
        assert [c.name for c in helper.cells][-2:] == ["cell 1", "double"]
        assert helper.cells[-2].source.strip("#\n") == "def helper(x):\n    return x"


def test_a_cell_of_very_many_turns_is_not_run() -> None:
    found = read("".join(f"def f{k}(): ...\nprint({k})\n" for k in range(600)) + DOUBLE)
    assert [c.tree for c in found.cells] == [None]
    assert "more than 500 times" in found.cells[0].error


@pytest.mark.parametrize(
    "source",
    [
        "double = lambda x: x + x",
        "class double:\n    pass",
        "from elsewhere import double",
        "if True:\n    def double(x): ...",
        "try:\n    pass\nexcept Exception:\n    double = 3",
        "for double in [1]: pass",
        "double: object = 3",
        "(double := 3)",
        "a, (double, b) = 1, (2, 3)",
        "async def double(x): ...",
        "with open('x') as double: pass",
    ],
)
def test_every_way_of_defining_an_exercise_counts(source: str) -> None:
    assert read(source).defined == {"double"}


@pytest.mark.parametrize("source", ["def f():\n    double = 3", "double(3)", "'def double(x)'", "# def double(x)"])
def test_what_only_mentions_an_exercise_does_not(source: str) -> None:
    assert read(source).defined == set()


def test_metadata_points_order_and_copies_decide_nothing() -> None:
    plain = read(DOUBLE, HALVE)
    graded = {"nbgrader": {"grade_id": "x", "points": 100, "locked": True, "schema_version": 3}, "course": [1]}
    odd = read(cell(HALVE, **graded), cell(DOUBLE, course={"role": "check", "name": "halve"}))
    assert odd.defined == plain.defined and odd.oddities == []
    assert {c.name: c.source for c in odd.cells} == {c.name: c.source for c in plain.cells}


def test_of_several_definitions_the_last_one_counts_and_it_is_said() -> None:
    found = read(DOUBLE, HALVE, "def double(x):\n    return 2 * x\n")
    assert found.oddities == ["double is defined in 2 cells (1, 3); the last one counts."]
    assert run(found)["double"](3) == 6
    many = read(*[DOUBLE] * 40)
    assert len(many.oddities[0]) < 120


def test_code_in_a_text_cell_is_not_run_and_it_is_said() -> None:
    found = read(cell(DOUBLE, "markdown"), cell(HALVE, "raw"))
    assert found.cells == [] and [o.split()[:2] for o in found.oddities] == [["Cell", "1"], ["Cell", "2"]]


def test_other_cells_give_what_an_exercise_needs_and_no_more() -> None:
    found = read(
        "import math\nprint('hello')\nunused = train()\n",
        "SCALE = 2\ntable = {}\ntable['f'] = lambda x: SCALE * x\nexplode()\n",
        "def helper(x):\n    return table['f'](x)\n\ndef plot():\n    import matplotlib\n",
        "def double(x):\n    unused = math.pi\n    return helper(x)\n",
    )
    names = run(found)
    assert names["double"](4) == 8
    assert "unused" not in names and "plot" not in names
    assert not any("explode" in c.source or "hello" in c.source for c in found.cells)
    assert len(found.spare) == 3


def test_an_assignment_that_fails_stops_nothing_else() -> None:
    found = read(
        "W = undefined\nSCALE = 2\ndef helper(x):\n    return SCALE * x\n", "def double(x):\n    return helper(x), W\n"
    )
    assert run(found)["helper"](2) == 4


def test_imports_and_definitions_inside_if_and_try_come_along() -> None:
    found = read(
        "try:\n    from math import nothing as one\nexcept ImportError:\n    one = 1\n"
        "if one:\n    def helper(x):\n        return x + one\nelse:\n    helper = None\nif one:\n    explode()\n",
        "def double(x):\n    return helper(x) + x - one\n",
    )
    assert run(found)["double"](3) == 6
    assert not any("explode" in c.source for c in found.cells)


def test_lines_keep_their_numbers() -> None:
    found = read(
        "x = 1\n\n# note\nprint(x)\n@property\ndef helper(x):\n    return x\n", "def double(x):\n    return helper(x)\n"
    )
    assert found.cells[0].source.splitlines()[4:] == ["@property", "def helper(x):", "    return x"]
    assert found.cells[0].source.startswith("#")  # IPython drops empty lines at the start


def test_statements_that_share_a_line_are_taken_apart() -> None:
    found = read("explode(); SCALE = 2; explode()\n", "def double(x):\n    return SCALE * x\n")
    assert run(found)["double"](3) == 6 and "explode" not in found.cells[0].source


def test_assignments_of_an_experiment_are_left_out() -> None:
    needs = "def double(x):\n    return W * x\n"
    assert [c.name for c in read("W = 2\n", needs).cells] == ["cell 1", "double"]
    known = cell("W = 2\n", course={"role": "experiment", "name": "growth"})
    assert [c.name for c in read(known, needs).cells] == ["double"]
    handed_out = cell(EXPERIMENTS["growth"])  # metadata gone
    assert [c.name for c in read(handed_out, needs).cells] == ["double"]
    forged = cell("W = 2\n", course={"role": "experiment", "name": "no such thing"})
    assert [c.name for c in read(forged, needs).cells] == ["cell 1", "double"]


def test_answers_and_outputs_are_taken_by_name() -> None:
    outputs = [{"output_type": "stream", "text": "1"}]
    found = read(
        {**cell(EXPERIMENTS["growth"], course={"role": "experiment", "name": "growth"}), "outputs": outputs},
        cell("Because.", "markdown", course={"role": "written", "name": "why"}),
        cell("Again.", "markdown", course={"role": "written", "name": "why"}),
        cell("By its grade_id.", "markdown", nbgrader={"grade_id": "how"}),
    )
    assert found.written == {"why": "Because.", "how": "By its grade_id."}
    assert found.outputs == {"growth": outputs} and found.shown == {"growth": EXPERIMENTS["growth"]}


# --- What cannot be read is not run ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("def double(x:\n    return x\n", "raised SyntaxError: '(' was never closed in line 1"),
        ("def double(x):\n\treturn x\n        y\n", "raised"),
        ("def double(x):\n    return " + "+".join(["x"] * 1000) + "\n", "nested more than 200 deep"),
        ("def double(x):\n    return " + "(" * 300 + "x" + ")" * 300 + "\n", "raised SyntaxError"),
        (DOUBLE + "\0", "null bytes"),
        (DOUBLE + "%time x\n" * 2000, "raised SyntaxError"),
        ("double = 1 <> 2", "raised SyntaxError"),
    ],
)
def test_a_cell_that_cannot_be_read_is_not_run(source: str, says: str) -> None:
    found = read("from __future__ import barry_as_FLUFL\n", source, HALVE)
    assert found.defined == {"double", "halve"}
    broken = next(c for c in found.cells if c.name == "double")
    assert broken.tree is None and says in broken.error


def test_a_long_cell_and_a_long_notebook_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    found = read("x = '" + "a" * 150_000 + "'", HALVE)
    assert found.oddities == ["Cell 1 has 150006 characters; it was not run."] and found.defined == {"halve"}
    monkeypatch.setattr(notebook_code, "MAX_CODE", 200)
    monkeypatch.setattr(notebook_code, "MAX_CELLS", 12)
    written = cell("Because.", "markdown", course={"role": "written", "name": "why"})
    found = read(*["x = 1  # " + "a" * 30] * 10, written, HALVE, DOUBLE)
    assert found.written == {"why": "Because."} and found.defined == set()
    assert [o.split(";")[0] for o in found.oddities] == [
        "The notebook has 13 cells",
        "The notebook has more than 200 characters of code",
    ]


@pytest.mark.parametrize(
    "source",
    [
        "%%time\n" + DOUBLE,
        "\n%%time\n%%capture out\n" + DOUBLE,
        "%matplotlib inline\n!pip install x\n" + DOUBLE,
        "files = !ls\n" + DOUBLE + "double?\n?double\n%timeit double(1)\n",
        "if True:\n    %time x = 1\n" + DOUBLE,
        "é = 'é'; get_ipython().system('ls')\n" + DOUBLE,
        DOUBLE.replace("\n", "\r\n"),
        DOUBLE.replace("\n", "\r"),
        "%time 1\r\n" + DOUBLE,
    ],
)
def test_magics_are_taken_out(source: str) -> None:
    found = read(source)
    assert found.oddities == [] and found.cells[0].error == ""
    assert "get_ipython" not in found.cells[0].source
    assert run(found)["double"](2) == 4
    assert len(found.cells[-1].source.splitlines()) == len(source.splitlines())


def test_what_a_magic_would_define_is_not_defined() -> None:
    found = read("%%bash\n" + DOUBLE, "%time double = lambda x: x\n" + HALVE)
    assert found.defined == {"halve"}
    assert "double" not in run(found)


def test_halves_of_characters_do_not_stop_anything() -> None:
    found = read(
        "mark = '\ud800'\n" + DOUBLE, cell("\udfff answer", "markdown", course={"role": "written", "name": "w"})
    )
    assert found.defined == {"double"}
    json.dumps([found.code(), found.written, found.shown, found.spare], ensure_ascii=False).encode()


def test_a_submission_travels_to_another_process() -> None:
    deep = "def double(x):\n    return " + "+".join(["x"] * 150) + "\n"  # too deep to pickle as a syntax tree
    found = read(
        "import math\ntable = getattr(math, 'pi')\n", deep, "def halve(x)\n    return table", HALVE + "table\n"
    )
    again = pickle.loads(pickle.dumps(found))
    assert [(c.name, c.source, c.error, c.tree is None) for c in again.cells] == [
        (c.name, c.source, c.error, c.tree is None) for c in found.cells
    ]
    assert run(again)["double"](1) == 150


def test_a_program_is_read_as_one_cell() -> None:
    found = read_program("%time 1\n" + DOUBLE + "explode = 1\n", EXERCISES, "mine.py")
    assert found.defined == {"double"} and [c.name for c in found.cells] == ["mine.py"]
    assert run(found)["explode"] == 1
    assert read_program("def double(x", EXERCISES).cells[0].error
