"""The spiking network's own gradients, estimated in every way that the field knows; the maximum counts.

A defence that only spoils one estimator's gradients falls to another (Carlini et al. 2019; Xu et al. 2022 and Lun et
al. 2025 show how much an attack on a spiking network hangs on its surrogate). All run under one sound optimiser, so
that against ``direct``, which follows the gradients of "own", the optimiser's part and the gradient's part can be told
apart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field, field_validator
from torch import Tensor

from leakbench.attacks.search import Best, Model, SearchParams, search
from leakbench.contracts import Access, Attack, Context, Victim
from leakbench.snn import Neuron, RateNetwork, SpikingConfig, SpikingNetwork, Surrogate

# Surrogates by name, widths in units of the threshold: narrow ones follow the spikes, wide ones always say something.
SURROGATES: Mapping[str, Surrogate] = {
    "triangle-.5": Surrogate("triangle", 0.5),
    "triangle-1": Surrogate("triangle", 1.0),
    "triangle-2": Surrogate("triangle", 2.0),
    "fast_sigmoid-.2": Surrogate("fast_sigmoid", 0.2),
    "fast_sigmoid-1": Surrogate("fast_sigmoid", 1.0),
    "arctan-.5": Surrogate("arctan", 0.5),
    "arctan-1": Surrogate("arctan", 1.0),
    "rectangle-.5": Surrogate("rectangle", 0.5),
    "rectangle-1": Surrogate("rectangle", 1.0),
    "pdsg": Surrogate("potential"),
}
RATES = {
    "rga": ("rga", Surrogate()),
    "hart-.5": ("hart", Surrogate("triangle", 0.5)),
    "hart-1": ("hart", Surrogate("triangle", 1.0)),
    "hart-2": ("hart", Surrogate("triangle", 2.0)),
}
_TRIED = 10
"""images at most that an estimator is tried on"""
ESTIMATORS = ("own", *SURROGATES, "current", *RATES)
"""own: the victim's surrogate as it is; current: constant current in place of spikes, the encoder's expectation"""


class ZooParams(SearchParams):
    """Which estimators, how they are tried, and the optimiser that all of them share."""

    iterations: int = Field(80, ge=2, description="Adam steps of a finalist")
    restarts: int = Field(1, ge=1, description="starts of each finalist")
    estimators: str = Field(
        "all", min_length=1, description=f"all, or some of them with commas: {', '.join(ESTIMATORS)}"
    )
    trial: int = Field(25, ge=1, description="Adam steps of every estimator on a few images, to find the finalists")
    finalists: int = Field(
        2, ge=1, description="estimators that are run in full, best first by the victim's confidence"
    )
    encodings: int = Field(1, ge=1, description="K: encodings whose gradients are averaged each step (EOT)")
    steps: int = Field(16, ge=1, description="time steps at most over which gradients are taken; confidence is at all")

    @field_validator("estimators")
    @classmethod
    def _known(cls, value: str) -> str:
        unknown = [] if value == "all" else [name for name in value.split(",") if name not in ESTIMATORS]
        if unknown:
            raise ValueError(f"no estimator is named {unknown[0]!r}: all, or some of {', '.join(ESTIMATORS)}")
        return value


class SurrogateZoo(Attack[ZooParams]):
    """Inversion through the spiking network itself, by the best of many gradient estimators."""

    name = "surrogate_zoo"
    needs = Access.WEIGHTS
    effort = "iterations"
    cites = (
        "surrogates: Neftci et al. 2019; EOT: Athalye et al., ICML 2018; RGA: Bu et al., CVPR 2023; HART: Hao et al., "
        "ICLR 2024; PDSG: Lun et al., CVPR 2025"
    )
    presets: ClassVar = {"quick": {"iterations": 40, "trial": 10}}

    def run(self, victim: Victim, targets: Tensor, context: Context) -> Tensor:
        params, network = self.params, victim.network
        best = Best(victim, targets, context, params.confidence_draws)
        if not isinstance(network, SpikingNetwork):
            # nothing is estimated where nothing spikes
            self._attack(network, "exact", 250, victim, targets, best, context)
            return best.images
        network.reseed(context.seed())
        models = {name: self._model(name, network, context) for name in self._names(network)}
        chosen = self._finalists(models, network, victim, targets, context)
        for name in chosen:
            self._attack(models[name], name, self._size(name, network), victim, targets, best, context)
        best.report()
        return best.images

    def _names(self, network: SpikingNetwork) -> list[str]:
        if self.params.estimators != "all":
            return self.params.estimators.split(",")
        # one of the surrogates may be the victim's own
        return [name for name in ESTIMATORS if SURROGATES.get(name) != network.config.neuron.surrogate]

    def _finalists(
        self, models: Mapping[str, Model], network: SpikingNetwork, victim: Victim, targets: Tensor, context: Context
    ) -> list[str]:
        params = self.params
        if len(models) <= params.finalists:
            return list(models)
        # spread over the targets, which come sorted by class
        few = targets[torch.linspace(0, len(targets) - 1, min(_TRIED, len(targets))).long()]
        short = params.model_copy(update={"iterations": params.trial})
        reached: dict[str, float] = {}
        for name, model in models.items():
            title, size = f"surrogate_zoo: trying {name}", self._size(name, network)
            images = search(model, few, victim.image_shape, context, short, title, size)
            trial = Best(victim, few, context, params.confidence_draws)
            reached[name] = float(trial.offer(images, name).mean())
            context.finding(f"confidence on trial, {name}", reached[name])
        return sorted(reached, key=lambda name: -reached[name])[: params.finalists]

    def _attack(
        self, model: Model, name: str, size: int, victim: Victim, targets: Tensor, best: Best, context: Context
    ) -> None:
        reached = torch.zeros(len(targets), device=targets.device)
        for restart in range(self.params.restarts):
            title = f"surrogate_zoo: {name}, restart {restart + 1} of {self.params.restarts}"
            images = search(model, targets, victim.image_shape, context, self.params, title, size)
            reached = torch.maximum(reached, best.offer(images, name))
        context.finding(f"confidence, {name}", float(reached.mean()))

    def _size(self, name: str, network: SpikingNetwork) -> int:
        """Images at once: through time, as many as need no recomputing on the way back."""
        return 100 if name in RATES else max(8, min(100, self._shortened(network).batch_in_memory()))

    def _shortened(self, network: SpikingNetwork) -> SpikingNetwork:
        steps = min(self.params.steps, network.config.timesteps)
        return network.configured(dataclasses.replace(network.config, timesteps=steps))

    def _model(self, name: str, network: SpikingNetwork, context: Context) -> Model:
        """The network with this estimator's gradient, the mean over K encodings where it draws any."""
        model, config = self._shortened(network), self._shortened(network).config
        seeded: SpikingNetwork | RateNetwork = model
        if name in RATES:
            kind, surrogate = RATES[name]
            seeded = RateNetwork(model, kind, surrogate)  # type: ignore[arg-type]
        elif name == "current":
            seeded = network.configured(dataclasses.replace(config, encoder="direct"))
        elif name != "own":
            neuron: Neuron = dataclasses.replace(config.neuron, surrogate=SURROGATES[name])
            seeded = network.configured(SpikingConfig(config.timesteps, config.encoder, neuron))
        encodings = self.params.encodings if config.encoder == "poisson" and name != "current" else 1
        return lambda images: torch.stack([seeded(images, seed=context.seed()) for _ in range(encodings)]).mean(0)
