"""The spiking network's own gradients, estimated in every way that the field knows; the maximum counts.

A defence that only spoils one estimator's gradients falls to another (Carlini et al. 2019; Xu et al. 2022 and Lun et
al. 2025 show how much an attack on a spiking network depends on its surrogate). Estimators that go back through time
come with the reset in the gradient and without it: in deep networks the two differ by orders of magnitude. All run
under one sound optimiser: ``direct`` follows the gradients of "own-detached", so that the difference between the two is
the optimiser's part.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from functools import partial
from typing import ClassVar

import torch
from pydantic import Field, field_validator
from torch import Tensor

from leakbench.attacks.search import Best, Model, SearchParams, averaged_confidence, search
from leakbench.contracts import Access, Attack, AttackContext, Victim
from leakbench.errors import NoSignal
from leakbench.snn import RateNetwork, SpikingNetwork, Surrogate, relu_network
from leakbench.snn.rate_gradients import Derivative

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
RATES: Mapping[str, tuple[Derivative, Surrogate]] = {
    "rga": ("rga", Surrogate()),
    "hart-.5": ("hart", Surrogate("triangle", 0.5)),
    "hart-1": ("hart", Surrogate("triangle", 1.0)),
    "hart-2": ("hart", Surrogate("triangle", 2.0)),
}
_TRIED = 10
"""images at most that an estimator is tried on"""
THROUGH_TIME = ("own", "eot", *SURROGATES, "current")
"""own: the victim's surrogate as it is; eot: the mean of its gradients over several encodings; current: constant
current in place of spikes, the encoder's expectation"""
RESETS: Mapping[str, bool] = {"-detached": True, "-attached": False}
"""what a name of THROUGH_TIME ends in -> whether the reset is left out of the gradient; as in the victim without it"""
_BOTH = {name + ending: (name, detach) for name, (ending, detach) in itertools.product(THROUGH_TIME, RESETS.items())}
ESTIMATORS = (*THROUGH_TIME, *RATES, *_BOTH)
"""every name that the parameter takes; gradients of rates know no reset"""


_KNOWN = (
    f"{', '.join((*THROUGH_TIME, *RATES))}; all but {', '.join(RATES)} also with -detached or -attached behind the "
    "name, which leaves the reset out of the gradient or in it (all: both)"
)


class ZooParams(SearchParams):
    """Which estimators, how they are tried, and the optimiser that all of them share."""

    iterations: int = Field(80, ge=2, description="Adam steps of a finalist")
    restarts: int = Field(1, ge=1, description="starts of each finalist")
    estimators: str = Field("all", min_length=1, description=f"all, or some of them with + between: {_KNOWN}")
    trial: int = Field(15, ge=1, description="Adam steps of every estimator on a few images, to find the finalists")
    finalists: int = Field(
        2, ge=1, description="estimators that are run in full, best first by the victim's confidence"
    )
    encodings: int = Field(4, ge=2, description="K: encodings whose gradients the estimator eot averages each step")
    steps: int = Field(16, ge=1, description="time steps at most over which gradients are taken; confidence is at all")

    @field_validator("estimators")
    @classmethod
    def _known(cls, value: str) -> str:
        unknown = [] if value == "all" else [name for name in value.split("+") if name not in ESTIMATORS]
        if unknown:
            raise ValueError(f"no estimator is named {unknown[0]!r}: all, or some of {_KNOWN}")
        return value


