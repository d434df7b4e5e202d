"""Makes the bundle that students get: a folder and a zip file without anything of staff's."""

from __future__ import annotations

import io
import json
import tomllib
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from autograder.assignment import Assignment
from autograder.atomic_write import atomic_folder, atomic_write
from autograder.build import build
from autograder.errors import CourseError

ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file can hold: a bundle's bytes must not depend on today
SHORT = 25  # lines up to this many characters say nothing about where they come from
STAFF_FILES = ("hidden_checks.py", "mistakes.py", "alternatives.py")

README = """\
# {title}

{description}.

## Set up

You need Python {python}. In this folder:

```sh
python -m venv .venv
. .venv/bin/activate            # Windows: .venv\\Scripts\\activate
pip install .{constraints}
course doctor                   # says what is missing, if anything is, and what to do about it
{data}```

On Google Colab nothing has to be set up: upload the notebook there, and its first cell asks for the zip file in which
you got this folder.

## Work

```sh
{opening}
```

Write your solution where a cell says `# YOUR CODE HERE`, and your answers where it says `YOUR ANSWER HERE`. The cell
`check("…")` after each exercise shows which of its criteria your function meets, and what is wrong where it does not.
Grading holds these criteria and further ones against your functions. It takes functions and classes by their names;
cells that train and plot are not run again, so save the notebook with their output.

```sh
{check:<{width}}  # the same checks in the terminal, for the notebook as it is saved
{check_one:<{width}}  # one exercise
{report:<{width}}  # figures, numbers and answers without code, as a page and as a PDF
```

## Hand in

```sh
course submit {short}
```

It checks the notebook, says what is unfinished, and writes one zip file with a receipt. It sends nothing: hand in that
file where your course collects assignments.
"""


@dataclass(frozen=True)
class Released:
    """The bundle, as a folder and as a zip file beside it."""

    folder: Path
    archive: Path


def release(assignments: Sequence[Assignment], output: Path | None = None) -> Released:
    """Make the student bundle of one or several assignments.

    Parameters
    ----------
    assignments : sequence of Assignment
        What to hand out.
    output : Path, optional
        The bundle's folder; the zip file has its name with ".zip".  build/release/<name> under the course's root when
        not given, where <name> is the assignment's, or "deep-learning-course" for several.

    Raises
    ------
    CourseError
        When a committed notebook is stale, or when a line of a solution or of another staff file got into the bundle.
    """
    if not assignments:
        raise CourseError("Name at least one assignment to release.")
    root = assignments[0].root
    for assignment in assignments:
        if build(assignment, check=True).stale:
            raise CourseError(f"{assignment.notebook} is not what its source says; run `autograder build` first.")
    name = assignments[0].name if len(assignments) == 1 else _project(root)["name"]
    folder = (output or root / "build" / "release" / name).resolve()
    if folder.exists() and not (folder.is_dir() and (not any(folder.iterdir()) or (folder / "course_utils").is_dir())):
        raise CourseError(f"{folder} holds something else than a student bundle; give another folder.")
    archive = folder.with_name(f"{folder.name}.zip")
    with atomic_folder(folder) as temporary:
        for path, data in sorted(_bundle(root, assignments).items()):
            (temporary / path).parent.mkdir(parents=True, exist_ok=True)
            (temporary / path).write_bytes(data)
        for assignment in assignments:
            leaked = leaked_lines(temporary, assignment)
            if leaked:
                where, line = leaked[0]
                raise CourseError(f"The bundle would give away staff's line {line!r} of {assignment.name} in {where}.")
        _zip(temporary, archive, folder.name)
    return Released(folder, archive)


def leaked_lines(bundle: Path, assignment: Assignment) -> list[tuple[str, str]]:
    """Lines that only staff may see but that stand in a bundle.

    A line counts when it is longer than 25 characters without its indent, belongs to a reference solution, a hidden
    criterion, a mistake or an alternative, and belongs neither to what the notebook's source hands out nor to the
    visible criteria (of any assignment) or course_utils of the checkout.

    Parameters
    ----------
    bundle : Path
        The folder to search, all its text files and the cells of its notebooks.
    assignment : Assignment
        Whose secrets to look for.

    Returns
    -------
    list of (str, str)
        File within the bundle, and line.
    """
    secret = _lines("\n".join(line for c in assignment.cells for line in c.solution_lines))
    for file in STAFF_FILES:
        path = assignment.solution_folder / file
        secret |= _lines(path.read_text(encoding="utf-8")) if path.is_file() else set()
    public = _lines("\n".join(c.handout for c in assignment.cells))
    checks = (assignment.root / "assignments").glob("*/checks.py")  # assignments word their criteria alike
    for path in (*checks, *(assignment.root / "course_utils").rglob("*.py")):
        public |= _lines(path.read_text(encoding="utf-8"))
    found = []
    for path in sorted(p for p in bundle.rglob("*") if p.is_file()):
        found += [(str(path.relative_to(bundle)), line) for line in sorted(_lines(_text(path)) & (secret - public))]
    return found


