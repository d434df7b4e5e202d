"""Kill a grading run ten times and compare what it made in the end with an undisturbed run.

Each time the driver, `autograder grade`, is killed by SIGKILL at a random moment; then the next is started. In the end
results, notebooks and gradebook must be those of a run that nobody disturbed, and no process of a killed run may be
left. The default is the made-up assignment of the tests, whose 200 submissions are judged in seconds.

    python benchmarks/killed_runs.py [--assignment tiny] [--size 200] [--kills 10] [--seed 0] [--write]

--write puts the table into benchmarks/results/killed_runs.md. Exits with 1 where anything differs.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "autograder"))

import graded_course
import tiny_assignment
from processes import children, gone

from autograder.assignment import Assignment, load_assignment
from autograder.build import build
from autograder.collect import collect
from autograder.cores import usable_cores
from autograder.course import Course, create_course, read_course
from autograder.secret import course_secret
from autograder.simulated_class import simulated_class

RESULTS = Path(__file__).parent / "results" / "killed_runs.md"


def make_course(folder: Path, assignment: Assignment, size: int) -> Course:
    """A course in which a simulated class has handed in."""
    course = create_course(folder, [assignment])
    (folder / "handed_in").mkdir()
    for student in simulated_class(assignment, size):
        (folder / "handed_in" / f"{student.name}.ipynb").write_bytes(student.notebook)
    collect([folder / "handed_in"], assignment.name, folder)
    course_secret(folder)
    return course


def start(course: Course, assignment: Assignment) -> subprocess.Popen[bytes]:
    """Start a grading run."""
    command = [sys.executable, "-m", "autograder.cli", "grade", assignment.name, "--course", str(course.folder)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([*command, "--workers", "2"], cwd=assignment.root, **quiet)  # type: ignore[call-overload,no-any-return]


def recorded(course: Course) -> int:
    """How many submissions the gradebook holds."""
    file = course.db_url.removeprefix("sqlite:///")
    with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as database:
        return int(database.execute("SELECT count(*) FROM submitted_assignment").fetchone()[0])


def main() -> int:
    """Kill and compare; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assignment", default="tiny")
    parser.add_argument("--size", type=int, default=200)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="killed-runs-") as temporary:
        folder = Path(temporary)
        if options.assignment == "tiny":
            root = tiny_assignment.write_tiny_assignment(folder / "checkout")
            assignment = load_assignment(tiny_assignment.NAME, root)
            build(assignment)
        else:
            assignment = load_assignment(options.assignment)
        course = make_course(folder / "course", assignment, options.size)
        shutil.copytree(course.folder, folder / "undisturbed")
        undisturbed = read_course(folder / "undisturbed")
        if code := start(undisturbed, assignment).wait():
            raise SystemExit(f"the undisturbed run ended with {code}")

        stored = course.folder / "results" / assignment.name
        rows, faults = [], 0
        for k, moment in enumerate(sorted(rng.sample(range(options.size), options.kills)), start=1):
            driver = start(course, assignment)
            while len(list(stored.glob("*.json"))) < moment and driver.poll() is None:
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.5))
            below = children(driver.pid)
            driver.kill()
            driver.wait()
            left = gone(below)
            faults += bool(left)
            files, marks = len(list(stored.glob("*.json"))), recorded(course)
            rows.append(f"| {k} | {files} | {marks} | {len(below)} | {len(left)} |")
            print(rows[-1], flush=True)
        before = len(list(stored.glob("*.json")))
        faults += start(course, assignment).wait() != 0
        made, wanted = (graded_course.outcome(c, assignment.name) for c in (course, undisturbed))
        equal = {part: sum(made[part].get(s) == w for s, w in wanted[part].items()) for part in wanted}
        faults += any(made[part] != wanted[part] for part in wanted) or len(wanted["marks"]) != options.size

    lines = [
        "# Killed runs",
        "",
        f"`python benchmarks/killed_runs.py --assignment {options.assignment} --size {options.size} "
        f"--kills {options.kills} --seed {options.seed}`: a run of {options.size} simulated submissions of "
        f"`{assignment.name}` on two workers, killed {options.kills} times by SIGKILL at random moments "
        f"({usable_cores()} cores, load {os.getloadavg()[0]:.0f}).",
        "",
        "| kill | results written | recorded in the gradebook | processes of the run | left after the kill |",
        "|---|---|---|---|---|",
        *rows,
        "",
        f"The last run judged the {options.size - before} submissions that had no result yet. Equal to an "
        f"undisturbed run: {equal['results']} of {options.size} results, {equal['notebooks']} notebooks, "
        f"{equal['marks']} students' rows in the gradebook.",
        "",
    ]
    print("\n".join(lines))
    if options.write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text("\n".join(lines))
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
