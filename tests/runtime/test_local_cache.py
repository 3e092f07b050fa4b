"""Copies of a shared store's artifacts on a disk of this machine."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from store_samples import INPUTS, KEY, Builder, content, everything_in, folder_of, same

from leakbench.errors import StoreError
from leakbench.runtime import store as store_module
from leakbench.runtime.artifact import Content
from leakbench.runtime.store import Store
from leakbench.runtime.workspace import Settings, Stage, Workspace


@pytest.fixture
def shared(tmp_path: Path) -> Store:
    """The store, as a machine has it that keeps no copies."""
    return Store(tmp_path / "shared")


@pytest.fixture
def local(tmp_path: Path) -> Path:
    return tmp_path / "local"


def files(store: Store) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder_of(store).iterdir()}


def refuse() -> Content:
    raise AssertionError("it is there")


def flip_last_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 128
    path.write_bytes(data)


# --- reading and writing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("made", ["here", "elsewhere"])
def test_the_second_read_touches_nothing_of_the_shared_store(shared: Store, local: Path, made: str) -> None:
    if made == "elsewhere":
        shared.get_or_make("victim", 1, INPUTS, Builder())
    here = Store(shared.root, {}, local)
    assert same(here.get_or_make("victim", 1, INPUTS, refuse if made == "elsewhere" else Builder()))
    assert files(Store(local)) == files(shared)
    shutil.rmtree(shared.root / "objects")
    shutil.rmtree(shared.root / "locks")
    for one in (here, Store(shared.root, {}, local)):
        assert same(one.get_or_make("victim", 1, INPUTS, refuse))
        read = one.read(KEY)
        assert read is not None and same(read)
    assert not everything_in(shared)


def test_a_copy_is_of_what_was_there_first(
    shared: Store, local: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    here = Store(shared.root, {}, local)
    monkeypatch.setattr(here._locks, "held", Store(local)._locks.held)  # as if both had got the key

    def build() -> Content:
        shared.get_or_make("victim", 1, INPUTS, lambda: ({}, {"by": "the other"}))
        return content()

    assert here.get_or_make("victim", 1, INPUTS, build).record == {"by": "the other"}
    read = here.read(KEY)
    assert read is not None and read.record == {"by": "the other"}
    assert files(Store(local)) == files(shared)
    assert not caplog.records


def test_states_of_interrupted_stages_are_in_the_shared_store(shared: Store, local: Path) -> None:
    with Store(shared.root, {}, local).state(KEY) as folder:
        assert folder is not None and folder.is_relative_to(shared.root)


def test_copies_are_removed_by_themselves(shared: Store, local: Path) -> None:
    Store(shared.root, {}, local).get_or_make("victim", 1, INPUTS, Builder())
    assert [entry.stage for entry in Store(local).entries()] == ["victim"]
    assert Store(local).prune(0)[0] == 1
    assert not everything_in(Store(local))
    assert same(Store(shared.root, {}, local).get_or_make("victim", 1, INPUTS, refuse))
    assert files(Store(local)) == files(shared)


# --- damage ------------------------------------------------------------------------------------------------------


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("part", ["tensors.safetensors", "record.json", "manifest.json"])
@pytest.mark.parametrize("damage", [flip_last_bit, Path.unlink, pipe])
def test_a_damaged_copy_is_read_from_the_shared_store_again(
    shared: Store, local: Path, caplog: pytest.LogCaptureFixture, part: str, damage: Callable[[Path], object]
) -> None:
    here = Store(shared.root, {}, local)
    here.get_or_make("victim", 1, INPUTS, Builder())
    damage(folder_of(Store(local)) / part)
    assert same(here.get_or_make("victim", 1, INPUTS, refuse))
    (warning,) = caplog.records
    assert f"damaged copy of artifact {KEY[:12]}" in warning.getMessage() and str(shared.root) in warning.getMessage()
    assert len(warning.getMessage().splitlines()) == 1
    caplog.clear()
    assert files(Store(local)) == files(shared)
    assert same(here.get_or_make("victim", 1, INPUTS, refuse))
    assert not caplog.records


def test_a_damaged_artifact_is_built_again_and_its_copy_is_replaced(
    shared: Store, local: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here, build = Store(shared.root, {}, local), Builder()
    here.get_or_make("victim", 1, INPUTS, build)
    flip_last_bit(folder_of(shared) / "record.json")
    assert same(here.get_or_make("victim", 1, INPUTS, refuse))  # the copy is good
    flip_last_bit(folder_of(Store(local)) / "record.json")
    assert same(here.get_or_make("victim", 1, INPUTS, build))
    assert build.calls == 2
    assert ["copy" in record.getMessage() for record in caplog.records] == [True, False]
    caplog.clear()
    assert files(Store(local)) == files(shared)
    assert same(shared.get_or_make("victim", 1, INPUTS, refuse))
    assert same(here.get_or_make("victim", 1, INPUTS, refuse))
    assert not caplog.records


def test_a_local_disk_that_is_full_is_said_once_and_costs_no_artifact(
    shared: Store, local: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    here, write = Store(shared.root, {}, local), store_module.write_synced
    here.get_or_make("victim", 1, {"seed": 7}, Builder())

    def full(path: Path, data: bytes) -> None:
        if path.is_relative_to(local):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, data)

    monkeypatch.setattr(store_module, "write_synced", full)
    for seed in (1, 2):
        assert same(here.get_or_make("victim", 1, {"seed": seed}, Builder()))
        assert same(here.get_or_make("victim", 1, {"seed": seed}, refuse))
    (warning,) = caplog.records
    assert str(local) in warning.getMessage() and "No space left on device" in warning.getMessage()
    assert len(everything_in(Store(local))) == 3
    shutil.rmtree(shared.root / "objects")
    assert same(here.get_or_make("victim", 1, {"seed": 7}, refuse))  # what is there is still read


# --- where it is -------------------------------------------------------------------------------------------------


def test_a_local_cache_that_cannot_be_used_is_one_line(shared: Store, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for wrong in (tmp_path / "file" / "cache", shared.root, shared.root / ".." / shared.root.name):
        with pytest.raises(StoreError, match="--local-cache") as caught:
            Store(shared.root, {}, wrong)
        assert str(wrong) in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_stages_keep_copies_where_the_settings_say(tmp_path: Path, local: Path) -> None:
    settings = Settings(cache=str(tmp_path / "shared"), local_cache=str(local))
    made = Workspace(settings, lambda *_: None).make(Stage("victim", 1), 3, {}, lambda _context: content())
    assert [entry.key for entry in Store(local).entries()] == [made.key]
