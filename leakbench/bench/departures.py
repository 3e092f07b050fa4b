"""Whether a grid follows a protocol, and where it departs from one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from leakbench import registry
from leakbench.bench.grid import SIZES, GridConfig, default_model, default_timesteps
from leakbench.bench.protocols import PROTOCOLS, Protocol
from leakbench.bench.stages.ann import ANN
from leakbench.bench.stages.attack import ATTACK
from leakbench.bench.stages.utility import UTILITY
from leakbench.bench.stages.victim import VICTIM
from leakbench.data import base_name
from leakbench.leakage import compared_kind


def protocol_of(config: GridConfig, fingerprints: Mapping[str, str]) -> str:
    """Name of the protocol that a grid follows, by data set -> fingerprint; empty where it follows none."""
    return next((name for name, one in PROTOCOLS.items() if not any(departures(one, config, fingerprints))), "")


def departures(protocol: Protocol, config: GridConfig, fingerprints: Mapping[str, str]) -> Iterator[str]:
    """Why a grid does not follow the protocol, each in a few words; none where it does.

    ``fingerprints`` are of the data sets that were read, by name; of others nothing is said.
    """
    sizes = SIZES[config.preset]
    dataset = config.dataset[0]
    models = config.model or (default_model(dataset, config.preset),)
    wanted_and_given: dict[str, tuple[Any, Any]] = {
        "suite": (None, config.suite),
        "dataset": (protocol.dataset, ", ".join(config.dataset)),
        "model": (protocol.model, ", ".join(models)),
        "preset": (protocol.preset, config.preset),
        "timesteps": (
            str(protocol.timesteps),
            ", ".join(map(str, config.timesteps or (default_timesteps(dataset, models[0], config.preset),))),
        ),
        "seeds": (protocol.seeds, config.seeds),
        "images-per-class": (protocol.images_per_class, config.images_per_class or sizes.images_per_class),
        "classes": (None, config.classes),
        "null-networks": (
            protocol.null_networks,
            sizes.null_networks if config.null_networks is None else config.null_networks,
        ),
        "controls": (True, config.controls),
        "precision": ("float32", config.precision or sizes.precision),
        "public": (None, config.public),
        "ann": (None, config.ann),
        "judges": (None, config.judges),
    }
    for option, (wanted, given) in wanted_and_given.items():
        if wanted != given:
            yield f"--{option} {_text(given)}, not {_text(wanted)}"
    attacks = {one for name in config.attack for one in registry.together("attack", name)}
    if absent := [name for name in protocol.attacks if name not in attacks]:
        yield f"--attack lacks {', '.join(absent)}"
    for name, version in protocol.attacks.items():
        if name in attacks and registry.load("attack", name).version != version:
            yield f"{name} in version {registry.load('attack', name).version}, not {version}"
        if settings := [key for key in config.set if key.partition(".")[0] == name]:
            yield f"--set {', '.join(settings)}"
    kind = compared_kind()
    controls = sorted({key.partition(".")[0] for key in config.set} & {*kind.controls, *kind.nulls})
    if controls:
        yield f"--set of the controls {', '.join(controls)}"
    found = fingerprints.get(protocol.dataset, protocol.fingerprint)
    if base_name(dataset) == protocol.dataset and found != protocol.fingerprint:
        yield f"other data: fingerprint {found[:12]}, not {protocol.fingerprint[:12]}"
    current = stage_versions()
    for name, version in protocol.stages.items():
        if current[name] != version:
            yield f"this LeakBench computes {name} in version {current[name]}, not {version}"


def stage_versions() -> dict[str, int]:
    """Name -> version of the steps behind the numbers of a protocol, in this LeakBench."""
    return {stage.name: stage.version for stage in (ANN, VICTIM, UTILITY, ATTACK, *compared_kind().stages)}


def _text(value: Any) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
