"""Closing files, network and other processes to this very process, by the Linux kernel and for good.

Landlock, for files, takes three system calls that no library wraps well: the one on PyPI has had developer's releases
only, and knows no kernel later than 2022. Everything else is closed by seccomp, through libseccomp. Both are inherited,
and neither can be taken back. Standard library only: this runs in a process before anything else does.

What stays open to a confined process: the files that it was given, its own memory and processor time, and whether a
path exists and how large a file there is (Landlock does not cover ``stat``).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

READ, LIST, WRITE = "read", "list", "write"
"""what a path is given for: reading all below it; names below it; all but executing and devices below it"""
Grant = tuple[str, str]
"""(path, one of these)"""

_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_READ_FILE, _READ_DIR, _WRITE_FILE, _TRUNCATE = 1 << 2, 1 << 3, 1 << 1, 1 << 14
_REMOVE = 1 << 4 | 1 << 5
_MAKE = 1 << 7 | 1 << 8 | 1 << 12  # folders, files, links
_REFER = 1 << 13
_OF_FILES = _READ_FILE | _WRITE_FILE | _TRUNCATE
_RIGHTS = {
    READ: _READ_FILE | _READ_DIR,
    LIST: _READ_DIR,
    WRITE: _OF_FILES | _READ_DIR | _REMOVE | _MAKE | _REFER,
}
_HANDLED = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # Landlock's version -> number of rights on files; 16 from 5 on
_O_PATH = getattr(os, "O_PATH", 0)

_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 24, 38
_CAP_DAC_READ_SEARCH = 2
"""kept of root's rights, as files that root was given may be another user's; Landlock says which"""
_LARGEST_FILE = 1 << 30  # bytes

_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NOT_EQUAL, _MASKED_EQUAL = 1, 7
_THREAD = 0x10000  # CLONE_THREAD
_FCNTLS = (8, 10, 15, 5, 6, 7, 36, 37, 38, 1024, 1026)
"""refused: owners and signals, locks, leases and events"""
_OF_TERMINALS, _TERMINAL_INPUT = 0x54, (0x5412, 0x541C)
"""the type of ioctl that is not refused, but for two: isatty and non-blocking descriptors are of it. File systems and
devices have other types."""
_FUTEX_WAKES = (1, 3, 4, 5, 7, 10, 12)
"""operations that wake others, where they lack the flag (128) that keeps them within a process"""
_STREAM = 1
"""the one type of socket pair that is left: it can't be connected to anything else"""
_PAGED = (20, 21)
"""madvise: cold, paged out; the next who reads the file finds the mark"""
_OF_ANOTHER = ("sched_setaffinity", "sched_setparam", "sched_setscheduler", "sched_setattr", "prlimit64")
_ASKING_OF_ANOTHER = ("sched_getaffinity", "sched_getparam", "sched_getscheduler", "sched_getattr")
"""calls whose first argument is 0 where they are about the caller"""
_OF_ITSELF = ("cgroup", "cmdline", "environ", "fd", "maps", "smaps", "stat", "statm", "status")
"""what a process may read about itself; below /proc/self/net is what others have open"""
_INT = 0xFFFFFFFF  # the kernel looks at the lower half of such an argument alone

_NEVER = [
    # other processes, and the network
    "socket", "bind", "connect", "listen", "accept", "accept4", "ptrace", "process_vm_readv", "process_vm_writev",
    "process_madvise", "process_mrelease", "pidfd_open", "pidfd_getfd", "pidfd_send_signal", "kcmp", "execve",
    "execveat", "fork", "vfork", "tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "ioprio_set", "ioprio_get", "setsid",
    "setpgid", "shmget", "shmat", "shmdt", "shmctl", "msgget", "msgsnd", "msgrcv", "msgctl", "semget", "semop",
    "semtimedop", "semctl", "mq_open", "mq_unlink", "io_uring_setup", "io_uring_enter", "io_uring_register",
    "io_setup", "timer_create", "futex_waitv", "futex_wake", "futex_wait", "futex_requeue",
    # files by other ways than their path, their events, and what they are allowed: Landlock covers none of it
    "open_by_handle_at", "name_to_handle_at", "mount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree",
    "open_tree_attr", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr", "unshare", "setns", "inotify_init",
    "inotify_init1", "fanotify_init", "fanotify_mark", "chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown",
    "lchown", "fchownat", "setxattr", "lsetxattr", "fsetxattr", "setxattrat", "removexattr", "lremovexattr",
    "fremovexattr", "removexattrat", "getxattr", "lgetxattr", "fgetxattr", "getxattrat", "listxattr", "llistxattr",
    "flistxattr", "listxattrat", "file_setattr", "utime", "utimes", "futimesat", "utimensat", "truncate", "flock",
    # which parts of a file are in memory: a mark that others find
    "fadvise64", "readahead", "mincore", "cachestat",
    # the system, and what helps to attack its kernel
    "perf_event_open", "userfaultfd", "bpf", "add_key", "request_key", "keyctl", "init_module", "finit_module",
    "delete_module", "kexec_load", "kexec_file_load", "reboot", "swapon", "swapoff", "acct", "quotactl", "quotactl_fd",
    "syslog", "settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "sethostname", "setdomainname", "iopl",
    "ioperm", "modify_ldt", "nfsservctl", "vhangup", "lookup_dcookie", "migrate_pages", "move_pages",
]  # fmt: skip
"""system calls that are refused whatever is asked of them"""
_NUMBERS = {
    "pidfd_send_signal": 424, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428,
    "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "pidfd_open": 434, "clone3": 435,
    "pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442, "quotactl_fd": 443, "process_mrelease": 448,
    "futex_waitv": 449, "cachestat": 451, "fchmodat2": 452, "futex_wake": 454, "futex_wait": 455, "futex_requeue": 456,
    "setxattrat": 463, "getxattrat": 464, "listxattrat": 465, "removexattrat": 466, "open_tree_attr": 467,
    "file_setattr": 469,
}  # fmt: skip
"""of calls that an older libseccomp may not know: the same on all machines"""


