"""Damaged artifacts: whatever lies where an artifact should is noticed, said once, and replaced."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from store_samples import INPUTS, KEY, Builder, Refused, at_first_call, content, folder_of, same, within_a_minute

from leakbench.runtime import artifact as artifact_module
from leakbench.runtime import locks as locks_module
from leakbench.runtime.artifact import Artifact
from leakbench.runtime.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


# --- altered files -----------------------------------------------------------------------------------------------


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
    manifest["sizes"]["tensors.safetensors"] = len(payload)
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


# --- other things than files and folders -------------------------------------------------------------------------


def pipe(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    (path / "below").mkdir(parents=True)


def looping_link(path: Path) -> None:
    path.symlink_to(path.name)


def dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def link_to_a_pipe(path: Path) -> None:
    target = Path.cwd() / "a pipe"
    os.mkfifo(target)
    path.symlink_to(target)


def endless_device(path: Path) -> None:
    try:
        os.mknod(path, 0o020644, os.makedev(1, 5))  # /dev/zero
    except PermissionError:
        pytest.skip("only the superuser makes devices")


def unix_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # addresses are short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("s")
    finally:
        os.chdir(here)
    (path.parent / "s").rename(path)


def deep_json(path: Path) -> None:
    path.write_text('{"a":' * 100_000 + "1" + "}" * 100_000)


def sparse_file(path: Path) -> None:
    """More than there is memory, on next to no disk."""
    path.touch()
    os.truncate(path, 2**43)


THINGS = [
    pipe, folder, looping_link, dangling_link, link_to_a_pipe, endless_device, unix_socket, deep_json, sparse_file,
]  # fmt: skip


def put(thing: Callable[[Path], None], path: Path) -> None:
    """Puts a thing in the place of a file or folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    thing(path)


@pytest.mark.parametrize("place", [*PARTS, ".", ".."])
@pytest.mark.parametrize("thing", THINGS)
def test_whatever_lies_in_an_artifacts_place_is_replaced(
    store: Store, caplog: pytest.LogCaptureFixture, thing: Callable[[Path], None], place: str
) -> None:
    """In the place of a file of it, of its folder (.) and of the folder of its key's first two digits (..)."""
    if thing is folder and place in (".", ".."):
        pytest.skip("a folder belongs there")
    build = Builder()
    store.get_or_make("victim", 1, INPUTS, build)
    put(thing, Path(os.path.normpath(folder_of(store) / place)))
    artifacts: list[Artifact] = []
    within_a_minute(lambda: artifacts.append(Store(store.root).get_or_make("victim", 1, INPUTS, build)))
    assert same(artifacts[0])
    assert build.calls == 2
    (warning,) = caplog.records
    assert "damaged artifact" in warning.getMessage()
    assert len(warning.getMessage().splitlines()) == 1
    caplog.clear()
    assert same(Store(store.root).get_or_make("victim", 1, INPUTS, build))  # and it is mended for good
    assert build.calls == 2
    assert not caplog.records
    assert [entry.stage for entry in store.entries()] == ["victim"]


@pytest.mark.parametrize("place", [f"{KEY}.lock", f"{KEY}.lease"])
@pytest.mark.parametrize("thing", THINGS)
def test_whatever_lies_in_a_locks_place_is_replaced(
    store: Store, monkeypatch: pytest.MonkeyPatch, thing: Callable[[Path], None], place: str
) -> None:
    if place.endswith(".lease"):
        if thing in (deep_json, sparse_file):
            pytest.skip("a file is a lease, whatever is in it")
        monkeypatch.setattr(locks_module, "FileLock", Refused)
    put(thing, store.root / "locks" / place)
    artifacts: list[Artifact] = []
    within_a_minute(lambda: artifacts.append(store.get_or_make("victim", 1, INPUTS, Builder())))
    assert same(artifacts[0])
    left = {path.name for path in (store.root / "locks").iterdir()}
    assert left == ({f"{KEY}.lock"} if place.endswith(".lock") else {"leases"})


def test_an_artifact_behind_a_link_is_not_taken(store: Store, tmp_path: Path) -> None:
    """What lies elsewhere changes without notice, and is not the store's to remove."""
    build = Builder()
    store.get_or_make("victim", 1, INPUTS, build)
    here, elsewhere = folder_of(store), tmp_path / "elsewhere"
    shutil.move(here, elsewhere)
    here.symlink_to(elsewhere)
    assert same(store.get_or_make("victim", 1, INPUTS, build))
    assert build.calls == 2
    assert not folder_of(store).is_symlink()
    assert len(list(elsewhere.iterdir())) == 3


