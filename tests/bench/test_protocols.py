"""Protocols: frozen, and only what follows one bears its name."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import pytest

from leakbench import registry
from leakbench.bench import departures as conformance
from leakbench.bench.departures import departures, protocol_of, stage_versions
from leakbench.bench.grid import GridConfig, make_config
from leakbench.bench.protocols import PROTOCOLS, protocol_named
from leakbench.data import availability, load_dataset
from leakbench.errors import UnknownName

DIGITS = PROTOCOLS["leakbench-v2-digits"]
FROZEN = {
    "leakbench-v2-digits": "792407bf572a34fb",
    "leakbench-v2-fashion": "5031c52e807461d5",
}


def config(**given: Any) -> GridConfig:
    return make_config({**DIGITS.options, "defense": ("privatesnn",), **given})


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_never_changes(name: str) -> None:
    text = json.dumps(dataclasses.asdict(PROTOCOLS[name]) | {"summary": ""}, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert FROZEN[name] == digest, f"{name} has changed: give the new one another name ({digest})"


@pytest.mark.parametrize("name", PROTOCOLS)
def test_its_own_options_follow_it(name: str) -> None:
    """Else no number of this LeakBench can bear its name: a changed default or stage needs a protocol of its own."""
    protocol = PROTOCOLS[name]
    grid = make_config({**protocol.options, "defense": ("han2020", "privatesnn"), "set": {"privatesnn.epochs": (1, 2)}})
    assert list(departures(protocol, grid, {protocol.dataset: protocol.fingerprint})) == []
    assert protocol_of(grid, {protocol.dataset: protocol.fingerprint}) == name


@pytest.mark.parametrize("name", PROTOCOLS)
def test_its_data_are_those_that_are_read(name: str) -> None:
    protocol = PROTOCOLS[name]
    if not next((place.available for place in availability() if place.name == protocol.dataset), True):
        pytest.skip(f"{protocol.dataset} is not here")
    assert load_dataset(protocol.dataset, None).fingerprint == protocol.fingerprint


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"seeds": 3}, "--seeds 3, not 4"),
        ({"preset": "quick"}, "--preset quick, not standard"),
        ({"timesteps": (16,)}, "--timesteps 16, not 32"),
        ({"timesteps": (16, 32)}, "--timesteps 16, 32, not 32"),
        ({"images_per_class": 4}, "--images-per-class 4, not 10"),
        ({"classes": 5}, "--classes 5, not none"),
        ({"null_networks": 6}, "--null-networks 6, not 20"),
        ({"model": ("vgg5",)}, "--model vgg5, not vgg4"),
        ({"dataset": ("digits", "fashion-mnist")}, "--dataset digits, fashion-mnist, not digits"),
        ({"dataset": ("digits:half",)}, "--dataset digits:half, not digits"),
        ({"attack": ("direct",)}, "--attack lacks auto-v2, repaired, pruned, distilled"),
        ({"attack": ("all",)}, "--attack lacks auto-v2, repaired, pruned, distilled"),
        ({"controls": False}, "--controls false, not true"),
        ({"precision": "bfloat16"}, "--precision bfloat16, not float32"),
        ({"public": "half"}, "--public half, not none"),
        ({"ann": "mine.safetensors"}, "--ann mine.safetensors, not none"),
        ({"judges": "theirs"}, "--judges theirs, not none"),
        ({"set": {"auto-v2.x": (1,)}}, "--set auto-v2.x"),
        ({"set": {"han2020.beta": (0.5,)}}, "--set of the controls han2020"),
        ({"set": {"shuffled.x": (1,), "privatesnn.epochs": (1,)}}, "--set of the controls shuffled"),
    ],
)
def test_what_is_changed_drops_the_name_and_is_said(given: dict[str, Any], why: str) -> None:
    grid = config(**given)
    assert why in list(departures(DIGITS, grid, {}))
    assert protocol_of(grid, {"digits": DIGITS.fingerprint}) == ""


def test_other_data_of_the_same_name_drop_the_name() -> None:
    assert protocol_of(config(), {"digits": "0" * 64}) == ""
    assert list(departures(DIGITS, config(), {"digits": "0" * 64})) == [
        "other data: fingerprint 000000000000, not 459dc6dfbcb9"
    ]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_its_attacks_have_no_parameters(name: str) -> None:
    """What an entry holds them against."""
    for attack in PROTOCOLS[name].attacks:
        assert registry.load("attack", attack).Params.model_fields == {}


def test_more_attacks_and_metrics_and_what_stands_for_the_newest_follow_it() -> None:
    fingerprints = {"digits": DIGITS.fingerprint}
    assert protocol_of(config(attack=("auto", "direct")), fingerprints) == DIGITS.name
    assert protocol_of(config(timesteps=(32,), model=("vgg4",), images_per_class=10), fingerprints) == DIGITS.name


def test_another_version_of_an_attack_or_a_stage_drops_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    older = dataclasses.replace(DIGITS, attacks={"auto-v2": 1}, stages={**DIGITS.stages, "judge": 2})
    monkeypatch.setattr(conformance, "PROTOCOLS", {older.name: older})
    now = stage_versions()["judge"]
    assert list(departures(older, config(), {})) == [
        "auto-v2 in version 5, not 1",
        f"this LeakBench computes judge in version {now}, not 2",
    ]
    assert protocol_of(config(), {}) == ""


def test_a_name_that_is_none_is_refused_in_one_line() -> None:
    with pytest.raises(UnknownName, match="unknown protocol 'leakbench-v2-digit': did you mean 'leakbench-v2-digits'"):
        protocol_named("leakbench-v2-digit")
