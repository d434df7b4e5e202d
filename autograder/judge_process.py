"""A process that judges, seen from whoever sends it work: it may be killed, and then another takes its place.

Work and outcomes pass as bytes, so nothing of torch is imported here.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path

import autograder
from autograder.errors import CourseError

MAX_ENDS = 3  # of processes, for one submission
START_SECONDS = 300  # a cold disk, several at once
Reply = tuple[str, bytes]
PROGRAM = "from autograder.judging import main; main()"  # not -m, which would give its classes another name


class ProcessEnded(Exception):
    """The process is gone, or does not answer."""


class JudgeProcess:
    """One judging process.

    It ends with the thread that made it, whatever the reason.

    Parameters
    ----------
    settings : bytes
        Pickled `Settings`.
    """

    def __init__(self, settings: bytes) -> None:
        self.settings = settings
        ours, theirs = socket.socketpair()
        self._connection = Connection(ours.detach())
        library = str(Path(autograder.__file__).parents[1])
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(p for p in (library, os.environ.get("PYTHONPATH")) if p),
            "PYTHONHASHSEED": "0",  # messages must not depend on the order of a set
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C at the terminal is for the process that sends the work
            )

    def wait(self) -> None:
        """Wait until it is ready to judge.

        Raises
        ------
        CourseError
            When it cannot judge: says why.
        """
        try:
            self._connection.send_bytes(self.settings)
            kind, text = self._reply(START_SECONDS)
        except (ProcessEnded, OSError):
            raise CourseError(
                "A worker process ended before it could judge, perhaps for want of memory; "
                "run the same command again to go on, with fewer workers if need be."
            ) from None
        if kind != "ready":
            raise CourseError(text.decode())

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def judge(self, work: bytes, patience: float) -> Reply:
        """Send pickled `Work`; returns the kind of reply and its bytes.

        Raises
        ------
        ProcessEnded
            When the process ends, or has not answered after `patience` seconds.
        """
        try:
            self._connection.send_bytes(work)
        except OSError:
            raise ProcessEnded from None
        return self._reply(patience)

    def _reply(self, patience: float) -> Reply:
        try:
            if not self._connection.poll(patience):
                raise ProcessEnded
            kind, data = self._connection.recv()
        except (EOFError, OSError):
            raise ProcessEnded from None
        return kind, data

    def close(self) -> None:
        """End it, and with it its zygote and all sandboxes."""
        self._connection.close()
        for end in (lambda: None, self._process.terminate, self._process.kill):
            end()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=2)
                return


class _Processes:
    """The processes of this one's threads."""

    def __init__(self) -> None:
        self._own = threading.local()
        self._all: set[JudgeProcess] = set()
        self._lock = threading.Lock()
        self.closed = 0  # how often

    def own(self, settings: bytes) -> JudgeProcess:
        """This thread's process, a new one where it has none for these settings."""
        process: JudgeProcess | None = getattr(self._own, "process", None)
        if process is None or process.settings != settings or not process.alive:
            self.forget()
            process = self._own.process = JudgeProcess(settings)
            with self._lock:
                self._all.add(process)
            process.wait()
        return process

    def forget(self) -> None:
        """End this thread's process."""
        process: JudgeProcess | None = getattr(self._own, "process", None)
        self._own.process = None
        if process is not None:
            with self._lock:
                self._all.discard(process)
            process.close()

    def close(self) -> None:
        """End the processes of all threads."""
        with self._lock:
            self.closed += 1
            processes, self._all = self._all, set()
        for process in processes:
            process.close()


_processes = _Processes()


def judge_on_worker(settings: bytes, work: bytes, patience: float) -> Reply:
    """Judge one submission with this thread's process; where the process ends, again with another.

    Returns
    -------
    tuple of str and bytes
        "outcome" and the pickled `Outcome`, "refused" and a sentence, or "ended" and nothing where the submission
        ended `MAX_ENDS` processes.
    """
    closed = _processes.closed
    for _ in range(MAX_ENDS):
        try:
            process = _processes.own(settings)
            if _processes.closed == closed:
                return process.judge(work, patience)
        except CourseError as error:
            _processes.forget()
            return "refused", str(error).encode()
        except ProcessEnded:
            pass
        _processes.forget()
        if _processes.closed > closed:
            break  # nobody waits for this submission any more
    return "ended", b""


def close_all() -> None:
    """End the judging processes of all threads."""
    _processes.close()
