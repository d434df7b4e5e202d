"""A filter of system calls (seccomp): what a submission may not ask the kernel for.

The namespaces bound what a submission sees; the filter bounds what it can do with the kernel itself: no further
namespaces (in which it would be allowed to mount a tmpfs of any size), no memory that counts for no process
(memfd, System V), no sockets but those of families that the jail's empty network namespace covers (a virtual
machine's vsock is not), no tracing, keys, BPF or io_uring.  See seccomp(2).
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
ALLOW, ERRNO = 0x7FFF0000, 0x00050000  # SECCOMP_RET_*
LOAD, JUMP_EQUAL, JUMP_GREATER_OR_EQUAL, JUMP_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF_* for 32-bit words
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data, of low words
X32 = 0x40000000  # bit of x86-64's other system call numbers
NEW_NAMESPACES = 0x7E020000  # CLONE_NEW*
AF_UNIX, AF_INET, AF_INET6 = 1, 2, 10

ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  # AUDIT_ARCH_*, column below
CLONE, CLONE3 = (56, 220), (435, 435)
SOCKET, SOCKETPAIR = (41, 198), (53, 199)
DENIED = {
    # memory that belongs to no process, and messages that wait in the kernel
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "io_setup": (206, 0),
    "vmsplice": (278, 75),
    # namespaces and mounts
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    # the kernel itself
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "fanotify_init": (300, 262),
    "quotactl": (179, 60),
    "acct": (163, 89),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "syslog": (103, 116),
    "personality": (135, 92),
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def filter_system_calls(libc: ctypes.CDLL) -> bool:
    """Put the filter on this process and all that it starts; False on a processor whose numbers are not known here.

    Raises
    ------
    OSError
        Where the kernel refuses; it needs no-new-privileges to be set.
    """
    if platform.machine() not in ARCHITECTURES:
        return False
    code = program(platform.machine())
    filled = _Program(len(code) // 8, code)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(filled), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the filter of system calls was refused")
    return True


def program(machine: str) -> bytes:
    """The filter as a program of classic BPF for one processor, 8 bytes an instruction."""
    architecture, column = ARCHITECTURES[machine]

    def refuse(number: int) -> bytes:
        return _instruction(RETURN, ERRNO | number)

    def unless(operation: int, value: int, skipped: int) -> bytes:
        """Go on where the comparison holds, else skip so many instructions."""
        return _instruction(operation, value, 0, skipped)

    code = _instruction(LOAD, ARCHITECTURE)
    code += _instruction(JUMP_EQUAL, architecture, 1, 0) + refuse(errno.ENOSYS)
    code += _instruction(LOAD, NUMBER)
    if machine == "x86_64":
        code += unless(JUMP_GREATER_OR_EQUAL, X32, 1) + refuse(errno.ENOSYS)
    for numbers in DENIED.values():
        code += unless(JUMP_EQUAL, numbers[column], 1) + refuse(errno.EPERM)
    # Its flags lie in memory, which a filter cannot read; the C library falls back to clone.
    code += unless(JUMP_EQUAL, CLONE3[column], 1) + refuse(errno.ENOSYS)
    flags = _instruction(LOAD, FIRST_ARGUMENT) + unless(JUMP_ANY_BIT, NEW_NAMESPACES, 1) + refuse(errno.EPERM)
    flags += _instruction(RETURN, ALLOW)
    code += unless(JUMP_EQUAL, CLONE[column], len(flags) // 8) + flags
    for numbers, families in ((SOCKET, (AF_UNIX, AF_INET, AF_INET6)), (SOCKETPAIR, (AF_UNIX,))):
        family = _instruction(LOAD, FIRST_ARGUMENT)
        for known in families:
            family += unless(JUMP_EQUAL, known, 1) + _instruction(RETURN, ALLOW)
        family += refuse(errno.EAFNOSUPPORT)
        code += unless(JUMP_EQUAL, numbers[column], len(family) // 8) + family
    return code + _instruction(RETURN, ALLOW)


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
