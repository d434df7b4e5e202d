"""Put this process into namespaces of its own, and take from it what it does not need.

The outer jail (bubblewrap) has no network, a read-only system and no secrets.  What is done here keeps the
submissions of one zygote apart from one another: each gets its own user, mount, process, IPC and UTS namespace,
an empty /tmp and /dev/shm, no /proc, no capabilities, and limits.  See user_namespaces(7), pid_namespaces(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
from dataclasses import dataclass
from pathlib import Path

from autograder.runner.system_calls import filter_system_calls

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID = 0x10000000, 0x20000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 0x4000, 0x40000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 1, 4, 38, 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
LINUX_CAPABILITY_VERSION_3 = 0x20080522

libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Limits:
    """What a submission may use.

    Attributes
    ----------
    memory : int
        Bytes above what the zygote has already loaded: of address space for each process, and of memory for all
        processes together.
    disk : int
        Bytes in /tmp and in /dev/shm.
    processes, files : int
        Processes and threads; open files.
    output : int
        Characters that a cell or a call may print; the rest is dropped.
    """

    memory: int = 2 << 30
    disk: int = 64 << 20
    processes: int = 64
    files: int = 256
    output: int = 1 << 20


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def die_with_parent() -> None:
    """Be killed when the parent ends, whatever the reason."""
    _check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")


def enter_namespaces() -> None:
    """Leave the shared namespaces; the next child is process 1 of the new ones.

    Raises
    ------
    OSError
        Where the kernel does not allow it.
    """
    uid, gid = os.getuid(), os.getgid()
    flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS
    _check(libc.unshare(flags), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    _check(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "mount")


def close_the_door(limits: Limits) -> None:
    """In process 1 of the new namespaces: private mounts, no /proc, no capabilities, no new privileges."""
    options = f"size={limits.disk},nr_inodes=4096,mode=1777".encode()
    for place in (b"/tmp", b"/dev/shm"):
        _check(libc.mount(b"tmpfs", place, b"tmpfs", MS_NOSUID | MS_NODEV, options), f"mount {place.decode()}")
    _check(
        libc.mount(b"tmpfs", b"/proc", b"tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, b"size=4k"), "hide /proc"
    )
    _check(libc.sethostname(b"jail", 4), "sethostname")
    _check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    _check(libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "prctl")
    header = (ctypes.c_uint32 * 2)(LINUX_CAPABILITY_VERSION_3, 0)
    _check(libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")
    _check(libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl")
    filter_system_calls(libc)


def limit_resources(limits: Limits, in_namespaces: bool) -> None:
    """Set the resource limits of this process and its children; hard ones, which cannot be raised again."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    wanted = {
        resource.RLIMIT_AS: pages * resource.getpagesize() + limits.memory,
        resource.RLIMIT_FSIZE: limits.disk,
        resource.RLIMIT_NOFILE: limits.files,
        resource.RLIMIT_CORE: 0,
    }
    if in_namespaces:  # elsewhere it would count all processes of the user
        wanted[resource.RLIMIT_NPROC] = limits.processes
    for which, value in wanted.items():
        hard = resource.getrlimit(which)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (value, value))
    with contextlib.suppress(OSError):  # where the machine's memory runs out, this is what the kernel should end
        Path("/proc/self/oom_score_adj").write_text("1000")