class Unavailable(Exception):
    """This system can't confine a process; the message says in a few words what is lacking."""


class _Compared(ctypes.Structure):
    """An argument of a system call and what it is compared with (struct scmp_arg_cmp)."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operation", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def landlock_version() -> int:
    """Of the running kernel; Unavailable where there is none."""
    if sys.platform != "linux":
        raise Unavailable(f"{platform.system()} has no Landlock")
    version = int(_libc().syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint(1)))
    if version < 1:
        raise Unavailable("the kernel has no Landlock, or it is not switched on")
    return version


def libseccomp() -> ctypes.CDLL:
    """The library; Unavailable where there is none."""
    try:
        library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    except OSError:
        raise Unavailable("libseccomp.so.2 is not installed") from None
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = (ctypes.c_uint32,)
    library.seccomp_syscall_resolve_name.argtypes = (ctypes.c_char_p,)
    library.seccomp_rule_add_array.argtypes = (
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(_Compared),
    )  # fmt: skip
    library.seccomp_load.argtypes = library.seccomp_release.argtypes = (ctypes.c_void_p,)
    return library


def end_with_parent(parent: int) -> None:
    """This process is killed as soon as the thread that started it, of process ``parent``, is gone."""
    if sys.platform == "linux":
        _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def confine(grants: Sequence[Grant]) -> None:
    """From now on this process, which must have one thread, has these files alone, and no other means to the outside.

    No network, no other process (no signals, no tracing, none of its own), no executing, nothing that changes the
    system or what files are allowed. Descriptors that are open stay open. Raises Unavailable where the system can't.
    """
    version, library = landlock_version(), libseccomp()  # before libraries can no longer be opened
    if len(os.listdir("/proc/self/task")) != 1:  # noqa: PTH208 - the other threads would keep their rights
        raise Unavailable("the process has several threads")
    _limit_resources()
    _drop_capabilities()
    if _libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise Unavailable("the kernel refuses no_new_privs")
    _landlock(version, grants)
    _seccomp(library)


def _limit_resources() -> None:
    import resource  # on Unix alone

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_LARGEST_FILE, _LARGEST_FILE))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")  # where memory runs out, it goes first


def _drop_capabilities() -> None:
    """Of root's rights; others have none."""
    libc = _libc()
    number = 0
    while libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) == 0:
        number += 1
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    was = (ctypes.c_uint32 * 6)()
    if libc.capget(header, was) != 0:
        raise Unavailable("its rights can't be read")
    kept = was[1] & 1 << _CAP_DAC_READ_SEARCH
    if libc.capset(header, (ctypes.c_uint32 * 6)(kept, kept, 0, 0, 0, 0)) != 0:
        raise Unavailable("its rights can't be dropped")


def _landlock(version: int, grants: Iterable[Grant]) -> None:
    libc = _libc()
    handled = (1 << _HANDLED.get(version, 16)) - 1
    network = 0b11 if version >= 4 else 0
    scoped = 0b11 if version >= 6 else 0  # abstract sockets, signals
    attributes = (ctypes.c_uint64 * 3)(handled, network, scoped)
    size = 8 * (3 if version >= 6 else 2 if version >= 4 else 1)
    rules = int(libc.syscall(_LANDLOCK_CREATE, ctypes.byref(attributes), ctypes.c_size_t(size), ctypes.c_uint(0)))
    if rules < 0:
        raise Unavailable(f"Landlock makes no ruleset ({_last_error()})")
    try:
        of_itself = [(f"/proc/self/{name}", READ) for name in _OF_ITSELF]
        for path, purpose in (*grants, *of_itself):
            _add(libc, rules, path, _RIGHTS[purpose] & handled)
        if libc.syscall(_LANDLOCK_RESTRICT, ctypes.c_int(rules), ctypes.c_uint(0)) != 0:
            raise Unavailable(f"Landlock does not restrict ({_last_error()})")
    finally:
        os.close(rules)


