"""Protocols: named, frozen sets of everything but the defence that a published number rests on.

Numbers of one protocol may stand in one table. A protocol never changes: what would change one needs another name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from leakbench.errors import UnknownName


@dataclass(frozen=True)
class Protocol:
    """What a run must be for its numbers to bear the name."""

    name: str
    summary: str
    dataset: str
    fingerprint: str
    """of the data: :func:`leakbench.data.dataset.fingerprint`"""
    model: str
    preset: Literal["quick", "standard", "paper-cpu", "paper"]
    timesteps: int
    seeds: int
    images_per_class: int
    null_networks: int
    attacks: Mapping[str, int]
    """name -> version of the attacks that must be run; others may be, too: more attacks only find more"""
    stages: Mapping[str, int]
    """name -> version of the steps that make ANNs, evaluation models and measurements"""

    @property
    def options(self) -> dict[str, Any]:
        """Of ``leakbench run``, where they are not given."""
        return {
            "dataset": (self.dataset,),
            "attack": tuple(self.attacks),
            "preset": self.preset,
            "seeds": self.seeds,
        }


_STAGES = {
    "ann": 2, "victim": 2, "utility": 3, "attack": 3,
    "outliers": 1, "judge": 4, "ensemble": 3, "anchor": 3, "predictions": 2, "budget": 1,
}  # fmt: skip
PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="leakbench-v2-digits",
            summary="the 8x8 digits, four networks, T = 32, the recommended ensemble",
            dataset="digits",
            fingerprint="459dc6dfbcb9980ff6b626d53331b9bd196282ce74a65e3586e135a82c3fe650",
            model="vgg4",
            preset="standard",
            timesteps=32,
            seeds=4,
            images_per_class=10,
            null_networks=20,
            attacks={"auto-v2": 5, "repaired": 1, "pruned": 1, "distilled": 2},
            stages=_STAGES,
        ),
        Protocol(
            name="leakbench-v2-fashion",
            summary="Fashion-MNIST, four networks, T = 64, the recommended ensemble",
            dataset="fashion-mnist",
            fingerprint="4d1b8e925dba2e7e68a9ec4f798d476ba35500664deb2929dbc824e67fb538a8",
            model="vgg5",
            preset="standard",
            timesteps=64,
            seeds=4,
            images_per_class=10,
            null_networks=20,
            attacks={"auto-v2": 5, "repaired": 1, "pruned": 1, "distilled": 2},
            stages=_STAGES,
        ),
    )
}


def protocol_named(name: str) -> Protocol:
    """The protocol of that name; UnknownName where there is none."""
    if name not in PROTOCOLS:
        raise UnknownName("protocol", name, list(PROTOCOLS))
    return PROTOCOLS[name]
