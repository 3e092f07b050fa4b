"""Housekeeping of the store: what it holds, what is removed from it and when."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from store_samples import INPUTS, KEY, Builder, everything_in, same

from leakbench.errors import StoreError
from leakbench.runtime import locks as locks_module
from leakbench.runtime import store as store_module
from leakbench.runtime.artifact import Content
from leakbench.runtime.store import Store

DAY = 86400


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def aged(store: Store, days: float, **inputs: Any) -> str:
    """An artifact that was last used so many days ago."""
    key = store.get_or_make("victim", 1, inputs, Builder()).key
    then = time.time() - days * DAY
    for path in (store.root / "objects" / key[:2] / key).iterdir():
        os.utime(path, (then, then))
    return key


def test_entries_tell_stage_size_and_last_use(store: Store) -> None:
    before = time.time()
    old = aged(store, 10, seed=0)
    new = store.get_or_make("ann", 3, {"seed": 0}, Builder()).key
    found = {entry.key: entry for entry in store.entries()}
    assert found.keys() == {old, new}
    assert (found[old].stage, found[new].stage) == ("victim", "ann")
    for entry in found.values():
        assert entry.bytes == sum(file.stat().st_size for file in entry.path.iterdir()) > 0
    assert found[old].used == pytest.approx(before - 10 * DAY, abs=60)  # s; the file system's resolution and this test
    assert found[new].used >= before - 2  # coarse time stamps lag behind the clock
    (found[new].path / "manifest.json").write_text("{")
    assert {entry.key: entry.stage for entry in store.entries()} == {old: "victim", new: "(damaged)"}


def test_prune_removes_what_was_not_used_and_leaves_the_rest(store: Store) -> None:
    old, older, fresh = aged(store, 31, seed=0), aged(store, 400, seed=1), aged(store, 29, seed=2)
    size = sum(entry.bytes for entry in store.entries() if entry.key in (old, older))
    assert store.prune(30) == (2, size)
    assert [entry.key for entry in store.entries()] == [fresh]
    assert store.read(old) is None
    kept = store.read(fresh)
    assert kept is not None and same(kept)
    assert store.prune(30) == (0, 0)


def test_reading_counts_as_use(store: Store) -> None:
    key = aged(store, 31, seed=0)
    assert store.read(key) is not None
    assert store.prune(30) == (0, 0)
    assert store.read(key) is not None


def test_prune_of_zero_days_removes_everything_damaged_and_unfinished_too(store: Store) -> None:
    aged(store, 1, seed=0)
    damaged = aged(store, 1, seed=1)
    (store.root / "objects" / damaged[:2] / damaged / "manifest.json").write_text("")
    (store.root / "objects" / "00").mkdir(exist_ok=True)
    (store.root / "objects" / "00" / ".making-x").mkdir()
    (store.root / "objects" / "00" / ".making-x" / "record.json").write_text("{}")
    count, size = store.prune(0)
    assert count == 3
    assert size > 0
    assert not list(store.entries())
    assert not everything_in(store)
    assert same(store.get_or_make("victim", 1, {"seed": 0}, Builder()))


def test_prune_beside_a_build_leaves_the_build_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may prune while this one writes: the artifact must arrive all the same."""
    write = store_module.write_synced

    def pruned_meanwhile(path: Path, data: bytes) -> None:
        write(path, data)
        other = threading.Thread(target=lambda: Store(store.root).prune(0))
        other.start()
        other.join()

    monkeypatch.setattr(store_module, "write_synced", pruned_meanwhile)
    made = store.get_or_make("victim", 1, INPUTS, Builder())
    read = store.read(made.key)
    assert read is not None and same(read)


def test_prune_leaves_the_lock_of_a_build_in_place(store: Store) -> None:
    """Else a third run would take a new lock of the same name and build the artifact a second time."""
    inside, leave = threading.Event(), threading.Event()
    build = Builder()

    def slow() -> Content:
        inside.set()
        assert leave.wait(60)
        return build()

    first = threading.Thread(target=lambda: Store(store.root).get_or_make("victim", 1, INPUTS, slow))
    first.start()
    assert inside.wait(60)
    Store(store.root).prune(0)
    second = threading.Thread(target=lambda: Store(store.root).get_or_make("victim", 1, INPUTS, build))
    second.start()
    second.join(0.5)  # it can't end before the first one, whose lock it waits for
    leave.set()
    first.join(60)
    second.join(60)
    assert build.calls == 1


