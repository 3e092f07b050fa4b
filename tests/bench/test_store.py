"""The store: keys, round trips, damage, sharing, full disks, housekeeping."""

from __future__ import annotations

import ast
import errno
import hashlib
import json
import logging
import os
import pickle
import shutil
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

from leakbench.bench import store as store_module
from leakbench.bench.store import Artifact, Content, Store, artifact_key
from leakbench.errors import StoreError

INPUTS = {"plugin": "mine", "params": {"steps": 3, "rate": 0.5}, "ann": "ab" * 32, "seed": 0}
DAY = 86400


def content() -> Content:
    tensors = {
        "images": torch.arange(24, dtype=torch.uint8).reshape(2, 3, 2, 2),
        "scores": torch.tensor([[0.1, -0.0], [float("inf"), 1e-40]]),
        "labels": torch.tensor([1, -7]),
        "seen": torch.tensor([True, False]),
        "none": torch.zeros(0, 3),
        "one": torch.tensor(2.5),
        "turned": torch.arange(6.0).reshape(2, 3).t(),
    }
    return tensors, {"accuracy": {"value": 0.1 + 0.2, "n": 7}, "names": ["é", "\n"], "nothing": None}


class Builder:
    """Builds the content and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> Content:
        self.calls += 1
        return content()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def folder_of(store: Store) -> Path:
    (folder,) = (store.root / "objects").glob("??/*")
    return folder


def everything_in(store: Store) -> list[Path]:
    return [path for path in (store.root / "objects").rglob("*") if path.is_file()]


def same(artifact: Artifact) -> bool:
    tensors, record = content()
    return (
        artifact.record == record
        and artifact.tensors.keys() == tensors.keys()
        and all(
            artifact.tensors[name].dtype == tensor.dtype
            and artifact.tensors[name].shape == tensor.shape
            and bytes(artifact.tensors[name].contiguous().numpy().data) == bytes(tensor.contiguous().numpy().data)
            for name, tensor in tensors.items()
        )
    )


# --- keys --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        ("protect", 1, INPUTS),
        ("victim", 2, INPUTS),
        ("victim", 1, {**INPUTS, "plugin": "other"}),
        ("victim", 1, {**INPUTS, "params": {"steps": 4, "rate": 0.5}}),
        ("victim", 1, {**INPUTS, "params": {"steps": 3, "rate": 0.5000000000000001}}),
        ("victim", 1, {**INPUTS, "params": {"steps": 3}}),
        ("victim", 1, {**INPUTS, "params": {"steps": "3", "rate": 0.5}}),
        ("victim", 1, {**INPUTS, "ann": "ac" * 32}),
        ("victim", 1, {**INPUTS, "seed": 1}),
        ("victim", 1, {**INPUTS, "seed": None}),
        ("victim", 1, {**INPUTS, "more": 0}),
    ],
)
def test_the_key_changes_with_every_ingredient(other: tuple[str, int, dict[str, Any]]) -> None:
    assert artifact_key(*other) != artifact_key("victim", 1, INPUTS)


def test_the_key_does_not_depend_on_the_order_of_names_nor_on_where_the_store_is(tmp_path: Path) -> None:
    turned = dict(reversed(list(INPUTS.items())))
    keys = {Store(tmp_path / name).get_or_make("victim", 1, turned, Builder()).key for name in ("a", "b")}
    assert keys == {artifact_key("victim", 1, INPUTS)}
    assert keys.pop().isalnum()


# --- round trips -------------------------------------------------------------------------------------------------


def test_what_is_made_is_read_again_bit_for_bit_and_built_once(store: Store) -> None:
    build = Builder()
    made = store.get_or_make("victim", 1, INPUTS, build)
    again = Store(store.root).get_or_make("victim", 1, INPUTS, build)
    read = store.read(made.key)
    assert build.calls == 1
    assert read is not None
    assert same(made) and same(again) and same(read)


def test_what_was_never_made_is_none(store: Store) -> None:
    assert store.read(artifact_key("victim", 1, INPUTS)) is None


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


# --- damage ------------------------------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_first_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


def flip_last_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 128
    path.write_bytes(data)


def garbage(path: Path) -> None:
    path.write_bytes(bytes(range(256)))


PARTS = ("tensors.safetensors", "record.json", "manifest.json")


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("damage", [truncate, empty, flip_first_bit, flip_last_bit, garbage, Path.unlink])
def test_a_damaged_artifact_is_built_again_with_a_warning(
    store: Store, caplog: pytest.LogCaptureFixture, part: str, damage: Callable[[Path], object]
) -> None:
    build = Builder()
    store.get_or_make("victim", 1, INPUTS, build)
    damage(folder_of(store) / part)
    caplog.clear()
    again = store.get_or_make("victim", 1, INPUTS, build)
    assert same(again)
    assert build.calls == 2
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    assert again.key[:12] in warning.getMessage()
    assert len(warning.getMessage().splitlines()) == 1
    caplog.clear()
    assert same(store.get_or_make("victim", 1, INPUTS, build))  # mended: read from now on, without a word
    assert build.calls == 2
    assert not caplog.records


@pytest.mark.parametrize(
    "manifest", ["[]", "null", "7", '"sha256"', "{}", '{"sha256": 3}', '{"sha256": []}', '{"sha256": {}}', "\ufeff{}"]
)
def test_json_that_is_no_manifest_counts_as_damage(
    store: Store, caplog: pytest.LogCaptureFixture, manifest: str
) -> None:
    build = Builder()
    store.get_or_make("victim", 1, INPUTS, build)
    (folder_of(store) / "manifest.json").write_text(manifest, encoding="utf-8")
    assert same(store.get_or_make("victim", 1, INPUTS, build))
    assert build.calls == 2
    assert "damaged" in caplog.text


def test_a_pickle_with_a_fitting_hash_is_damage_and_is_not_run(store: Store, tmp_path: Path) -> None:
    trace = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(trace),))

    build = Builder()
    store.get_or_make("victim", 1, INPUTS, build)
    folder = folder_of(store)
    payload = pickle.dumps(Bomb())
    (folder / "tensors.safetensors").write_bytes(payload)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"]["tensors.safetensors"] = hashlib.sha256(payload).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert same(store.get_or_make("victim", 1, INPUTS, build))
    assert build.calls == 2
    assert not trace.exists()


def test_what_a_killed_run_left_half_written_is_no_artifact(store: Store) -> None:
    build = Builder()
    made = store.get_or_make("victim", 1, INPUTS, build)
    folder = folder_of(store)
    unfinished = folder.with_name(".making-x")
    shutil.move(folder, unfinished)
    (unfinished / "manifest.json").unlink()
    assert store.read(made.key) is None
    assert [entry.stage for entry in store.entries()] == ["(unfinished)"]
    assert same(store.get_or_make("victim", 1, INPUTS, build))
    assert build.calls == 2


# --- sharing -----------------------------------------------------------------------------------------------------

BUILDS = """
import sys, time
from pathlib import Path
import torch
from leakbench.bench.store import Store

