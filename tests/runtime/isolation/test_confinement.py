"""What a confined process can still do: every attempt is made in one, by the names of the table below."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from leakbench.runtime.isolation import confinement
from leakbench.runtime.isolation.confinement import READ, WRITE, Unavailable, what_is_lacking

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="confinement is the Linux kernel's")

ATTEMPTS = r"""
import ctypes, errno, fcntl, json, os, resource, signal, socket, sys, threading

sys.path.insert(0, sys.argv[1])
import confinement

folder, target, inherited = sys.argv[2], int(sys.argv[3]), os.open(sys.argv[2] + "/secret", os.O_RDONLY)
libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(64)


class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]


def call(name, *arguments):
    number = {
        "mincore": 27, "shmget": 29, "shmat": 30, "ptrace": 101, "process_vm_readv": 310, "io_uring_setup": 425,
        "madvise": 28, "getxattr": 191, "futex": 202, "timer_create": 222, "cachestat": 451,
    }[name]
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), name)


def read(path):
    with open(path, "rb") as file:
        file.read(1)


def write(path):
    with open(path, "ab") as file:
        file.write(b"x")


def opened(act):
    with open(folder + "/given/file", "rb") as file:
        act(file)


def pair():
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def refused(error, act):
    # the attempt counts as one only where this very error does not come
    try:
        act()
    except OSError as raised:
        if raised.errno == error:
            raise


def join_thread():
    thread = threading.Thread(target=int)
    thread.start()
    thread.join(10)
    if thread.is_alive():
        raise OSError("it does not end")


def prctl(*arguments):
    if libc.prctl(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "prctl")


here, there = Vector(ctypes.cast(buffer, ctypes.c_void_p), 8), Vector(target, 8)
attempts = {
    "read a file that was not given": lambda: read(folder + "/secret"),
    "list a folder that was not given": lambda: os.listdir(folder),
    "read through a link": lambda: read(folder + "/given/link"),
    "link a file into a folder that was given": lambda: os.link(folder + "/secret", folder + "/writable/hard"),
    "write elsewhere": lambda: write(folder + "/new"),
    "write to a file that may be read": lambda: write(folder + "/given/file"),
    "truncate by path": lambda: os.truncate(folder + "/secret", 0),
    "remove a file": lambda: os.unlink(folder + "/secret"),
    "change what a file allows": lambda: os.chmod(folder + "/secret", 0o777),
    "change a file's times": lambda: os.utime(folder + "/secret"),
    "memory of the parent": lambda: read(f"/proc/{os.getppid()}/mem"),
    "environment of the parent": lambda: read(f"/proc/{os.getppid()}/environ"),
    "arguments of the parent": lambda: read(f"/proc/{os.getppid()}/cmdline"),
    "descriptors of the parent": lambda: os.listdir(f"/proc/{os.getppid()}/fd"),
    "a file by the parent's root": lambda: read(f"/proc/{os.getppid()}/root{folder}/secret"),
    "a file by its own root": lambda: read(f"/proc/self/root{folder}/secret"),
    "a file by its own descriptor": lambda: read(f"/proc/self/fd/{inherited}"),
    "trace the parent": lambda: call("ptrace", 16, os.getppid(), 0, 0),
    "read the parent's memory": lambda: call(
        "process_vm_readv", os.getppid(), ctypes.byref(here), 1, ctypes.byref(there), 1, 0
    ),
    "signal the parent": lambda: os.kill(os.getppid(), 0),
    "signal its group": lambda: os.killpg(0, 0),
    "signal by a file's owner": lambda: fcntl.fcntl(1, 8, os.getppid()),
    "limit the parent": lambda: resource.prlimit(os.getppid(), 7),
    "fork": os.fork,
    "execute": lambda: os.execv("/bin/true", ["true"]),
    "outlive its parent": lambda: prctl(1, 0, 0, 0, 0),
    "outlive its parent by the upper half": lambda: prctl(ctypes.c_ulong((1 << 32) + 1), 0, 0, 0, 0),
    "a TCP socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
    "a UDP socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "a Unix socket": lambda: socket.socket(socket.AF_UNIX),
    "a netlink socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "io_uring": lambda: call("io_uring_setup", 1, buffer),
    "System V memory": lambda: call("shmget", 1, 4096, 0o1600),
    "System V memory that is there": lambda: call("shmat", segment, None, 0),
    "lock a file": lambda: opened(lambda file: fcntl.flock(file, fcntl.LOCK_SH)),
    "lock a part of a file": lambda: opened(lambda file: fcntl.lockf(file, fcntl.LOCK_SH)),
    "set a file's flags": lambda: refused(errno.EPERM, lambda: opened(lambda f: fcntl.ioctl(f, 0x40086602, bytes(8)))),
    "which parts of a file are in memory": lambda: opened(lambda file: os.preadv(file.fileno(), [bytearray(1)], 0, 8)),
    "the same by cachestat": lambda: opened(lambda file: call("cachestat", file.fileno(), buffer, buffer, 0)),
    "the same by mincore": lambda: call("mincore", page, 4096, buffer),
    "drop a file from memory": lambda: opened(lambda file: os.posix_fadvise(file.fileno(), 0, 0, 4)),
    "processors of the parent": lambda: os.sched_getaffinity(os.getppid()),
    "set the parent's processors": lambda: os.sched_setaffinity(os.getppid(), os.sched_getaffinity(0)),
    "priority of the parent": lambda: os.getpriority(os.PRIO_PROCESS, os.getppid()),
    "a session of its own": os.setsid,
    "sockets of others": lambda: read("/proc/self/net/unix"),
    "a datagram socket by a pair": lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM),
    "a packet socket by a pair": lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET),
    "connect a pair's end": lambda: refused(errno.EPERM, lambda: pair()[0].connect(folder + "/socket")),
    "wake another process": lambda: call("futex", page, 1, 1, None, None, 0),
    "drop pages of a file from memory": lambda: call("madvise", page, 4096, 21),
    "an attribute of a file": lambda: refused(errno.EPERM, lambda: call("getxattr", secret, b"user.x", None, 0)),
    "a timer of the kernel's": lambda: call("timer_create", 0, None, buffer),
    "seal a file": lambda: refused(errno.EPERM, lambda: opened(lambda file: fcntl.ioctl(file, 0x40806685, bytes(128)))),
    "watch a folder": lambda: confinement._libc().inotify_init1(0) >= 0 or (_ for _ in ()).throw(OSError()),
    "a new namespace": lambda: libc.unshare(0x10000000) == 0 or (_ for _ in ()).throw(OSError()),
    "raise its limits": lambda: resource.setrlimit(1, (-1, -1)),
    # what must go on working, or the test would prove nothing
    "read a file that was given": lambda: read(folder + "/given/file"),
    "write to a folder that was given": lambda: write(folder + "/writable/file"),
    "start a thread": lambda: threading.Thread(target=int).start(),
    "know that a file is there": lambda: os.stat(folder + "/secret"),
    "a stream socket pair": lambda: [one.sendall(b"x") for one in pair()],
    "whether a file is a terminal": lambda: os.isatty(0),
    "wake a thread of its own": lambda: call("futex", page, 1 | 128, 1, None, None, 0),
    "join a thread": join_thread,
    "its own processors": lambda: os.sched_getaffinity(0),
    "its own memory": lambda: read("/proc/self/maps"),
    "its own descriptors": lambda: os.listdir("/proc/self/fd"),
}
grants = [(folder + "/given", confinement.READ), (folder + "/writable", confinement.WRITE)]
grants += [(path, confinement.READ) for path in ("/usr", "/lib", "/lib64", sys.base_prefix)]
secret = (folder + "/secret").encode()
segment = libc.shmget(0, 4096, 0o1600)
libc.shmat.restype = ctypes.c_void_p
page = ctypes.c_void_p(libc.shmat(segment, None, 0))
libc.shmctl(segment, 0, None)  # gone with its last user
confinement.confine(grants)
done = {}
for name, attempt in attempts.items():
    try:
        attempt()
        done[name] = True
    except OSError:
        done[name] = False
    except ValueError:
        done[name] = False  # resource: not allowed to raise the limit
