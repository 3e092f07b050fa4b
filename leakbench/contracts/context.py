"""What the framework hands to every plugin call beside its subject."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from leakbench.contracts.data import PublicImages


@dataclass
class Cost:
    """What an attack took, counted by the framework."""

    queries: int = 0
    """images that the victim answered for SCORES or LABELS"""
    gradient_steps: int = 0
    """optimiser steps announced through AttackContext.steps"""
    seconds: float = 0.0


Progress = Callable[[str, int, int], None]
"""(what is being done, steps done, steps in all)"""

Precision = Literal["float32", "tf32", "bfloat16"]
"""what a simulation's convolutions and products are computed in, see :mod:`leakbench.snn.precision`"""

SharedBuild = Callable[[Any], dict[str, Tensor]]
"""(a context of its own: an AttackContext for attacks, a plain one for defences) -> what is shared"""


@dataclass
class Context:
    """What the framework hands to every plugin call; plugins of a kind get more."""

    generator: torch.Generator
    """CPU generator, seeded by what the experiment is; draw on the CPU, then move: the same numbers everywhere"""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    progress: Progress = lambda _what, _done, _total: None
    shared_store: Callable[[str, int, Mapping[str, Any], SharedBuild], dict[str, Tensor]] | None = None
    flips: bool = False
    """whether a mirrored image keeps its class: deployer and attacker both know what the images show"""

    def seed(self) -> int:
        """A fresh 31-bit seed from the generator."""
        return int(torch.randint(2**31 - 1, (1,), generator=self.generator))

    def shared(self, name: str, version: int, params: Mapping[str, Any], build: SharedBuild) -> dict[str, Tensor]:
        """Tensors that several plugins have in common: built once, kept.

        Defences share what is made of one network (the synthetic set), attacks what is made of public images alone.

        ``build`` gets a context of its own, seeded by what is shared and not by whoever asks first.
        """
        if self.shared_store is not None:
            return self.shared_store(name, version, params, build)
        return build(self)


@dataclass
class DefenseContext(Context):
    """What a defence is handed."""

    timesteps: int = 32
    """T at which the spiking network is to be deployed"""
    precision: Precision = "float32"
    """of the spiking network's convolutions"""


@dataclass
class AttackContext(Context):
    """What an attack is handed."""

    cost: Cost = field(default_factory=Cost)
    public: PublicImages | None = None
    """public images, for attacks that say so (``uses_public``)"""
    findings: dict[str, float] = field(default_factory=dict)

    def finding(self, name: str, value: float) -> None:
        """Something measured on the way that the report should show, as in ("images won by rga", 34)."""
        self.findings[name] = float(value)

    def steps(self, total: int, what: str) -> Iterator[int]:
        """``range(total)`` that shows progress and counts optimiser steps towards the cost."""
        for step in range(total):
            self.progress(what, step, total)
            self.cost.gradient_steps += 1
            yield step
        self.progress(what, total, total)
