"""Grade the same class with plain nbgrader and with `autograder grade`, and say where the time of ours goes.

Plain nbgrader runs each notebook in a kernel and takes the points from the visible checks in it, so it judges less:
no hidden criteria, no isolation, no diagnosis.  nbgrader has no workers; it is measured as it is, and once more as two
commands at once with half of the class each.  nbgrader runs every cell, so it trains again what a student trained;
ours leaves experiments out.  Both rows above are of notebooks without experiments, which flatters nbgrader.  The right
notebook is also graded by nbgrader as it was handed in, on the small embedded images, once by each of two commands; a
wrong one may stop at once or train for ever, so it says nothing of how long a class takes.

    python benchmarks/grading_throughput.py [--size 40]

writes benchmarks/results/grading_throughput.md.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import psutil
import torch

from autograder import session
from autograder.assignment import Assignment, load_assignment
from autograder.atomic_write import atomic_write
from autograder.course import Course, create_course
from autograder.jail import Zygote
from autograder.judge import Judge
from autograder.simulated_class import SimulatedStudent, simulated_class
from autograder.submission import read_notebook_bytes
from course_utils.checking import LocalStudent, judge_exercise, opaque_results

RESULTS = Path(__file__).parent / "results" / "grading_throughput.md"
PLAIN = """
c = get_config()
c.CourseDirectory.course_id = "plain"
c.ExecutePreprocessor.timeout = {timeout}
"""


def without_experiments(notebook: bytes) -> bytes:
    """The notebook with nothing in its experiment cells."""
    read = nbformat.reads(notebook.decode(), as_version=4)
    for cell in read.cells:
        if cell.metadata.get("course", {}).get("role") == "experiment":
            cell.source, cell.outputs = "", []
    return nbformat.writes(read).encode()


def hand_in(course: Course, assignment: str, students: list[SimulatedStudent], experiments: bool = False) -> None:
    """Put the notebooks where nbgrader looks for them."""
    for student in students:
        place = course.folder / "submitted" / student.name / assignment
        place.mkdir(parents=True)
        notebook = student.notebook if experiments else without_experiments(student.notebook)
        (place / f"{assignment}.ipynb").write_bytes(notebook)
        shutil.copy(course.folder / "release" / assignment / "checks.py", place)


def run(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """Start a command on one thread; what it says is kept in a file."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COURSE_DATA_SET": "digits_in_scenes"}
    with open(folder / "output.txt", "wb") as output:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)


@dataclass(frozen=True)
class Timing:
    """What grading a class took: wall and processor seconds, and how many submissions have marks afterwards."""

    name: str
    seconds: float
    processor: float
    graded: int
    size: int

    @property
    def rate(self) -> float:
        """Submissions a second."""
        return self.size / self.seconds


def timed_run(name: str, commands: list[tuple[list[str], Path]], size: int) -> Timing:
    """Run commands at once, each in its course folder, for `size` submissions all in all."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    for process in [run(command, folder) for command, folder in commands]:
        process.wait()
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    graded = sum(len(list((folder / "autograded").glob("*/*/*.ipynb"))) for _, folder in commands)
    return Timing(name, seconds, processor, graded, size)


def plain_nbgrader(
    assignment: Assignment, parts: list[list[SimulatedStudent]], folder: Path, experiments: bool = False
) -> Timing:
    """Plain nbgrader, one command for each part of the class."""
    commands = []
    for k, part in enumerate(parts):
        course = create_course(folder / f"plain{len(parts)}{k}{'_whole' * experiments}", [assignment])
        (course.folder / "nbgrader_config.py").write_text(PLAIN.format(timeout=600 if experiments else 30))
        source = course.folder / "source" / assignment.name / f"{assignment.name}.ipynb"
        notebook = nbformat.read(source, as_version=4)
        for cell in notebook.cells:
            if cell.metadata.get("nbgrader", {}).get("points") == 0:
                cell.metadata["nbgrader"]["points"] = 10  # nbgrader stops where a bonus is more than the maximum
        nbformat.write(notebook, source)
        generate = [sys.executable, "-m", "nbgrader", "generate_assignment", assignment.name, "--force"]
        if run(generate, course.folder).wait():
            raise SystemExit((course.folder / "output.txt").read_text())
        hand_in(course, assignment.name, part, experiments)
        commands.append(([sys.executable, "-m", "nbgrader", "autograde", assignment.name], course.folder))
    label = "plain nbgrader" if len(parts) == 1 else f"plain nbgrader, {len(parts)} commands at once"
    if experiments:
        label += ", right notebooks, experiments run"
    return timed_run(label, commands, sum(map(len, parts)))


def ours(assignment: Assignment, students: list[SimulatedStudent], folder: Path) -> Timing:
    """`autograder grade` with two workers."""
    course = create_course(folder / "ours", [assignment])
    hand_in(course, assignment.name, students)
    command = [sys.executable, "-m", "autograder.cli", "grade", assignment.name, "--course", ".", "--workers", "2"]
    timing = timed_run("autograder grade, 2 workers", [(command, course.folder)], len(students))
    if timing.graded != len(students):
        raise SystemExit((course.folder / "output.txt").read_text())
    return timing


# --- Where the time goes ---------------------------------------------------------------------------------------------


@contextmanager
def timed(spent: dict[str, float], label: str, owner: Any, name: str) -> Iterator[None]:
    """Add up the time in a method while the block runs."""
    method: Callable[..., Any] = getattr(owner, name)

    def run_it(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            spent[label] += time.perf_counter() - start

    setattr(owner, name, run_it)
    try:
        yield
    finally:
        setattr(owner, name, method)


class Memory(threading.Thread):
    """Watches how much memory the sandboxes of a zygote have for themselves (unique set size)."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = 0
        self.stop = threading.Event()

    def run(self) -> None:
        """Look a hundred times a second."""
        while not self.stop.wait(0.01):
            unique = 0
            for process in psutil.Process().children(recursive=True):
                try:
                    parent = process.parent()
                    if process.name() == "bwrap" or parent is None or parent.name() == "bwrap":
                        continue  # the jail and the zygote themselves
                    unique += process.memory_full_info().uss
                except psutil.Error:
                    continue
            self.most = max(self.most, unique)


