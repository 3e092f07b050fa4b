"""Leases: who makes an artifact where locks do nothing, whatever becomes of the one that makes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from store_samples import INPUTS, KEY, Builder, Refused, everything_in, same, within_a_minute

from leakbench.runtime import locks as module
from leakbench.runtime.artifact import Artifact, Content
from leakbench.runtime.locks import Locks, on_network
from leakbench.runtime.store import Store


@pytest.fixture(autouse=True)
def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FileLock", Refused)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def lease(store: Store) -> Path:
    return store.root / "locks" / f"{KEY}.lease"


def names(store: Store) -> list[str]:
    return sorted(path.name for path in (store.root / "locks").iterdir())


HOLDER = """
import sys, time
from pathlib import Path
from store_samples import INPUTS, Refused
from leakbench.runtime import locks
from leakbench.runtime.store import Store

locks.FileLock, locks.BEAT = Refused, 0.01
root, inside, leave = map(Path, sys.argv[1:])

def build():
    inside.touch()
    while not leave.exists():
        time.sleep(0.01)
    return {}, {"by": "the holder"}

print(Store(root).get_or_make("victim", 1, INPUTS, build).record)
"""


class Holder:
    """A process that makes the artifact until it is told to leave."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.leave, inside = folder / "leave", folder / "inside"
        command = [sys.executable, "-c", HOLDER, *map(str, (store.root, inside, self.leave))]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "helpers")}
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        while not inside.exists():
            assert self.process.poll() is None
            time.sleep(0.01)

    def ends(self) -> str:
        """What it printed."""
        self.leave.touch()
        said, complaints = self.process.communicate(timeout=60)
        assert (complaints, self.process.returncode) == ("", 0)
        return said.strip()


@contextmanager
def holder_of(store: Store, folder: Path) -> Iterator[Holder]:
    holder = Holder(store, folder)
    try:
        yield holder
    finally:
        holder.process.kill()
        holder.process.communicate()


def test_a_lease_is_there_while_an_artifact_is_made_and_no_longer(store: Store) -> None:
    def build() -> Content:
        assert names(store) == [lease(store).name, "leases"]
        return Builder()()

    assert same(store.get_or_make("victim", 1, INPUTS, build))
    assert names(store) == ["leases"]
    with pytest.raises(ValueError, match="mine"):
        store.get_or_make("victim", 1, {"seed": 1}, lambda: (_ for _ in ()).throw(ValueError("mine")))
    assert names(store) == ["leases"]
    assert not [thread for thread in threading.enumerate() if thread.name == "lease"]