# --- what fits its hashes and is still wrong ---------------------------------------------------------------------


def test_two_artifacts_that_were_swapped_are_both_built_again(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    def built(n: int) -> Artifact:
        return store.get_or_make("victim", 1, {"n": n}, lambda: ({}, {"n": n}))

    one, two = (store.root / "objects" / built(n).key[:2] / built(n).key for n in (1, 2))
    one.rename(store.root / "third")
    two.rename(one)
    (store.root / "third").rename(two)
    caplog.clear()
    assert [built(n).record["n"] for n in (1, 2)] == [1, 2]
    assert ["another artifact" in record.getMessage() for record in caplog.records] == [True, True]
    caplog.clear()
    assert [built(n).record["n"] for n in (1, 2)] == [1, 2]
    assert not caplog.records


def rewrite(store: Store, **changes: Any) -> None:
    """Change a manifest."""
    path = folder_of(store) / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 1}, {"format": 2.5}, {"format": None}, {"stage": "other"}, {"stage": 3}, {"version": 2},
        {"version": "1"}, {"version": True}, {"version": 1.0}, {"inputs": {}}, {"inputs": []}, {"inputs": "x"},
        {"inputs": {**INPUTS, "seed": 0.0}}, {"inputs": {**INPUTS, "seed": float("nan")}},
        {"inputs": {**INPUTS, "seed": float("-inf")}}, {"made_by": []}, {"made_by": {"a": 1}},
        {"made_by": {"python": "another"}}, {"environments": {}}, {"environments": []}, {"environments": [[]]},
        {"environments": [{"python": 3}]}, {"environments": [{"python": "another"}]}, {"sizes": {}}, {"sizes": 3},
        {"sizes": {"tensors.safetensors": 2**70, "record.json": -1}}, {"sha256": {}}, {"more": 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_manifest_that_says_something_else_is_damage(
    store: Store, caplog: pytest.LogCaptureFixture, changes: dict[str, Any]
) -> None:
    build = Builder()
    store.get_or_make("victim", 1, INPUTS, build)
    rewrite(store, **changes)
    assert same(store.get_or_make("victim", 1, INPUTS, build))
    assert build.calls == 2
    assert len(caplog.records) == 1


@pytest.mark.parametrize("record", ["[]", "null", "7", '"text"', "{", "\udcff", "[" * 100_000, '{"a":' * 100_000])
def test_a_record_that_is_no_object_is_damage_though_its_hash_fits(
    store: Store, caplog: pytest.LogCaptureFixture, record: str
) -> None:
    build = Builder()
    store.get_or_make("victim", 1, INPUTS, build)
    data = record.encode("utf-8", "surrogateescape")
    (folder_of(store) / "record.json").write_bytes(data)
    manifest = json.loads((folder_of(store) / "manifest.json").read_text())
    manifest["sha256"]["record.json"] = hashlib.sha256(data).hexdigest()
    manifest["sizes"]["record.json"] = len(data)
    rewrite(store, **manifest)
    assert same(store.get_or_make("victim", 1, INPUTS, build))
    assert build.calls == 2
    assert len(caplog.records) == 1


# --- reading beside writing --------------------------------------------------------------------------------------


def test_an_artifact_that_is_replaced_while_it_is_read_is_whole(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store.get_or_make("victim", 1, INPUTS, Builder())
    other = Store(store.root)

    def replace() -> None:
        assert other.prune(0)[0] == 1
        other.get_or_make("victim", 1, INPUTS, lambda: (content()[0], {"by": "the other"}))

    with at_first_call(
        monkeypatch, artifact_module, "read_file", replace
    ):  # the manifest is read, and nothing else yet
        read = store.read(KEY)
    assert read is not None and read.record == {"by": "the other"}
    assert not caplog.records


def test_an_artifact_that_is_removed_while_it_is_read_is_not_there(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store.get_or_make("victim", 1, INPUTS, Builder())
    with at_first_call(monkeypatch, artifact_module, "read_file", lambda: Store(store.root).prune(0)):
        assert store.read(KEY) is None
    assert not caplog.records
