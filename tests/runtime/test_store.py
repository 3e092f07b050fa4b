"""The store: round trips, sharing, full disks."""

from __future__ import annotations

import ast
import errno
import functools
import itertools
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from store_samples import INPUTS, KEY, Builder, NoLock, at_first_call, content, everything_in, folder_of, same

from leakbench.errors import StoreError
from leakbench.runtime import locks as locks_module
from leakbench.runtime import store as store_module
from leakbench.runtime.artifact import Content
from leakbench.runtime.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


# --- round trips -------------------------------------------------------------------------------------------------


def test_what_is_made_is_read_again_bit_for_bit_and_built_once(store: Store) -> None:
    build = Builder()
    made = store.get_or_make("victim", 1, INPUTS, build)
    again = Store(store.root).get_or_make("victim", 1, INPUTS, build)
    read = store.read(made.key)
    assert build.calls == 1
    assert read is not None
    assert same(made) and same(again) and same(read)


def test_what_was_just_made_is_in_the_order_and_layout_in_which_it_is_read(store: Store) -> None:
    """Else a run that computes and a run that reads could differ in the last digit."""
    made = store.get_or_make("victim", 1, INPUTS, lambda: (content()[0], {"b": 1, "a": {"d": 2, "c": 3}}))
    read = store.read(made.key)
    assert read is not None
    assert list(made.tensors) == list(read.tensors) == sorted(content()[0])
    assert {k: v.stride() for k, v in made.tensors.items()} == {k: v.stride() for k, v in read.tensors.items()}
    assert json.dumps(made.record) == json.dumps(read.record)


def test_others_may_read_what_the_user_lets_them(store: Store) -> None:
    mask = os.umask(0o022)
    try:
        store.get_or_make("victim", 1, INPUTS, Builder())
    finally:
        os.umask(mask)
    assert folder_of(store).stat().st_mode & 0o777 == 0o755
    assert {file.stat().st_mode & 0o777 for file in folder_of(store).iterdir()} == {0o644}


def test_what_was_never_made_is_none(store: Store) -> None:
    assert store.read(KEY) is None


def test_tensors_that_share_memory_and_that_track_gradients_are_kept(store: Store) -> None:
    images = torch.rand(4, 2)
    parts = {"first": images[:2], "second": images[2:], "whole": images, "trained": torch.ones(2, requires_grad=True)}
    key = store.get_or_make("shared-halves", 1, INPUTS, lambda: (parts, {})).key
    read = store.read(key)
    assert read is not None
    for name, tensor in parts.items():
        assert torch.equal(read.tensors[name], tensor)


def test_nothing_is_pickled(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("pickled")

    for name in ("dump", "dumps", "load", "loads", "Pickler", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    for name in ("save", "load"):
        monkeypatch.setattr(torch, name, refuse)
    store.get_or_make("victim", 1, INPUTS, Builder())
    assert same(store.get_or_make("victim", 1, INPUTS, Builder()))
    folder = folder_of(store)
    assert sorted(file.name for file in folder.iterdir()) == ["manifest.json", "record.json", "tensors.safetensors"]
    with safe_open(folder / "tensors.safetensors", "pt") as file:
        assert set(file.keys()) == set(content()[0])
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["stage"], manifest["version"], manifest["inputs"]) == ("victim", 1, INPUTS)
    assert json.loads((folder / "record.json").read_text()) == content()[1]


# --- sharing -----------------------------------------------------------------------------------------------------

HELPED = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "helpers")}
BUILDS = """
import sys, time
from pathlib import Path
import torch
from store_samples import NoLock, Refused
from leakbench.runtime import locks
from leakbench.runtime.store import Store

root, builds, ready, go = map(Path, sys.argv[1:5])
if sys.argv[5] == "locks are refused":
    locks.FileLock = Refused
if sys.argv[5] == "everyone gets the lock, on a network":
    locks.FileLock, locks.on_network = NoLock, lambda folder: True

def build():
    with builds.open("a") as file:
        file.write("built\\n")
    time.sleep(0.3)
    return {"x": torch.arange(5)}, {"n": 5}

store = Store(root)
ready.touch()
while not go.exists():
    time.sleep(0.001)
print(store.get_or_make("stage", 1, {"seed": 0}, build).tensors["x"].tolist())
"""


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("locks", ["locks work", "locks are refused", "everyone gets the lock, on a network"])
def test_two_processes_that_need_one_artifact_build_it_once(tmp_path: Path, locks: str) -> None:
    builds, go = tmp_path / "builds", tmp_path / "go"
    ready = [tmp_path / "ready-0", tmp_path / "ready-1"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", BUILDS, str(tmp_path / "cache"), str(builds), str(one), str(go), locks],
            stdout=subprocess.PIPE,
            text=True,
            env=HELPED,
        )
        for one in ready
    ]
    while not all(one.exists() for one in ready):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)
    go.touch()
    assert [process.communicate()[0].strip() for process in processes] == ["[0, 1, 2, 3, 4]"] * 2
    assert [process.returncode for process in processes] == [0, 0]
    assert builds.read_text().splitlines() == ["built"]