class SurrogateZoo(Attack[ZooParams]):
    """Inversion through the spiking network itself, by the best of many gradient estimators."""

    name = "surrogate_zoo"
    version = 4
    needs = Access.WEIGHTS
    effort = "iterations"
    cites = (
        "surrogates: Neftci et al. 2019; EOT: Athalye et al., ICML 2018; RGA: Bu et al., CVPR 2023; HART: Hao et al., "
        "ICLR 2024; PDSG: Lun et al., CVPR 2025"
    )
    presets: ClassVar = {"quick": {"iterations": 40, "trial": 6}}

    def run(self, victim: Victim, targets: Tensor, context: AttackContext) -> Tensor:
        params, network = self.params, victim.network
        best = Best(victim, targets, context, params.confidence_draws)
        if not isinstance(network, SpikingNetwork):
            # nothing is estimated where nothing spikes
            self._attack(relu_network(network), "exact", 250, victim, targets, best, context)
            return best.images
        network.reseed(context.seed())
        steps = min(params.steps, network.config.timesteps)
        short = network.configured(dataclasses.replace(network.config, timesteps=steps))
        # through time, as many images at once as need no recomputing on the way back
        size = max(8, min(100, short.batch_in_memory()))
        models = {name: self._model(name, short, context) for name in self._names(network)}
        for name in self._finalists(models, size, victim, targets, context):
            self._attack(models[name], name, size, victim, targets, best, context)
        best.report()
        return best.images

    def _names(self, network: SpikingNetwork) -> list[str]:
        if self.params.estimators != "all":
            return self.params.estimators.split("+")
        neuron = network.config.neuron
        # one of the surrogates may be the victim's own
        through_time = [name for name in THROUGH_TIME if SURROGATES.get(name) != neuron.surrogate]
        # a layer that is one pass over a window of its own has no reset on the way back
        other = "" if neuron.windows else "-attached" if neuron.detach_reset else "-detached"
        return [*through_time, *(name + other for name in through_time if other), *RATES]

    def _finalists(
        self, models: Mapping[str, Model], size: int, victim: Victim, targets: Tensor, context: AttackContext
    ) -> list[str]:
        params = self.params
        if len(models) <= params.finalists:
            return list(models)
        # spread over the targets, which come sorted by class
        few = targets[torch.linspace(0, len(targets) - 1, min(_TRIED, len(targets))).long()]
        trial = params.model_copy(update={"iterations": params.trial})
        reached: dict[str, float] = {}
        for name, model in models.items():
            try:
                images = search(model, few, victim.image_shape, context, trial, f"surrogate_zoo: trying {name}", size)
            except NoSignal:
                continue  # narrow surrogates of a network that is nearly silent: others see more
            ask = partial(averaged_confidence, victim, images, few, context, params.confidence_draws)
            reached[name] = float(context.once(f"surrogate_zoo: confidence of {name}", ask).mean())
            context.finding(f"confidence on trial, {name}", reached[name])
        if not reached:
            raise NoSignal("zero gradients: surrogate_zoo: no estimator had a gradient with respect to the input")
        return sorted(reached, key=lambda name: -reached[name])[: params.finalists]

    def _attack(
        self, model: Model, name: str, size: int, victim: Victim, targets: Tensor, best: Best, context: AttackContext
    ) -> None:
        reached = torch.zeros(len(targets), device=targets.device)
        for restart in range(self.params.restarts):
            title = f"surrogate_zoo: {name}, restart {restart + 1} of {self.params.restarts}"
            images = search(model, targets, victim.image_shape, context, self.params, title, size, best=best)
            reached = torch.maximum(reached, best.offer(images, name))
        context.finding(f"confidence, {name}", float(reached.mean()))

    def _model(self, name: str, network: SpikingNetwork, context: AttackContext) -> Model:
        """``network`` with this estimator's gradient; each call draws another encoding."""
        if name in _BOTH:
            name, detach = _BOTH[name]
            neuron = dataclasses.replace(network.config.neuron, detach_reset=detach)
            network = network.configured(dataclasses.replace(network.config, neuron=neuron))
        config = network.config
        model: SpikingNetwork | RateNetwork = network
        if name in RATES:
            model = RateNetwork(network, *RATES[name])
        elif name == "current":
            model = network.configured(dataclasses.replace(config, encoder="direct"))
        elif name in SURROGATES:
            neuron = dataclasses.replace(config.neuron, surrogate=SURROGATES[name])
            model = network.configured(dataclasses.replace(config, neuron=neuron))
        draws = self.params.encodings if name == "eot" else 1
        return lambda images: torch.stack([model(images, seed=context.seed()) for _ in range(draws)]).mean(0)
