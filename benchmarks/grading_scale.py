"""What grading costs with the number of submissions: judging, the driver, and the gradebook.

Part one judges a simulated class through `autograder.grade` and says what a submission costs its workers and the
driver. Part two leaves the judging out: the driver gets outcomes of the first part's class again and again, for up to
4,000 students, and writes notebooks, results and gradebook as always; then it runs once more with nothing new. Part
three records the same results with nbgrader's own functions, as its `autograde` does. Part four makes the judged
class's feedback pages.

    python benchmarks/grading_scale.py [--judged 40] [--sizes 40 400 4000] [--assignment a1] [--write]

Processor seconds are those of the process and, for workers, of its children; --write puts the tables into
benchmarks/results/grading_scale.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import pickle
import platform
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from autograder import grade as grade_module
from autograder.assignment import load_assignment
from autograder.cores import usable_cores
from autograder.course import Course, create_course, read_course
from autograder.feedback import make_feedback
from autograder.gradebook import open_gradebook
from autograder.judging import Outcome, Settings, Work
from autograder.record import Recorder, auto_score, remark
from autograder.secret import course_secret
from autograder.simulated_class import simulated_class

RESULTS = Path(__file__).parent / "results" / "grading_scale.md"
NBGRADER_UP_TO = 400  # students, whom nbgrader's own functions record


def spent() -> tuple[float, float]:
    """Processor time of this process, and of its children that have ended."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime, children.ru_utime + children.ru_stime