def test_different_artifacts_do_not_wait_for_each_other(store: Store) -> None:
    inside, leave = threading.Event(), threading.Event()

    def slow() -> Content:
        inside.set()
        assert leave.wait(60)
        return content()

    other = Store(store.root)
    thread = threading.Thread(target=lambda: other.get_or_make("victim", 1, {"seed": 1}, slow))
    thread.start()
    assert inside.wait(60)
    assert same(store.get_or_make("victim", 1, {"seed": 2}, Builder()))  # would hang if one lock held all
    leave.set()
    thread.join(60)
    assert not thread.is_alive()


# --- sharing where everyone gets the lock ------------------------------------------------------------------------

UNLOCKED = """
import sys, time
from pathlib import Path
import torch
from store_samples import NoLock
from leakbench.runtime import locks
from leakbench.runtime.store import Store

locks.FileLock = NoLock
root, ready, go = map(Path, sys.argv[1:])
store = Store(root)
ready.touch()
while not go.exists():
    time.sleep(0.001)
for n in range(60):
    artifact = store.get_or_make("stage", 1, {"n": n}, lambda: ({"x": torch.full((1000,), n)}, {"n": n}))
    assert artifact.record == {"n": n} and artifact.tensors["x"].tolist() == [n] * 1000
"""


@pytest.mark.long
@pytest.mark.slow
def test_runs_that_build_the_same_at_once_all_get_it(tmp_path: Path) -> None:
    go, ready = tmp_path / "go", [tmp_path / f"ready-{n}" for n in range(4)]
    root = tmp_path / "cache"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", UNLOCKED, str(root), str(one), str(go)],
            stderr=subprocess.PIPE,
            text=True,
            env=HELPED,
        )
        for one in ready
    ]
    while not all(one.exists() for one in ready):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)
    go.touch()
    assert [process.communicate()[1] for process in processes] == [""] * 4  # no error and no warning of damage
    assert [process.returncode for process in processes] == [0] * 4
    assert {entry.stage for entry in Store(root).entries()} == {"stage"}
    assert len(list(Store(root).entries())) == 60


@pytest.mark.parametrize("when", ["before its first file", "before it is renamed"])
def test_who_loses_the_rename_takes_what_the_winner_left(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, when: str
) -> None:
    monkeypatch.setattr(locks_module, "FileLock", NoLock)
    other = Store(store.root)

    def wins() -> None:
        other.get_or_make("victim", 1, INPUTS, lambda: ({}, {"by": "the other"}))

    def build() -> Content:
        if when == "before its first file":
            wins()
        return content()

    if when == "before its first file":
        made = store.get_or_make("victim", 1, INPUTS, build)
    else:  # the other one takes what this one has written so far for a leftover, too
        with at_first_call(monkeypatch, store_module, "write_synced", wins):
            made = store.get_or_make("victim", 1, INPUTS, build)
    assert made.record == {"by": "the other"}
    assert [entry.stage for entry in store.entries()] == ["victim"]
    assert not caplog.records


