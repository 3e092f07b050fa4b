"""What the framework hands to every plugin call beside its subject."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from leakbench.contracts.checkpoint import Checkpoint, State, Stopwatch
from leakbench.contracts.cost import Cost
from leakbench.contracts.data import LabeledImages, PublicImages
from leakbench.contracts.loop import Loop, Part, Variables, global_generators
from leakbench.contracts.networks import ImageClassifier
from leakbench.contracts.precision import Precision
from leakbench.contracts.reference import Reference
from leakbench.contracts.snapshots import Snapshots
from leakbench.errors import NumericalError, PluginError

_MOST_FINDINGS = 1000
_LARGEST_FINDING = 1e100  # reports take means and squares of them


class Findings(dict[str, float]):
    """Name -> what was measured on the way."""

    def check(self, plugin: str) -> None:
        """PluginError for more than fit a report, NumericalError for what no mean can hold."""
        if len(self) > _MOST_FINDINGS:
            raise PluginError(f"{plugin} has {len(self)} findings: {_MOST_FINDINGS} at most fit a report")
        for name, value in self.items():
            if not abs(value) <= _LARGEST_FINDING:
                raise NumericalError(f"{plugin} found {value} for {name!r}")

    def state(self) -> State:
        return {"json": torch.frombuffer(bytearray(json.dumps(self).encode()), dtype=torch.uint8)}

    def restore(self, state: State) -> None:
        values = json.loads(bytes(state["json"].tolist()))
        self.clear()
        self.update(values)


Progress = Callable[[str, int, int], None]
"""(what is being done, steps done, steps in all)"""

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
    checkpoints: Callable[[str], Checkpoint] | None = None
    """name -> where a computation of this call keeps its state; None: nowhere"""
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    """of this call, an interrupted run's seconds included"""
    findings: Findings = field(default_factory=Findings)
    _opened: Counter[str] = field(default_factory=Counter)

    def checkpoint(self, name: str) -> Checkpoint:
        """Where a computation keeps its state, so that a run that is interrupted goes on where it stopped.

        ``load`` gives what the interrupted run saved under this name, ``save`` writes now and then. The same code asks
        for the same names in the same order, so a name may come again: each time it is another checkpoint.
        """
        self._opened[name] += 1
        number = self._opened[name]
        return self.checkpoints(name if number == 1 else f"{name} ({number})") if self.checkpoints else Checkpoint()

    def loop(self, name: str) -> Loop:
        """A loop that is resumed, with the random numbers and counters of this context: see :class:`Loop`."""
        return Loop(self.checkpoint(name), self._around())

    def once(self, name: str, compute: Callable[[], Tensor]) -> Tensor:
        """What ``compute`` returns, on the CPU or on this device, as it does: where an interrupted run has computed it,
        it is not called again.
        """
        outcome = Variables(value=torch.empty(0), there=torch.tensor(False))
        for _ in self.loop(name).steps(1, outcome=outcome):
            outcome.value = compute()
            outcome.there = torch.tensor(outcome.value.device.type != "cpu")
        return outcome.value.to(self.device) if outcome.there else outcome.value

    def _around(self) -> dict[str, Part]:
        kept: dict[str, Part] = {"generator": self.generator, "stopwatch": self.stopwatch, "findings": self.findings}
        return {**kept, **global_generators(self.device)}

    def finding(self, name: str, value: float) -> None:
        """Something measured on the way that the report should show, as in ("images won by rga", 34)."""
        self.findings[name] = float(value)

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
    """of the deployed network's convolutions"""


@dataclass
class AttackContext(Context):
    """What an attack is handed."""

    cost: Cost = field(default_factory=Cost)
    public: PublicImages | None = None
    """public images, for attacks that say so (``uses_public``)"""
    victim_noise: torch.Generator | None = None
    """what the victim's answers draw their noise from"""
    student: ImageClassifier | None = None
    """a model of the victim that the attack handed over"""
    snapshots: Snapshots = field(default_factory=lambda: Snapshots(Cost()))
    references: tuple[Reference, ...] = ()
    """networks made as the victim was, for attacks on membership that say so (``uses_references``)"""
    population: LabeledImages | None = None
    """images of the candidates' kind that the victim was not trained on, for attacks on membership that say so
    (``uses_population``)"""
    synthetic: Tensor | None = None
    """images [N, C, H, W] in [0, 1] that the defence synthesised, for attacks on membership that say so
    (``uses_synthetic``)"""

    def snapshot(self, images: Tensor) -> None:
        """Images [N, C, H, W] in [0, 1] that the attack would hand over if it stopped here, one for each target.

        Offered as often as one likes: what is kept is the last within each budget of a fixed ladder
        (:data:`leakbench.contracts.snapshots.LADDER`), from which the leak over the attacker's cost is drawn. It
        changes nothing else.
        """
        self.snapshots.offer(images)

    def part(self, index: Tensor) -> AbstractContextManager[None]:
        """A batch of the targets: what is spent inside counts for those at ``index`` alone, and snapshots are of
        these, in this order. A part of a part is counted within it."""
        return self.snapshots.part(index)

    def apart(self) -> AttackContext:
        """The same context for an attack that is run inside another: what it offers on its way is not kept."""
        return replace(self, snapshots=Snapshots(Cost()))

    def hand_over(self, student: ImageClassifier) -> None:
        """A model of the victim that the attack's images are drawn from.

        How often it answers test images as the victim does is measured afterwards, out of the attack's sight. It
        changes nothing else.
        """
        self.student = student

    def steps(self, total: int, what: str, **parts: Part) -> Iterator[int]:
        """``range(total)`` that shows progress and counts optimiser steps towards the cost.

        With ``parts``, all that the steps change (see :class:`Loop`), it goes on where an interrupted run stopped.
        """
        for step in self.loop(what).steps(total, **parts) if parts else range(total):
            self.progress(what, step, total)
            self.cost.gradient_steps += 1
            yield step
        self.progress(what, total, total)

    def _around(self) -> dict[str, Part]:
        noise = {"victim_noise": self.victim_noise} if self.victim_noise is not None else {}
        counted: dict[str, Part] = {"cost": self.cost, "snapshots": self.snapshots.changes()}
        return {**super()._around(), **counted, **noise}