print(json.dumps(done), flush=True)
"""
ALLOWED = {
    "read a file that was given",
    "write to a folder that was given",
    "start a thread",
    "know that a file is there",
    "a stream socket pair",
    "whether a file is a terminal",
    "wake a thread of its own",
    "join a thread",
    "its own processors",
    "its own memory",
    "its own descriptors",
}
NAMES = [line.partition('":')[0].strip()[1:] for line in ATTEMPTS.splitlines() if line.startswith('    "')]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bool]:
    """What worked in a confined process."""
    if problem := what_is_lacking():
        pytest.skip(problem)
    folder = tmp_path_factory.mktemp("confined")
    for name in ("given", "writable"):
        (folder / name).mkdir()
    for name in ("secret", "given/file"):
        (folder / name).write_text("text")
    (folder / "given" / "link").symlink_to(folder / "secret")
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listening.bind(str(folder / "socket"))
    script = folder / "attempts.py"
    script.write_text(ATTEMPTS)
    secret = (1).__sizeof__  # any object of this process
    where = str(id(secret))
    command = [sys.executable, "-I", str(script), str(Path(confinement.__file__).parent), str(folder), where]
    with listening:
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert (folder / "secret").read_text() == "text"
    assert not (folder / "new").exists()
    done: dict[str, bool] = json.loads(ended.stdout)
    return done


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_attempt(done: dict[str, bool], name: str) -> None:
    assert done[name] == (name in ALLOWED)


@pytest.mark.slow
def test_a_process_with_several_threads_is_not_confined() -> None:
    code = (
        "import sys, threading, time; sys.path.insert(0, sys.argv[1]); import confinement\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "try:\n    confinement.confine([])\nexcept confinement.Unavailable as error:\n    print(error)"
    )
    folder = str(Path(confinement.__file__).parent)
    said = subprocess.run([sys.executable, "-I", "-c", code, folder], capture_output=True, text=True, check=False)
    assert said.stdout == "the process has several threads\n"


def test_other_systems_say_what_they_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert what_is_lacking().endswith("has no Landlock")


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise Unavailable("libseccomp.so.2 is not installed")

    monkeypatch.setattr(confinement, "landlock_version", lambda: 7)
    monkeypatch.setattr(confinement, "libseccomp", missing)
    assert what_is_lacking() == "libseccomp.so.2 is not installed"


def test_purposes_are_rights_of_every_version() -> None:
    assert set(confinement._RIGHTS) >= {READ, WRITE}
    assert all(rights < 1 << confinement._HANDLED[3] for rights in confinement._RIGHTS.values())