# --- what goes wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()])
def test_a_build_that_raises_leaves_nothing_and_can_be_repeated(store: Store, error: BaseException) -> None:
    def fails() -> Content:
        raise error

    with pytest.raises(type(error)):
        store.get_or_make("victim", 1, INPUTS, fails)
    assert not everything_in(store)
    assert not list(store.entries())
    assert same(store.get_or_make("victim", 1, INPUTS, Builder()))


@pytest.mark.parametrize("file_number", [1, 2, 3])
def test_a_full_disk_is_one_line_and_leaves_no_half_artifact(
    store: Store, monkeypatch: pytest.MonkeyPatch, file_number: int
) -> None:
    write, written = store_module.write_synced, [0]

    def full(path: Path, data: bytes) -> None:
        written[0] += 1
        if written[0] == file_number:
            path.write_bytes(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, data)

    monkeypatch.setattr(store_module, "write_synced", full)
    with pytest.raises(StoreError) as caught:
        store.get_or_make("victim", 1, INPUTS, Builder())
    assert len(str(caught.value).splitlines()) == 1
    assert "No space left on device" in str(caught.value)
    assert str(store.root) in str(caught.value)
    assert not everything_in(store)
    monkeypatch.undo()
    build = Builder()
    assert same(store.get_or_make("victim", 1, INPUTS, build))
    assert build.calls == 1


def test_a_disk_that_fails_when_synced_keeps_the_artifact_out(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(StoreError, match="Input/output error"):
        store.get_or_make("victim", 1, INPUTS, Builder())
    assert not everything_in(store)


OPERATIONS = ("mkdir", "fsync", "rename", "unlink", "rmdir")


def run_and_kill(root: Path, operation: int) -> bool:
    """Makes the artifact in a process that is killed as it comes to its n-th operation on the disk; whether it was."""
    child = os.fork()
    if child == 0:
        left = itertools.count(operation - 1, -1)

        def counted(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            if next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        for name in OPERATIONS:
            setattr(os, name, functools.partial(counted, getattr(os, name)))
        try:
            Store(root).get_or_make("victim", 1, INPUTS, Builder())
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("before", ["nothing", "damaged"])
def test_a_run_that_is_killed_anywhere_does_not_hinder_the_next(tmp_path: Path, before: str) -> None:
    operation = killed = 1
    while killed:
        store = Store(tmp_path / str(operation))
        if before == "damaged":
            store.get_or_make("victim", 1, INPUTS, Builder())
            (folder_of(store) / "record.json").write_text("{}")
        killed = run_and_kill(store.root, operation)
        assert same(store.get_or_make("victim", 1, INPUTS, Builder()))
        assert [entry.stage for entry in store.entries()] == ["victim"]
        operation += 1
    assert operation > 7  # objects, locks, shard, folder, three files, rename


def test_a_lock_that_cannot_be_written_is_one_line(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    class Denied(NoLock):
        def __enter__(self) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(locks_module, "FileLock", Denied)
    with pytest.raises(StoreError, match=r"can't write to the cache at .*: Permission denied"):
        store.get_or_make("victim", 1, INPUTS, Builder())


@pytest.mark.parametrize("below", ["file", "file/cache"])
def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError) as caught:
        Store(tmp_path / below)
    assert len(str(caught.value).splitlines()) == 1
    assert str(tmp_path / below) in str(caught.value)
    assert "--cache" in str(caught.value)


@pytest.mark.slow
def test_the_module_needs_no_pickle() -> None:
    """The whole source: no artifact is written or read by anything that can run code."""
    root = Path(store_module.__file__).parents[1]
    words = ("import pickle", "from pickle", "import joblib", "torch.save(", "import shelve", "import dill")
    plugins = (root.parent / name for name in ("attacks", "defenses", "reports"))
    paths = [path for folder in (root, *plugins) for path in folder.rglob("*.py")]
    assert len(paths) > 60
    for path in paths:
        text = path.read_text(encoding="utf-8")
        # what a run's own processes say to each other, over pipes or over Ray, is in no file
        if path.name not in ("executors.py", "ray_actors.py", "ray_cluster.py"):
            assert not [word for word in words if word in text], path
        for call in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)):
            if ast.unparse(call.func) == "torch.load":
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
                assert given.get("weights_only") == "True", f"{path}:{call.lineno}"
