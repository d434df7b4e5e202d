"""The jail: bubblewrap around a zygote, and the sandboxes that it forks.

Inside there is no network, a read-only system, the Python environment, the libraries, `course_utils`, the
package `autograder.runner` and the visible checks of one assignment; no home, no course folder, no environment
variables of the machine.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType

import autograder
from autograder.errors import CourseError
from autograder.runner.frames import Channel
from autograder.runner.namespaces import Limits

log = logging.getLogger(__name__)

ISOLATIONS = ("bubblewrap", "none")
START_SECONDS = 120  # importing torch from a cold disk
LIBRARY = "/course"  # where the jail has our code
CODE = Path(autograder.__file__).parents[1]  # where this process has it
NOBODY = "65534"

NO_BUBBLEWRAP = (
    "Bubblewrap (the program bwrap) is needed to run students' code and was not found: install it "
    "(Debian, Ubuntu: apt install bubblewrap), or pass --isolation none, which lets students' code do "
    "whatever you may do on this machine."
)


class Zygote:
    """A jailed process that has the libraries loaded and forks a sandbox for each submission.

    Parameters
    ----------
    checks : Path
        The assignment's `checks.py`, which notebooks import.
    isolation : str
        "bubblewrap", or "none" for no isolation at all.
    limits : Limits
        What each submission may use.

    Attributes
    ----------
    deaths : int
        How often it died and was started again.

    Raises
    ------
    CourseError
        When the jail cannot be started; says what to do.
    """

    def __init__(self, checks: Path, isolation: str = "bubblewrap", limits: Limits | None = None) -> None:
        if isolation not in ISOLATIONS:
            raise CourseError(f"There is no isolation {isolation!r}; choose one of {', '.join(ISOLATIONS)}.")
        if isolation == "bubblewrap" and shutil.which("bwrap") is None:
            raise CourseError(NO_BUBBLEWRAP)
        self.isolation = isolation
        self.limits = limits or Limits()
        self.deaths = 0
        self._checks = checks
        self._folder = tempfile.TemporaryDirectory(prefix="runner-")
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the zygote)
        # Not as root: the kernel does not limit how many processes root has.
        self._as_nobody = isolation == "bubblewrap" and os.geteuid() == 0 and shutil.which("setpriv") is not None
        self._launch()

    def _launch(self) -> None:
        self._control, theirs = socket.socketpair()
        jailed = self.isolation == "bubblewrap"
        command = _jailed(self._checks, theirs.fileno(), self._as_nobody) if jailed else _open(theirs.fileno())
        environment = {} if jailed else _environment(Path(self._folder.name), self._checks.parent)
        self._process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            env=environment,
            cwd=self._folder.name,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
        )
        theirs.close()
        self._ready = False

    def wait(self) -> None:
        """Wait until the zygote has its libraries loaded; `start` does so too.

        Raises
        ------
        CourseError
            When the jail does not start; says why.
        """
        if self._ready:
            return
        self._control.settimeout(START_SECONDS)
        if self._line() != b"ready":
            self._process.kill()  # where it stalls
            self._process.wait()
            self._log.seek(0)
            reason = self._log.read().decode(errors="replace").strip().splitlines()
            if self._as_nobody:
                self._as_nobody = (
                    False  # in a container root may not be allowed to; then in a user namespace, as anyone
                )
                self._end()
                self._launch()
                self.wait()
                return
            self.close()
            raise CourseError(f"The jail did not start: {reason[-1] if reason else 'no reason was given'}")
        self._ready = True

    def _line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            try:
                part = self._control.recv(1)
            except OSError:
                part = b""
            if not part:
                return b""
            line += part
        return line[:-1]

    @property
    def alive(self) -> bool:
        """Whether the zygote still runs: only it holds the other end of the control socket."""
        try:
            readable = select.select([self._control], [], [], 0)[0]
            return not readable or self._control.recv(1, socket.MSG_PEEK) != b""
        except (OSError, ValueError):
            return False

    def start(self) -> Sandbox:
        """Fork a sandbox for one submission; where the zygote has died, start it anew first.

        Raises
        ------
        CourseError
            When the jail does not start.
        """
        self.wait()
        sandbox = self._fork()
        if sandbox is None:
            log.warning("The jail died and is started again.")
            self.deaths += 1
            self._end()
            self._launch()
            self.wait()
            sandbox = self._fork()
        if sandbox is None:
            raise CourseError("The jail died twice; the machine may be out of memory or of processes.")
        return sandbox

    def _fork(self) -> Sandbox | None:
        ours, theirs = socket.socketpair()
        request = {"op": "start", "limits": dataclasses.asdict(self.limits)}
        with theirs:
            try:
                socket.send_fds(self._control, [json.dumps(request).encode()], [theirs.fileno()])
            except OSError:
                ours.close()
                return None
        answer = self._line()
        if not answer:
            ours.close()
            return None
        return Sandbox(self, json.loads(answer)["pid"], Channel(ours))

    def kill(self, pid: int) -> str:
        """End a sandbox and everything in it; returns what it had used too much of, "" as a rule."""
        with contextlib.suppress(OSError):  # where the zygote is gone, so are its sandboxes
            self._control.sendall(json.dumps({"op": "kill", "pid": pid}).encode())
            if answer := self._line():
                return str(json.loads(answer)["used too much"])
        return ""

    def close(self) -> None:
        """End the zygote and all its sandboxes."""
        self._end()
        self._log.close()
        self._folder.cleanup()

    def _end(self) -> None:
        self._ready = False
        self._control.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Zygote:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Sandbox:
    """The runner of one submission, seen from outside.

    Attributes
    ----------
    channel : Channel
        To the runner; whatever comes over it may be forged by the student's code.
    """

    def __init__(self, zygote: Zygote, pid: int, channel: Channel) -> None:
        self._zygote = zygote
        self._pid = pid
        self.channel = channel

    def close(self) -> str:
        """Kill everything in the sandbox; returns "memory" or "processes" where it had used too much, else ""."""
        self.channel.close()
        return self._zygote.kill(self._pid)

    @property
    def limits(self) -> Limits:
        """What the submission may use."""
        return self._zygote.limits


def _environment(home: Path, checks_folder: Path) -> dict[str, str]:
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": str(home),
        "IPYTHONDIR": str(home / "ipython"),
        "MPLCONFIGDIR": str(home / "matplotlib"),
        "MPLBACKEND": "agg",
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join([str(CODE), str(checks_folder)]),
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


def _open(descriptor: int) -> list[str]:
    return [sys.executable, "-m", "autograder.runner.zygote", str(descriptor), "none"]


def _jailed(checks: Path, descriptor: int, as_nobody: bool) -> list[str]:
    mounts = ["--ro-bind", "/usr", "/usr"]
    for folder in ("/etc", LIBRARY, f"{LIBRARY}/lib", f"{LIBRARY}/lib/autograder", f"{LIBRARY}/assignment"):
        mounts += ["--perms", "0755", "--dir", folder]
    for name in ("bin", "sbin", "lib", "lib32", "lib64"):
        place = Path("/", name)
        if place.is_symlink():
            mounts += ["--symlink", os.readlink(place), str(place)]
        elif place.is_dir():
            mounts += ["--ro-bind", str(place), str(place)]
    mounts += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    base = Path(sys.base_prefix)
    if not base.is_relative_to("/usr"):
        mounts += [part for folder in reversed(base.parents[:-1]) for part in ("--perms", "0755", "--dir", str(folder))]
        mounts += ["--ro-bind", str(base), str(base)]
    python = sys.executable
    if sys.prefix != sys.base_prefix:  # a virtual environment may lie anywhere, under /tmp too, which is covered
        mounts += ["--ro-bind", sys.prefix, f"{LIBRARY}/python"]
        python = f"{LIBRARY}/python/bin/{Path(sys.executable).name}"
    # Our code comes by itself, not by its folder, which may hold hidden criteria or a gradebook.
    mounts += [
        *("--ro-bind", str(CODE / "course_utils"), f"{LIBRARY}/lib/course_utils"),
        *("--ro-bind", str(CODE / "autograder" / "__init__.py"), f"{LIBRARY}/lib/autograder/__init__.py"),
        *("--ro-bind", str(CODE / "autograder" / "runner"), f"{LIBRARY}/lib/autograder/runner"),
        *("--ro-bind", str(checks), f"{LIBRARY}/assignment/checks.py"),
    ]
    variables = _environment(Path("/tmp"), Path(LIBRARY, "assignment"))
    variables["PYTHONPATH"] = f"{LIBRARY}/lib:{LIBRARY}/assignment"
    settings = [part for name, value in variables.items() for part in ("--setenv", name, value)]
    become = ["--unshare-user", "--uid", "1000", "--gid", "1000"]
    then: list[str] = []
    if as_nobody:
        become = ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        then = ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--inh-caps", "-all", "--"]
    return [
        "bwrap",
        *become,
        *("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
        *("--hostname", "jail", "--die-with-parent", "--new-session", "--clearenv"),
        *mounts,
        *("--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--tmpfs", "/tmp", "--chdir", "/tmp"),
        *("--remount-ro", "/dev", "--remount-ro", "/"),  # what one submission writes must not meet the next
        *settings,
        *("--", *then, python, "-m", "autograder.runner.zygote", str(descriptor), "namespaces"),
    ]