def measured(assignment: str, folder: Path, outcomes: Path, replay: bool) -> dict[str, float]:
    """Grade the course in this process; what that took.  Outcomes are written to a file, or taken from it."""
    loaded, course = load_assignment(assignment), read_course(folder)
    settings = Settings(loaded.name, loaded.root, course_secret(folder))
    honest = grade_module.judge_all

    def kept(settings: Settings, works: Iterable[Work], *how: Any) -> Iterator[Outcome]:
        with open(outcomes, "wb") as file:
            for outcome in honest(settings, works, *how):
                pickle.dump(outcome, file)
                yield outcome

    def replayed(settings: Settings, works: Iterable[Work], *how: Any) -> Iterator[Outcome]:
        for work, outcome in zip(works, itertools.cycle(read(outcomes)), strict=False):
            yield dataclasses.replace(outcome, key=work.key)

    grade_module.judge_all = replayed if replay else kept  # type: ignore[assignment]
    before = spent()
    graded = grade_module.grade(loaded, course.folder, settings, course.db_url, course_id=course.course_id, workers=2)
    own, children = (b - a for a, b in zip(before, spent(), strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"own": own, "children": children, "peak": peak, "judged": len(graded.judged)}


def read(outcomes: Path) -> list[Outcome]:
    """The outcomes in a file."""
    found = []
    with open(outcomes, "rb") as file:
        while True:
            try:
                found.append(pickle.load(file))
            except EOFError:
                return found


def in_its_own_process(assignment: str, folder: Path, outcomes: Path, replay: bool) -> dict[str, float]:
    """The same in a fresh process, whose memory is its own."""
    command = [sys.executable, __file__, "--assignment", assignment, "--one", str(folder), str(outcomes)]
    done = subprocess.run([*command, *(["--replay"] if replay else [])], stdout=subprocess.PIPE, check=True)
    taken: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return taken


def hand_in(folder: Path, assignment: str, notebooks: list[bytes], size: int) -> None:
    """Put `size` students' notebooks into a course."""
    for k in range(size):
        place = folder / "submitted" / f"student{k:05d}" / assignment
        place.mkdir(parents=True)
        (place / f"{assignment}.ipynb").write_bytes(notebooks[k % len(notebooks)])
    course_secret(folder)


def with_nbgrader(gradebook: Any, assignment: str, student: str, outcome: Outcome) -> None:
    """Record one student's marks as nbgrader's own converters do."""
    gradebook.update_or_create_student(student)
    submission = gradebook.update_or_create_submission(assignment, student)
    for notebook in submission.notebooks:
        for grade in notebook.grades:
            grade.auto_score = auto_score(grade.name, outcome.result, outcome.written)
            grade.needs_manual_grade = grade.auto_score is None
        for comment in notebook.comments:
            comment.auto_comment = remark(comment.name, outcome.result, outcome.written)
    gradebook.db.commit()


def recording_seconds(folder: Path, assignment: str, outcomes: list[Outcome], size: int, ours: bool) -> float:
    """Processor seconds for the gradebook alone."""
    course = create_course(folder, [load_assignment(assignment)])
    with open_gradebook(course.db_url, course.course_id) as gradebook:
        start = time.process_time()
        recorder = Recorder(gradebook, assignment)
        for k, outcome in enumerate(itertools.islice(itertools.cycle(outcomes), size)):
            if ours:
                recorder.add(f"student{k:05d}", outcome.result, outcome.written)
                if recorder.waiting == grade_module.FLUSH_MANY:
                    recorder.flush()
            else:
                with_nbgrader(gradebook, assignment, f"student{k:05d}", outcome)
        recorder.flush()
        return time.process_time() - start


def page_seconds(course: Course, assignment: str) -> float:
    """Processor seconds of one feedback page, the libraries loaded."""
    make_feedback(course, assignment, workers=1)
    start = time.process_time()
    pages = make_feedback(course, assignment, workers=1, force=True)
    return (time.process_time() - start) / len(pages)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assignment", default="a1")
    parser.add_argument("--judged", type=int, nargs="+", default=[40])
    parser.add_argument("--sizes", type=int, nargs="+", default=[40, 400, 4000])
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--one", type=Path, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--replay", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", "Object of type")  # nbgrader's own add_submission
    if options.one:
        print(json.dumps(measured(options.assignment, *options.one, options.replay)))
        return
    assignment = load_assignment(options.assignment)
    name = assignment.name
    judged, driver, gradebook = [], [], []
    with tempfile.TemporaryDirectory(prefix="grading-scale-") as temporary:
        folder, outcomes = Path(temporary), Path(temporary, "outcomes")
        for size in options.judged:
            notebooks = [s.notebook for s in simulated_class(assignment, size)]
            course = create_course(folder / f"judged{size}", [assignment])
            hand_in(course.folder, name, notebooks, size)
            m = in_its_own_process(name, course.folder, outcomes, replay=False)
            row = m["children"] / size, 1000 * m["own"] / size, m["peak"]
            judged.append(f"| {size} | {row[0]:.2f} | {row[1]:.0f} | {row[2]:.0f} |")
            print(judged[-1], flush=True)
        some = read(outcomes)
        page = page_seconds(course, name)
        for size in options.sizes:
            course = create_course(folder / f"driver{size}", [assignment])
            hand_in(course.folder, name, notebooks, size)
            m = in_its_own_process(name, course.folder, outcomes, replay=True)
            again = in_its_own_process(name, course.folder, outcomes, replay=True)
            assert (m["judged"], again["judged"]) == (size, 0)
            row = 1000 * m["own"] / size, m["peak"], 1000 * again["own"] / size, again["peak"]
            driver.append(f"| {size} | {row[0]:.1f} | {row[1]:.0f} | {row[2]:.1f} | {row[3]:.0f} |")
            print(driver[-1], flush=True)
        for size in options.sizes:
            ours = 1000 * recording_seconds(folder / f"ours{size}", name, some, size, True) / size
            theirs = "—"
            if size <= NBGRADER_UP_TO:
                seconds = recording_seconds(folder / f"theirs{size}", name, some, size, False)
                theirs = f"{1000 * seconds / size:.1f}"
            gradebook.append(f"| {size} | {ours:.2f} | {theirs} |")
            print(gradebook[-1], flush=True)
    lines = [
        "# What grading costs with the number of submissions",
        "",
        f"`python benchmarks/grading_scale.py --assignment {name} --judged {' '.join(map(str, options.judged))} "
        f"--sizes {' '.join(map(str, options.sizes))}` on {usable_cores()} cores ({platform.machine()}, "
        f"load {os.getloadavg()[0]:.0f} at the end), SQLite. Seconds and milliseconds are of processor time.",
        "",
        "## Judging, two workers",
        "",
        "A simulated class: right, wrong, unfinished, hostile and endless work. Starting two workers is included.",
        "",
        "| submissions | workers, each (s) | driver, each (ms) | driver's peak memory (MiB) |",
        "|---|---|---|---|",
        *judged,
        "",
        "## The driver alone, outcomes replayed",
        "",
        "Reading what was handed in, writing notebooks, results and gradebook; then the same course again, with "
        "nothing new.",
        "",
        "| submissions | each (ms) | peak memory (MiB) | nothing new, each (ms) | peak memory (MiB) |",
        "|---|---|---|---|---|",
        *driver,
        "",
        "## The gradebook alone",
        "",
        "| submissions | ours, each (ms) | nbgrader's own functions, each (ms) |",
        "|---|---|---|",
        *gradebook,
        "",
        "## Feedback pages",
        "",
        f"{options.judged[-1]} pages of the judged class, {1000 * page:.0f} ms each.",
        "",
    ]
    print("\n".join(lines))
    if options.write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