def _text(path: Path) -> str:
    text = path.read_bytes().decode("utf-8", errors="replace")
    if path.suffix == ".ipynb":
        return "\n".join(cell.source for cell in nbformat.reads(text, as_version=4).cells)
    return text


def _lines(text: str) -> set[str]:
    return {line.strip() for line in text.splitlines() if len(line.strip()) > SHORT}


def _project(root: Path) -> dict[str, Any]:
    path = root / "pyproject.toml"
    if not path.is_file():
        raise CourseError(f"{path} is missing; the student bundle takes its dependencies from it.")
    return tomllib.loads(path.read_text(encoding="utf-8"))["project"]


def _bundle(root: Path, assignments: Sequence[Assignment]) -> dict[str, bytes]:
    """Every file of the bundle, named one by one so that nothing gets in by accident."""
    files: dict[str, bytes] = {}
    for assignment in assignments:
        for path in (assignment.notebook, assignment.folder / "checks.py"):
            files[path.relative_to(root).as_posix()] = path.read_bytes()
    for path in _package_files(root / "course_utils"):
        files[path.relative_to(root).as_posix()] = path.read_bytes()
    for name in ("datasets/registry.toml", "LICENSE", "constraints.txt"):
        if (root / name).is_file():
            files[name] = (root / name).read_bytes()
    if "datasets/registry.toml" not in files:
        raise CourseError(f"{root / 'datasets' / 'registry.toml'} is missing; notebooks find their data through it.")
    files["pyproject.toml"] = _pyproject(root).encode()
    files["README.md"] = _readme(root, assignments, "constraints.txt" in files).encode()
    return files


def _package_files(package: Path) -> Iterable[Path]:
    """The files of a package but for caches and hidden files."""
    for path in sorted(package.rglob("*")):
        parts = path.relative_to(package).parts
        if path.is_file() and path.suffix != ".pyc" and not any(p.startswith((".", "__pycache__")) for p in parts):
            yield path


def _pyproject(root: Path) -> str:
    """The project file of the bundle: the same package for students, with nothing of staff's."""
    project = _project(root)

    def quoted(text: str) -> str:
        return json.dumps(text, ensure_ascii=False)  # TOML's basic strings are written as JSON's

    dependencies = "\n".join(f"    {quoted(d)}," for d in project["dependencies"])
    lines = [
        "[build-system]",
        'requires = ["hatchling>=1.27"]',
        'build-backend = "hatchling.build"',
        "",
        "[project]",
        f"name = {quoted(project['name'])}",
        f"version = {quoted(project['version'])}",
        'description = "Assignments in deep learning, and the tools that their notebooks import"',
        'readme = "README.md"',
        f"requires-python = {quoted(project['requires-python'])}",
        f"dependencies = [\n{dependencies}\n]",
        "",
        "[project.scripts]",
        f"course = {quoted(project['scripts']['course'])}",
        "",
        "[tool.hatch.build.targets.wheel]",
        'packages = ["course_utils"]',
        "",
        "[tool.hatch.build.targets.wheel.force-include]",
        '"datasets/registry.toml" = "course_utils/registry.toml"',
    ]
    return "\n".join(lines) + "\n"


def _readme(root: Path, assignments: Sequence[Assignment], constraints: bool) -> str:
    project = _project(root)
    one = len(assignments) == 1
    short, exercise = assignments[0].name.split("_")[0], next(iter(assignments[0].exercises))
    check_one = f"course check {short} {exercise}"
    return README.format(
        title=assignments[0].title if one else "Assignments",
        description=f"This is {'an assignment' if one else 'a set of assignments'} of the course {project['name']}",
        python=project["requires-python"].removeprefix(">=") + " or newer",
        constraints=" -c constraints.txt" if constraints else "",
        data="".join(f"{line}\n" for line in dict.fromkeys(filter(None, map(_data_line, assignments)))),
        opening="\n".join(f"jupyter lab assignments/{a.name}/{a.name}.ipynb" for a in assignments),
        short=short,
        check=f"course check {short}",
        check_one=check_one,
        report=f"course report {short}",
        width=len(check_one),
    )


def _data_line(assignment: Assignment) -> str:
    """The line of the README that fetches an assignment's data; "" where it needs none."""
    code = "\n".join(assignment.experiments.values())
    if "load_images(" in code:
        return "course data                     # CIFAR-10, 170 MB, verified; goes on where it was interrupted"
    return "course data tinyshakespeare     # a text of 1 MB, verified" if "load_text(" in code else ""


def _zip(folder: Path, archive: Path, top: str) -> None:
    """Zip a folder so that the same files always give the same bytes."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as bundle:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            entry = zipfile.ZipInfo(f"{top}/{path.relative_to(folder).as_posix()}", ZIP_DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, wherever it is made
            entry.external_attr = 0o100644 << 16
            bundle.writestr(entry, path.read_bytes())
    atomic_write(archive, data.getvalue())