def processor_time() -> float:
    """Processor seconds of this process and of all that it has started, those that have ended included."""
    below = 0.0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            below += sum(process.cpu_times()[:4])  # its own, and those of what it has waited for
    return time.process_time() + below


def phases(assignment: Assignment, student: SimulatedStudent, repeats: int = 10) -> tuple[dict[str, float], float]:
    """Milliseconds of each phase of judging one right submission after a warm-up, and the MiB its sandbox adds."""
    spent: dict[str, float] = defaultdict(float)
    with Zygote(assignment.folder / "checks.py") as zygote:
        judge = Judge(assignment, zygote, "benchmark")
        submission = read_notebook_bytes(student.notebook, assignment.exercises, assignment.experiments)
        for _ in range(4):  # the zygote moves to huge pages meanwhile
            judge.judge(submission)
        begin, processor = time.perf_counter(), processor_time()
        with (
            timed(spent, "reading what may not be called", judge, "_read"),
            timed(spent, "sandbox and cells", session.Session, "_run_cells"),
            timed(spent, "forks", session.Session, "fork"),
            timed(spent, "ends of forks", session.Session, "end_fork"),
        ):
            for _ in range(repeats):
                judge.judge(submission)
        spent["judging, all in all"] = time.perf_counter() - begin
        spent["processor time of judge and sandbox"] = processor_time() - processor
        spent["forks"] -= spent["sandbox and cells"]  # the first fork waits for the cells
        for _ in range(repeats):
            start = time.perf_counter()
            read_notebook_bytes(student.notebook, assignment.exercises, assignment.experiments)
            spent["reading the notebook"] += time.perf_counter() - start
        watch = Memory()
        watch.start()
        judge.judge(submission)
        watch.stop.set()
        watch.join()
    # The same criteria and functions in one process: the student's code and the criteria's arithmetic by themselves.
    here = LocalStudent(assignment.reference(), opaque_results(assignment.exercises.values()))
    for repeat in range(repeats + 1):
        start = time.perf_counter()
        for exercise in assignment.exercises.values():
            judge_exercise(exercise, here, "benchmark")
        if repeat:  # the first one warms up
            spent["student's code and criteria, in one process"] += time.perf_counter() - start
    return {k: 1000 * v / repeats for k, v in spent.items()}, watch.most / 2**20


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=40)
    size = parser.parse_args().size
    torch.set_num_threads(1)
    assignment = load_assignment("a1")
    students = simulated_class(assignment, size)
    with tempfile.TemporaryDirectory() as name:
        timings = [ours(assignment, students, Path(name))]
        for parts in ([students], [students[::2], students[1::2]]):
            timings.append(plain_nbgrader(assignment, parts, Path(name)))
        timings.append(plain_nbgrader(assignment, [students[:1]] * 2, Path(name), experiments=True))
    spent, memory = phases(assignment, students[0])
    alone = spent.pop("student's code and criteria, in one process")
    whole = spent.pop("judging, all in all")
    processor = spent.pop("processor time of judge and sandbox")
    added = whole + spent["reading the notebook"] - alone
    crossing = whole - alone - sum(v for k, v in spent.items() if k != "reading the notebook")
    lines = [
        f"Grading {size} mixed submissions of Assignment 1 (`python benchmarks/grading_throughput.py`; "
        f"{os.cpu_count()} cores, one thread a process).",
        "",
        "| | have marks afterwards | wall s | submissions a second | processor s a submission | ours is faster by |",
        "|---|---|---|---|---|---|",
        *(
            f"| {t.name} | {t.graded} of {t.size} | {t.seconds:.1f} | {t.rate:.3f} | {t.processor / t.size:.2f} | "
            f"{timings[0].rate / t.rate:.1f} |"
            for t in timings
        ),
        "",
        "Plain nbgrader judges the visible criteria only, without isolation; ours all of them, and names the mistakes.",
        "",
        "Where the time goes, for a right submission (milliseconds, mean of 10):",
        "",
        "| | ms |",
        "|---|---|",
        f"| the student's code and the criteria's arithmetic, in one process | {alone:.0f} |",
        *(f"| {label} | {ms:.0f} |" for label, ms in spent.items()),
        f"| calls: what crosses the pipe, and copies | {crossing:.0f} |",
        f"| **added by judge and jail** | **{added:.0f}** |",
        "",
        "Judge and sandbox work at the same time, so the calls may take less than what they add to the work. The",
        f"processor time of both is {processor:.0f} ms a submission, without reading the notebook.",
        "",
        f"The sandbox of a submission has {memory:.0f} MiB for itself beyond what it shares with the zygote.",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    atomic_write(RESULTS, text)


if __name__ == "__main__":
    main()
