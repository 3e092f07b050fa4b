"""Who makes an artifact: the one process that holds its key.

On a file system of this machine the kernel locks a file, and unlocks it as soon as its holder is gone, killed or not.
Where several machines share one, such a lock may be refused or, as on NFS mounted with ``nolock``, be granted to each
of them, and no call tells; there a key is held by a lease: a file that only one can create, whose holder renews its
modification time every :data:`BEAT` seconds. Who waits takes over a lease that was not renewed for :data:`LEASE`
seconds. No clocks of different machines are compared for that: a waiter counts the seconds that it slept between looks
that were answered, so that neither a server that hangs nor the waiter's own suspension counts against the holder.

Leases are no proof: a holder that was suspended goes on when it wakes, beside the one that took over. The store keeps
what is there first.

All who use a folder must use the same. Who needs leases leaves the file ``leases`` in the folder, since it is a disk of
the machine that exports it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import re
import secrets
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from leakbench.paths import children
from leakbench.runtime.untrusted_files import discard, mode_of

LEASE = 60.0
"""seconds without renewal after which a lease is taken over"""
BEAT = 10.0
"""seconds between two renewals"""
_FORGOTTEN = 3600.0
"""seconds, by the times of files, after which nobody waits; clocks of machines and server may differ by less"""
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}  # what file systems without locks say
_FORMS = (".lock", ".lease")
_MOUNTS = Path("/proc/self/mountinfo")
_KEY = re.compile(r"[0-9a-f]{64}")
_LEFTOVER = re.compile(r"\.removing-.*|.*\.part", re.DOTALL)
_NETWORK = {
    "9p", "afs", "beegfs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "orangefs", "panfs",
    "pvfs2", "smb3", "smbfs", "virtiofs", "wekafs",
}  # fmt: skip
"""types of file systems that other machines may write, too; those of FUSE count as well, but for overlays"""


class Locks:
    """The locks or leases in a folder, each of a key: 64 hexadecimal digits."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder. Raises OSError where it can't be made."""
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self._unlocked = on_network(folder)
        with contextlib.suppress(OSError):  # a folder that may only be read is good for reading
            self._leased()

    @contextlib.contextmanager
    def held(self, key: str, wait: bool = True) -> Iterator[None]:
        """Holds a key. Raises TimeoutError where another holds it and one shall not wait, OSError where nobody can."""
        with contextlib.ExitStack() as held:
            if not self._leased():
                try:
                    path = self._cleared(key, ".lock")
                    held.enter_context(FileLock(path, timeout=-1 if wait else 0, fallback_to_soft=False))
                except OSError as error:
                    if error.errno not in _NO_LOCKS:
                        raise
                    self._unlocked = True
            if self._leased():
                held.enter_context(_leased(self._cleared(key, ".lease"), wait))
            yield

    @contextlib.contextmanager
    def removed(self, key: str) -> Iterator[None]:
        """Holds a key, unless another does (TimeoutError), and removes its files."""
        with self.held(key, wait=False):
            yield
            # removed while it is held: whoever opened it meanwhile sees that it is gone and takes a new one
            for form in _FORMS:
                with contextlib.suppress(OSError):
                    self._file(key, form).unlink()

    def prune(self, limit: float) -> None:
        """Remove what was last used before ``limit`` (seconds since the epoch) and is not held."""
        for path in children(self.folder):
            with contextlib.suppress(OSError):
                if path.lstat().st_mtime > limit:
                    continue
                if _LEFTOVER.fullmatch(path.name):
                    discard(path, "lock")
                elif path.suffix in _FORMS and _KEY.fullmatch(path.stem):
                    with self.removed(path.stem):
                        pass

    def _file(self, key: str, form: str) -> Path:
        return self.folder / f"{key}{form}"

    def _cleared(self, key: str, form: str) -> Path:
        """The path of a key's file, where nothing but a file lies."""
        path = self._file(key, form)
        mode = mode_of(path)
        if mode and not stat.S_ISREG(mode):
            with contextlib.suppress(FileNotFoundError):
                discard(path, key)
        return path

    def _leased(self) -> bool:
        """Whether keys are held by leases. Raises OSError where that can't be written down for others."""
        mark = self.folder / "leases"
        if mode_of(mark):
            return True
        if self._unlocked:
            self.folder.mkdir(parents=True, exist_ok=True)  # somebody may have removed the whole store
            mark.touch()
        return self._unlocked


@contextlib.contextmanager
def _leased(path: Path, wait: bool) -> Iterator[None]:
    """Holds a lease and renews it. Raises as :meth:`Locks.held`."""
    lease = _created(path, wait)
    ended = threading.Event()
    renewing = threading.Thread(target=_renew, args=(lease, ended), name="lease", daemon=True)
    try:
        renewing.start()
        yield
    finally:
        ended.set()
        if renewing.is_alive():
            renewing.join()
        ours = False  # and not the lease of who took over
        with contextlib.suppress(OSError):
            ours = os.path.samestat(os.fstat(lease), path.lstat())
        os.close(lease)  # first: NFS keeps a removed file that is open, under another name
        if ours:
            with contextlib.suppress(OSError):
                path.unlink()


def _renew(lease: int, ended: threading.Event) -> None:
    while not ended.wait(BEAT):
        with contextlib.suppress(OSError):  # of who took over, or of a server that comes back
            os.utime(lease)


def _created(path: Path, wait: bool) -> int:
    """The descriptor of a lease that is ours."""
    seen: tuple[int, int] | None = None
    silent, longest = 0.0, LEASE / 2000
    while True:
        with contextlib.suppress(FileExistsError):
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        now = _renewal(path)
        if now is None:
            continue
        if now != seen:
            seen, silent = now, 0.0
        if silent >= LEASE or time.time() - now[1] / 1e9 > _FORGOTTEN:
            _take_away(path, now)
        elif not wait:
            raise TimeoutError(path)
        else:
            longest = min(1.3 * longest, LEASE / 60)
            pause = longest * random.SystemRandom().uniform(0.5, 1)  # so that not all who wait look at once
            time.sleep(pause)
            silent += pause


def _renewal(path: Path) -> tuple[int, int] | None:
    """What changes with each renewal of a lease and each change of its holder; None where there is no lease.

    NFS answers for the time of a file from memory, but asks the server when it is opened.
    """
    try:
        lease = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except PermissionError:  # of another user, who lets nobody read
        status = path.lstat()
    else:
        status = os.fstat(lease)
        os.close(lease)
    return status.st_ino, status.st_mtime_ns


def _take_away(path: Path, seen: tuple[int, int]) -> None:
    """Remove a lease, unless it was renewed since it was ``seen``."""
    if _renewal(path) != seen:
        return
    aside = path.with_name(f".removing-{path.stem}-{secrets.token_hex(8)}")
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
        if _renewal(aside) != seen:  # another took it over between these lines: back with its lease
            with contextlib.suppress(OSError):
                os.link(aside, path)
        aside.unlink()


def on_network(folder: Path) -> bool:
    """Whether a folder's file system is one that other machines may write, too, by its type.

    Where the system does not list its file systems, it counts as this machine's.
    """
    try:
        device = folder.stat().st_dev
        mounts = _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    for mount in mounts:
        place, _, source = mount.partition(" - ")
        if place.split()[2] == f"{os.major(device)}:{os.minor(device)}":
            kind = source.split()[0]
            return kind in _NETWORK or (kind.startswith("fuse.") and "overlay" not in kind)
    return False