root, builds, ready, go = map(Path, sys.argv[1:])

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


def test_two_processes_that_need_one_artifact_build_it_once(tmp_path: Path) -> None:
    builds, go = tmp_path / "builds", tmp_path / "go"
    ready = [tmp_path / "ready-0", tmp_path / "ready-1"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", BUILDS, str(tmp_path / "cache"), str(builds), str(one), str(go)],
            stdout=subprocess.PIPE,
            text=True,
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


@pytest.mark.parametrize("below", ["file", "file/cache"])
def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError) as caught:
        Store(tmp_path / below)
    assert len(str(caught.value).splitlines()) == 1
    assert str(tmp_path / below) in str(caught.value)
    assert "--cache" in str(caught.value)


# --- housekeeping ------------------------------------------------------------------------------------------------


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


def test_the_module_needs_no_pickle() -> None:
    """The whole source: no artifact is written or read by anything that can run code."""
    root = Path(store_module.__file__).parents[1]
    words = ("import pickle", "from pickle", "import joblib", "torch.save(", "import shelve", "import dill")
    plugins = (root.parent / name for name in ("attacks", "defenses", "reports"))
    paths = [path for folder in (root, *plugins) for path in folder.rglob("*.py")]
    assert len(paths) > 60
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert not [word for word in words if word in text], path
        for call in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)):
            if ast.unparse(call.func) == "torch.load":
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
                assert given.get("weights_only") == "True", f"{path}:{call.lineno}"
