"""The zygote: imports the libraries once, then forks a runner for every submission.

Run as ``python -m autograder.runner.zygote FD ISOLATION`` where FD is the number of an inherited control socket.
A request comes with one end of a socket pair, which becomes the new runner's channel to the judge.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import sys
from typing import Any

import torch

from autograder.runner import cheap_forks
from autograder.runner.frames import Channel, Encoder
from autograder.runner.freed_memory import keep_freed_memory
from autograder.runner.namespaces import Limits, close_the_door, die_with_parent, enter_namespaces, limit_resources
from autograder.runner.serve import Server, make_shell
from autograder.runner.watch import overdrawn

LOOK_EVERY = 50  # milliseconds
WARM_UPS = 20  # calls; Python rewrites code that has run a few times into a faster form


def preload() -> Any:
    """Import what notebooks use, so that no submission pays for it."""
    keep_freed_memory()
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot
    import torchvision  # noqa: F401

    import course_utils.checking
    import course_utils.data
    import course_utils.gradients
    import course_utils.plots  # noqa: F401

    importlib.import_module("checks")  # the assignment's, for its props
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    # Torch reads /proc/cpuinfo at the first operation that wants to know the processor, and submissions have no /proc.
    half = torch.zeros(2, 2, dtype=torch.float16)
    half.gather(0, torch.zeros(2, 2, dtype=torch.int64))
    shell = make_shell()
    warm_up(shell)
    # A module that a submission writes into its working folder must not be found, not even in place of another.
    sys.path[:] = [p for p in sys.path if p not in ("", os.getcwd())]
    return shell


def warm_up(shell: Any) -> None:
    """Run a cell and answer calls, so that what Python and torch make ready at first use is ready in every fork."""
    source = "import torch\ndef warm_up(x, y, generator):\n    return (x @ x.T).exp().sum(1), [x[y], 1.0], {'y': y}"
    encoder = Encoder(lambda generator: {"generator": encoder.encode(generator.get_state())})
    x, y = torch.ones(2, 2, dtype=torch.float64), torch.arange(2)
    call = {
        "op": "call",
        "function": "warm_up",
        "arguments": encoder.encode([[x, y, torch.Generator()], {}]),
        "opaque": [],
        "first": True,
        "size": sum(map(len, encoder.chunks)),
    }
    names = set(shell.user_ns)
    judge, ours = (Channel(end) for end in socket.socketpair())
    judge.send({"op": "cell", "source": source, "name": "warm_up"})
    for _ in range(WARM_UPS):
        judge.send(call, encoder.chunks)
    judge.send({"op": "end"})
    Server(ours, shell, 1000).serve()
    judge.close()
    ours.close()
    for name in set(shell.user_ns) - names:
        del shell.user_ns[name]


def run_submission(connection: socket.socket, shell: Any, limits: Limits, isolated: bool) -> None:
    """Become the runner of one submission; does not return."""
    die_with_parent()
    os.setsid()  # a signal to one's process group must reach neither the zygote nor the process that watches
    if isolated:
        enter_namespaces()
        die_with_parent()  # the new namespaces took it back
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        child = os.fork()
        if child:
            connection.close()
            # The student's code may undo `die_with_parent`; what it cannot do is reach this process.
            signal.signal(signal.SIGTERM, lambda number, frame: os.kill(child, signal.SIGKILL))
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
            os.waitpid(child, 0)
            os._exit(0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        die_with_parent()
        os.setsid()
    limit_resources(limits, isolated)
    if isolated:
        close_the_door(limits)
        os.chdir("/tmp")
    quiet = os.open("/dev/null", os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(quiet, stream)
    Server(Channel(connection), shell, limits.output).serve()


def main() -> None:
    """Serve requests on the control socket until it is closed, and meanwhile look after what was started."""
    control = socket.socket(fileno=int(sys.argv[1]))
    isolated = sys.argv[2] == "namespaces"
    shell = preload()
    cheap_forks.freeze()
    control.sendall(b"ready\n")
    started = 0
    runners: dict[int, Limits] = {}
    ended: dict[int, str] = {}  # those that used too much of what, and are no more
    asked = select.poll()
    asked.register(control, select.POLLIN)
    while True:
        if isolated and not asked.poll(LOOK_EVERY if runners.keys() - ended.keys() else None):
            for pid, what in overdrawn(runners.keys() - ended.keys(), runners).items():
                kill(pid, isolated)
                ended[pid] = what
            continue
        data, descriptors, _, _ = socket.recv_fds(control, 4096, 1)
        if not data:
            break
        request = json.loads(data)
        if request["op"] == "start":
            started += 1
            if started == 2:  # takes a second, which pays from the fourth submission on
                cheap_forks.use_huge_pages()
            limits = Limits(**request["limits"])
            pid = os.fork()
            if pid == 0:
                control.close()
                with contextlib.suppress(BaseException):
                    run_submission(socket.socket(fileno=descriptors[0]), shell, limits, isolated)
                os._exit(0)
            os.close(descriptors[0])
            runners[pid] = limits
            control.sendall(json.dumps({"pid": pid}).encode() + b"\n")
        elif request["op"] == "kill":
            pid = request["pid"]
            if pid in runners and pid not in ended:
                kill(pid, isolated)
            runners.pop(pid, None)
            control.sendall(json.dumps({"used too much": ended.pop(pid, "")}).encode() + b"\n")
    for pid in runners.keys() - ended.keys():
        kill(pid, isolated)
    os._exit(0)  # taking the libraries down would take seconds


def kill(pid: int, isolated: bool) -> None:
    """End a runner and everything it started.

    Its first process kills process 1 of its namespace, and with process 1 all others there die.  Without namespaces
    the session's processes are killed, and a daemon gets away: that is what `--isolation none` warns of.
    """
    if not isolated:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM if isolated else signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
