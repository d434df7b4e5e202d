"""The progress of reference notebooks in a terminal: a line for each notebook, with the cell that runs."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from autograder.solve import Watch


class SolveProgress:
    """A line for each notebook while it is entered as a context; every experiment's time is printed when it is known.

    Parameters
    ----------
    console : Console
        Where.
    names : sequence of str
        The notebooks.
    """

    def __init__(self, console: Console, names: Sequence[str]) -> None:
        self._console = console
        self._progress = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.fields[notebook]}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
        )
        several = len(names) > 1
        width = max(map(len, names), default=0)
        self._tasks = {
            n: self._progress.add_task("waiting", start=False, total=None, notebook=n.ljust(width) if several else n)
            for n in names
        }
        self._prefix = {n: f"{n}: " if several else "" for n in names}

    def __enter__(self) -> SolveProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def watch(self, name: str) -> Watch:
        """What `solve` tells how the run of this notebook goes."""
        return _Line(self._progress, self._tasks[name], self._console, self._prefix[name])

    def finished(self, name: str, how: str) -> None:
        """Say how a notebook ended, and stop its clock."""
        self._progress.update(self._tasks[name], description=how)
        self._progress.stop_task(self._tasks[name])


class _Line(Watch):
    def __init__(self, progress: Progress, task: TaskID, console: Console, prefix: str) -> None:
        self._progress, self._task, self._console, self._prefix = progress, task, console, prefix

    def total(self, cells: int) -> None:
        self._progress.start_task(self._task)
        self._progress.update(self._task, total=cells, description="starting")

    def started(self, cell: str) -> None:
        self._progress.update(self._task, description=escape(cell))

    def done(self, cell: str, seconds: float | None) -> None:
        self._progress.advance(self._task)
        if seconds is not None:
            self._console.print(f"{self._prefix}{cell}: {seconds:.1f} s", highlight=False, markup=False)