def test_who_uses_locks_changes_to_leases_when_another_needs_them(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine that exports a folder has it as its own disk, on which locks work."""
    monkeypatch.undo()
    store.get_or_make("victim", 1, {"seed": 1}, Builder())
    assert [Path(name).suffix for name in names(store)] == [".lock"]
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(module, "on_network", lambda _folder: True)
        Store(store.root)

    def build() -> Content:
        assert lease(store).exists()
        return Builder()()

    store.get_or_make("victim", 1, INPUTS, build)


@pytest.mark.slow
def test_a_holder_that_is_slow_keeps_its_lease(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, leave = threading.Event(), threading.Event()
    slept: list[float] = []
    monkeypatch.setattr(module, "BEAT", 0.005)
    build = Builder()

    def slow() -> Content:
        inside.set()
        assert leave.wait(60)
        return build()

    def renewal() -> int | None:
        return lease(store).stat().st_mtime_ns if lease(store).exists() else None

    def until_it_is_renewed(pause: float) -> None:
        slept.append(pause)
        if sum(slept) > 5 * module.LEASE:
            leave.set()
        gone, before = time.monotonic() + 30, renewal()
        while renewal() == before:
            assert time.monotonic() < gone, "it is neither renewed nor left"
            threading.Event().wait(0.001)

    first = threading.Thread(target=lambda: store.get_or_make("victim", 1, INPUTS, slow))
    first.start()
    assert inside.wait(60)
    with monkeypatch.context() as waiting:
        waiting.setattr(module.time, "sleep", until_it_is_renewed)
        within_a_minute(lambda: Store(store.root).get_or_make("victim", 1, INPUTS, build))
    first.join(60)
    assert leave.is_set() and build.calls == 1


@pytest.mark.slow
def test_a_holder_that_is_killed_hinders_nobody_for_longer_than_its_lease(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with holder_of(store, tmp_path) as holder:
        holder.process.send_signal(signal.SIGKILL)
        holder.process.wait()
    assert lease(store).exists()
    monkeypatch.setattr(module, "LEASE", 0.2)
    within_a_minute(lambda: store.get_or_make("victim", 1, INPUTS, Builder()))
    read = store.read(KEY)
    assert read is not None and same(read)
    assert names(store) == ["leases"]


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("first", ["the holder", "the other"])
def test_a_holder_that_is_suspended_and_who_took_over_get_what_was_there_first(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, first: str
) -> None:
    monkeypatch.setattr(module, "LEASE", 0.2)
    artifacts: list[Artifact] = []
    with holder_of(store, tmp_path) as holder:
        holder.process.send_signal(signal.SIGSTOP)

        def build() -> Content:
            if first == "the holder":
                holder.process.send_signal(signal.SIGCONT)
                assert holder.ends() == "{'by': 'the holder'}"
                assert lease(store).exists()  # ours, which the holder leaves alone
            return {}, {"by": "the other"}

        within_a_minute(lambda: artifacts.append(store.get_or_make("victim", 1, INPUTS, build)))
        if first == "the other":
            holder.process.send_signal(signal.SIGCONT)
            assert holder.ends() == "{'by': 'the other'}"
    assert artifacts[0].record == {"by": first}
    read = store.read(KEY)
    assert read is not None and read.record == {"by": first}
    assert len(everything_in(store)) == 3 and names(store) == ["leases"]
    assert not caplog.records


def test_who_takes_away_the_lease_of_another_that_took_over_first_gives_it_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease(store).touch()
    seen = module._renewal(lease(store))
    assert seen is not None
    token = module.secrets.token_hex

    def meanwhile(size: int) -> str:
        lease(store).unlink()
        lease(store).write_text("the other's")
        return token(size)

    monkeypatch.setattr(module.secrets, "token_hex", meanwhile)
    module._take_away(lease(store), seen)
    assert lease(store).read_text() == "the other's"
    assert names(store) == [lease(store).name]


def test_nobody_waits_for_a_lease_that_was_forgotten_hours_ago(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_pause: float) -> None:
        raise AssertionError("it waits")

    (store.root / "locks" / "leases").touch()
    lease(store).touch()
    os.utime(lease(store), (time.time() - 2 * 3600,) * 2)
    with monkeypatch.context() as waiting:
        waiting.setattr(module.time, "sleep", refuse)
        assert same(store.get_or_make("victim", 1, INPUTS, Builder()))


def test_a_store_that_is_removed_while_it_is_used_is_made_again(store: Store) -> None:
    store.get_or_make("victim", 1, {"seed": 1}, Builder())
    (store.root / "locks" / "leases").unlink()
    (store.root / "locks").rmdir()
    assert same(store.get_or_make("victim", 1, INPUTS, Builder()))
    assert names(store) == ["leases"]


# --- housekeeping ------------------------------------------------------------------------------------------------


def test_housekeeping_leaves_alone_what_is_leased(store: Store) -> None:
    store.get_or_make("victim", 1, INPUTS, Builder())
    leftover = store.root / "objects" / KEY[:2] / f".state-{KEY}"
    leftover.mkdir()
    os.utime(leftover, (0, 0))
    with Locks(store.root / "locks").held(KEY):
        Store(store.root)
        assert store.prune(0) == (0, 0)
        assert lease(store).exists() and leftover.exists()
    assert store.prune(0)[0] == 2
    assert names(store) == ["leases"]


def test_housekeeping_removes_leases_that_were_forgotten_and_what_they_held(store: Store) -> None:
    (store.root / "locks" / "leases").touch()
    store.get_or_make("victim", 1, INPUTS, Builder())
    lease(store).touch()
    assert store.prune(0) == (0, 0)  # it may be renewed in a moment
    os.utime(lease(store), (time.time() - 2 * 3600,) * 2)
    assert store.prune(0)[0] == 1
    assert names(store) == ["leases"]


# --- where leases are needed -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "network"),
    [
        ("ext4", False), ("xfs", False), ("tmpfs", False), ("overlay", False), ("fuseblk", False),
        ("fuse.fuse-overlayfs", False), ("nfs", True), ("nfs4", True), ("lustre", True), ("cifs", True),
        ("fuse.sshfs", True),
    ],
)  # fmt: skip
def test_the_type_of_the_file_system_says_whether_other_machines_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, network: bool
) -> None:
    device = tmp_path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    listing = tmp_path / "mountinfo"
    listing.write_text(
        "22 28 0:9999 / /shared rw - nfs4 server:/other rw\n"
        f"36 35 {number} / /a\\040b rw,noatime master:1 shared:2 - {kind} server:/data rw,errors=continue\n"
    )
    monkeypatch.setattr(module, "_MOUNTS", listing)
    assert on_network(tmp_path) == network


def test_where_file_systems_are_not_listed_a_folder_is_this_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOUNTS", tmp_path / "nothing")
    assert not on_network(tmp_path)
