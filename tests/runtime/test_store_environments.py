"""In which environments an artifact, and all that it was made from, was made."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from store_samples import folder_of

from leakbench.runtime.artifact import Artifact, Content
from leakbench.runtime.store import Store

A, B, C = {"python": "3.11", "processor": "a"}, {"python": "3.11", "processor": "b"}, {"python": "3.12"}


def nothing() -> Content:
    return {}, {}


def make(store: Store, name: str, build: Callable[[], Content] = nothing, *parents: Artifact) -> Artifact:
    return store.get_or_make("stage", 1, {"name": name}, build, parents)


def test_an_artifact_says_where_it_was_made(tmp_path: Path) -> None:
    artifact = make(Store(tmp_path, A), "one")
    assert artifact.environments == (A,)
    manifest = json.loads((folder_of(Store(tmp_path)) / "manifest.json").read_text())
    assert (manifest["made_by"], manifest["environments"]) == (A, [A])


def test_who_reads_an_artifact_is_not_who_made_it(tmp_path: Path) -> None:
    key = make(Store(tmp_path, A), "one").key
    other = Store(tmp_path, B)
    assert make(other, "one").key == key  # no part of the key
    assert make(other, "one").environments == (A,)
    read = other.read(key)
    assert read is not None and read.environments == (A,)


def test_without_an_environment_there_is_an_empty_one(tmp_path: Path) -> None:
    assert make(Store(tmp_path), "one").environments == ({},)


def test_parents_environments_come_after_its_own_each_once(tmp_path: Path) -> None:
    first, second = make(Store(tmp_path, A), "first"), make(Store(tmp_path, B), "second")
    store = Store(tmp_path, A)
    child = make(store, "child", nothing, second, first, second)
    assert child.environments == (A, B)
    grandchild = make(Store(tmp_path, C), "grandchild", nothing, child)
    assert grandchild.environments == (C, A, B)
    assert make(Store(tmp_path, B), "grandchild").environments == (C, A, B)


@pytest.mark.parametrize("how", ["made", "found", "read"])
def test_what_a_build_takes_from_the_store_is_behind_its_artifact(tmp_path: Path, how: str) -> None:
    below = make(Store(tmp_path, A), "below")
    if how != "made":
        make(Store(tmp_path, B), "inner", nothing, below)
    store = Store(tmp_path, C)

    def build() -> Content:
        if how == "read":
            assert store.read(make(Store(tmp_path), "inner").key) is not None
        else:
            make(store, "inner", nothing, below)
        return {}, {}

    assert make(store, "outer", build).environments == ((C, A) if how == "made" else (C, B, A))


def test_what_is_taken_deep_inside_reaches_the_outermost_build(tmp_path: Path) -> None:
    make(Store(tmp_path, A), "deep")
    store = Store(tmp_path, B)

    def inner() -> Content:
        make(store, "deep")
        return {}, {}

    def outer() -> Content:
        make(store, "inner", inner)
        return {}, {}

    assert make(store, "outer", outer).environments == (B, A)
    assert make(store, "beside").environments == (B,)  # what other builds took is none of its business


def test_a_build_that_fails_leaves_nothing_behind_for_the_next(tmp_path: Path) -> None:
    make(Store(tmp_path, A), "deep")
    store = Store(tmp_path, B)

    def fails() -> Content:
        make(store, "deep")
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        make(store, "one", fails)
    assert make(store, "two").environments == (B,)


def test_what_other_threads_take_meanwhile_is_not_behind_it(tmp_path: Path) -> None:
    make(Store(tmp_path, A), "deep")
    store = Store(tmp_path, B)

    def build() -> Content:
        other = threading.Thread(target=lambda: make(store, "deep"))
        other.start()
        other.join(60)
        return {}, {}

    assert make(store, "one", build).environments == (B,)
