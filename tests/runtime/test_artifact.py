"""Keys of artifacts: what is in them and what is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from store_samples import INPUTS, Builder, folder_of

from leakbench.errors import StoreError
from leakbench.metrics.estimate import Estimate
from leakbench.runtime.artifact import ArtifactRecord, artifact_key
from leakbench.runtime.store import Store


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


@pytest.mark.parametrize(
    "inputs",
    [
        {"pair": (1, 2.0), "nested": [((3,),)]},
        {"whole": 1, "fraction": 1.0, "yes": True, "negative zero": -0.0, "small": 5e-324, "large": 10**30},
        {"numbers": {10: "ten", 9: "nine"}},  # names sort otherwise than numbers
        {"text": "é\u2028\ud83d\ude00", "pair of surrogates": "\ud83d" + "\ude00", "lone": "\udc80"},
    ],
)
def test_a_key_is_the_same_after_its_inputs_went_through_a_file(tmp_path: Path, inputs: dict[str, Any]) -> None:
    store, build = Store(tmp_path / "cache"), Builder()
    key = store.get_or_make("victim", 1, inputs, build).key
    assert store.get_or_make("victim", 1, inputs, build).key == key
    assert build.calls == 1
    manifest = json.loads((folder_of(store) / "manifest.json").read_text())
    assert artifact_key("victim", 1, manifest["inputs"]) == key == artifact_key("victim", 1, inputs)


def test_whole_numbers_and_fractions_are_different_inputs() -> None:
    assert artifact_key("victim", 1, {"rate": 1}) != artifact_key("victim", 1, {"rate": 1.0})


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_is_no_number_is_no_input(number: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        artifact_key("victim", 1, {"rate": number})


class Kept(ArtifactRecord):
    """What a stage keeps."""

    rate: Estimate
    shares: dict[str, float]


def test_a_record_comes_back_as_it_was_kept(tmp_path: Path) -> None:
    kept = Kept(rate=Estimate(0.25, n=4), shares={"b": 1.0, "a": 0.1})
    artifact = Store(tmp_path).get_or_make("stage", 1, {}, lambda: ({}, kept.model_dump()))
    read = Kept.read(artifact)
    assert read.shares == kept.shares
    assert (read.rate.value, read.rate.n) == (0.25, 4)
    assert read.rate.low != read.rate.low  # NaN, as it was


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"rate": {"value": 1.0}}, "shares: Field required"),
        ({"rate": {"value": "much"}, "shares": {}}, "rate.value: Input should be a valid number"),
        ({"rate": {"value": 1.0}, "shares": {}, "more": 1}, "more: Extra inputs are not permitted"),
    ],
)
def test_a_record_of_another_layout_is_named(tmp_path: Path, record: dict[str, Any], words: str) -> None:
    artifact = Store(tmp_path).get_or_make("stage", 1, {}, lambda: ({}, record))
    with pytest.raises(StoreError, match=f"the record of artifact {artifact.key[:12]} is no Kept: {words}"):
        Kept.read(artifact)