def _add(libc: ctypes.CDLL, rules: int, path: str, rights: int) -> None:
    try:
        opened = os.open(path, _O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there need not be given
    try:
        if not Path(path).is_dir():
            rights &= _OF_FILES
        if rights:
            rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, opened), 12)  # landlock_path_beneath_attr
            if libc.syscall(_LANDLOCK_ADD, ctypes.c_int(rules), ctypes.c_int(1), rule, ctypes.c_uint(0)) != 0:
                raise Unavailable(f"Landlock does not take {path!r} ({_last_error()})")
    finally:
        os.close(opened)


def _seccomp(library: ctypes.CDLL) -> None:
    context = library.seccomp_init(_ALLOW)
    if not context:
        raise Unavailable("libseccomp makes no filter")
    me = os.getpid()

    def refuse(name: str, *conditions: tuple[int, int, int, int], error: int = errno.EPERM) -> None:
        number = library.seccomp_syscall_resolve_name(name.encode())
        number = _NUMBERS.get(name, number) if number == -1 else number
        if number == -1:
            return  # no machine of this kind has it
        compared = (_Compared * len(conditions))(*(_Compared(*one) for one in conditions))
        status = library.seccomp_rule_add_array(context, _ERRNO | error, number, len(conditions), compared)
        if status != 0:
            raise Unavailable(f"libseccomp does not refuse {name} ({os.strerror(-status)})")

    try:
        for name in _NEVER:
            refuse(name)
        refuse("clone", (0, _MASKED_EQUAL, _THREAD, 0))
        refuse("clone3", error=errno.ENOSYS)  # its flags are in memory; the C library then takes clone
        refuse("kill", (0, _NOT_EQUAL, me, 0))
        refuse("tgkill", (0, _NOT_EQUAL, me, 0))
        for name in _OF_ANOTHER:
            refuse(name, (0, _NOT_EQUAL, 0, 0))
        for name in _ASKING_OF_ANOTHER:  # of a thread of its own, too, and the C library goes on without it
            refuse(name, (0, _NOT_EQUAL, 0, 0), error=errno.ENOSYS)
        for name in ("setpriority", "getpriority"):
            refuse(name, (0, _NOT_EQUAL, 0, 0))
            refuse(name, (1, _NOT_EQUAL, 0, 0))
        refuse("preadv2", (5, _NOT_EQUAL, 0, 0))  # only what is in memory
        refuse("prctl", (0, _MASKED_EQUAL, _INT, _PR_SET_PDEATHSIG))
        for command in _FCNTLS:
            refuse("fcntl", (1, _MASKED_EQUAL, _INT, command))
        for kind in set(range(256)) - {_OF_TERMINALS}:
            refuse("ioctl", (1, _MASKED_EQUAL, 0xFF00, kind << 8))
        for command in _TERMINAL_INPUT:
            refuse("ioctl", (1, _MASKED_EQUAL, _INT, command))
        for operation in _FUTEX_WAKES:
            refuse("futex", (1, _MASKED_EQUAL, 0xFF, operation))
        for kind in set(range(16)) - {_STREAM}:
            refuse("socketpair", (1, _MASKED_EQUAL, 0xF, kind))
        for advice in _PAGED:
            refuse("madvise", (2, _MASKED_EQUAL, _INT, advice))
        status = library.seccomp_load(context)
        if status != 0:
            raise Unavailable(f"the kernel takes no seccomp filter ({os.strerror(-status)})")
    finally:
        library.seccomp_release(context)


def _last_error() -> str:
    return os.strerror(ctypes.get_errno())


def what_is_lacking() -> str:
    """Why this system can't confine a process, in a few words; empty where it can. Tried in a process of its own."""
    try:
        landlock_version()
        libseccomp()
    except Unavailable as error:
        return str(error)
    tried = subprocess.run([sys.executable, "-I", __file__], capture_output=True, text=True, check=False)
    return tried.stdout.strip() if tried.returncode == 0 else "a confined process ends at once"


def _left_open() -> str:
    """What this process can do when it is confined; empty where that is nothing."""
    parent = os.getppid()
    try:
        confine([])
    except Unavailable as error:
        return str(error)
    attempts: dict[str, Callable[[], object]] = {
        "files stay open": lambda: os.open(f"/proc/{parent}/environ", os.O_RDONLY),
        "the network stays open": socket.socket,
        "other processes stay open": lambda: os.kill(parent, 0),
        "processes can be started": os.fork,
    }
    for problem, attempt in attempts.items():
        try:
            attempt()
        except OSError:
            continue
        return problem
    return ""


if __name__ == "__main__":
    print(_left_open(), flush=True)
    os._exit(0)