def test_prune_leaves_alone_what_is_not_the_stores(store: Store) -> None:
    """Such as the objects of a Git repository that somebody names as cache."""
    foreign = [store.root / "objects" / name for name in (f"ab/{'c' * 38}", "pack/x", "ab/notes.txt", "info")]
    foreign += [store.root / "locks" / "mine.lock"]
    for path in foreign:
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
        os.utime(path, (0, 0))
    assert not list(store.entries())
    assert store.prune(0) == (0, 0)
    assert all(path.exists() for path in foreign)


# --- what killed runs left ---------------------------------------------------------------------------------------

LEFT = (f".making-{KEY}-0a", f".removing-{KEY}-0b", f"{KEY}.part")


def leave(store: Store, days: float, shard: str = KEY[:2]) -> list[Path]:
    """What killed runs left so many days ago: folders and a file."""
    paths = [store.root / "objects" / shard / name for name in LEFT]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        if path.suffix == ".part":
            path.write_text("half")
        else:
            path.mkdir()
            (path / "record.json").write_text("{")
        os.utime(path, (time.time() - days * DAY,) * 2)
    return paths


def test_leftovers_are_removed_when_the_same_is_made_again(store: Store) -> None:
    leave(store, 0)
    other = store.root / "objects" / KEY[:2] / f".making-{KEY[:2] + 'f' * 62}-0a"
    other.mkdir()  # somebody may be writing it
    assert same(store.get_or_make("victim", 1, INPUTS, Builder()))
    assert {path.name for path in other.parent.iterdir()} == {KEY, other.name}


def test_old_leftovers_are_removed_when_a_store_is_opened(store: Store) -> None:
    old, fresh = leave(store, 2, "00"), leave(store, 0, "01")
    damaged_shard = store.root / "objects" / ".removing-02-0c"
    damaged_shard.write_text("")
    os.utime(damaged_shard, (0, 0))
    Store(store.root)
    assert not any(path.exists() for path in [*old, damaged_shard])
    assert all(path.exists() for path in fresh)


def test_a_leftover_whose_lock_is_held_is_none(store: Store) -> None:
    paths = leave(store, 2)
    with FileLock(store.root / "locks" / f"{KEY}.lock"):
        Store(store.root)
        assert store.prune(0) == (0, 0)
    assert all(path.exists() for path in paths)


def test_leftovers_are_listed_and_pruned(store: Store) -> None:
    leave(store, 0)
    assert [entry.stage for entry in store.entries()] == ["(unfinished)"] * 3
    assert store.prune(0)[0] == 3
    assert not list(store.entries())


# --- caches that may only be read --------------------------------------------------------------------------------


@contextmanager
def read_only(root: Path) -> Iterator[None]:
    """Nobody may write below a folder, the superuser neither."""
    folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        for path in folders:
            path.chmod(0o755)


@pytest.mark.parametrize("network", [False, True])
def test_a_cache_that_may_only_be_read_is_good_for_reading(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, network: bool
) -> None:
    with tempfile.TemporaryDirectory() as name:  # all may enter it, unlike the tests' own folders
        Path(name).chmod(0o755)
        store = Store(Path(name) / "cache")
        store.get_or_make("victim", 1, INPUTS, Builder())
        (leftover,) = leave(store, 2)[:1]
        build = Builder()
        monkeypatch.setattr(locks_module, "on_network", lambda _folder: network)
        with read_only(store.root):
            again = Store(store.root)
            assert same(again.get_or_make("victim", 1, INPUTS, build))
            assert sorted(entry.stage for entry in again.entries()) == ["(unfinished)"] * 3 + ["victim"]
            assert again.prune(0) == (0, 0)
            with pytest.raises(StoreError, match="can't write to the cache") as caught:
                again.get_or_make("victim", 1, {"seed": 5}, build)
        assert str(store.root) in str(caught.value)
        assert build.calls == 0  # what can't be kept is not computed first
        assert leftover.exists()
        assert not caplog.records


def test_what_is_done_alone_is_done_one_after_the_other_and_where_nothing_can_be_locked_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = Store(tmp_path), Store(tmp_path)
    name = "record in /tmp/M\udcfcller"  # a path that is no UTF-8
    key = hashlib.sha256(os.fsencode(name)).hexdigest()
    with store.alone(name), pytest.raises(TimeoutError), other._locks.held(key, wait=False):
        raise AssertionError("two at once")

    def refused(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(store._locks, "held", refused)
    done = []
    with store.alone(name):
        done.append(1)
    assert done


def test_no_state_is_kept_behind_a_link(store: Store, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with store.state(KEY) as folder:
        assert folder is not None
    folder.rmdir()
    folder.symlink_to(elsewhere)
    with store.state(KEY) as behind:
        assert behind is None
    assert elsewhere.exists()
