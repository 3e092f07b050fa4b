"""Attack scenario 2 of PrivateSNN: gradients through the spiking network itself (Algorithm 3)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from leakbench.attacks.search import GradientWatch
from leakbench.contracts import (
    Access,
    Attack,
    AttackContext,
    ImageClassifier,
    ModuleNetwork,
    Params,
    State,
    Variables,
    Victim,
)
from leakbench.snn import SpikingNetwork

Simulate = Callable[[Tensor, int, int], Tensor]
"""(images [B, C, H, W], seed, index of the first of them) -> logits [B, classes] under that seed's noise"""


class DirectParams(Params):
    """Algorithm 3's parameters. The paper gives no N: the ascent ends where the victim's confidence stops rising."""

    iterations: int = Field(
        2000,
        ge=1,
        description="steps at most; on two cores 200 (standard), 100 (paper-cpu) or 40 (quick)",
    )
    zeta: float = Field(0.01, gt=0, description="step size, in the network's input range")
    patience: int = Field(
        30,
        ge=1,
        description="stop when the victim's confidence, mean over all images, rose and then did not for so long",
    )
    rise: float = Field(0.005, ge=0, lt=1, description="what counts as a rise of the confidence, mean over all images")


class Direct(Attack[DirectParams]):
    """Paper attack 2: surrogate gradients at the first layer, deconvolved with its weights (Algorithm 3)."""

    name = "direct"
    needs = Access.WEIGHTS
    version = 4
    effort = "iterations"
    cites = "Kim, Venkatesha, Panda: PrivateSNN, AAAI 2022, Algorithm 3; Sharmin et al., ECCV 2020"
    presets: ClassVar = {
        "quick": {"iterations": 40},
        "standard": {"iterations": 200},
        "paper-cpu": {"iterations": 100},
    }

    def run(self, victim: Victim, targets: Tensor, context: AttackContext) -> Tensor:
        params, network = self.params, victim.network
        simulate = _detached(network)
        # As many at once as need no recomputing on the way back. Images do not depend on it: noise is drawn by their
        # index, and all of them stop together.
        size = network.batch_in_memory() if isinstance(network, SpikingNetwork) else 100
        # One factor 1/scale leads to the input range, one back to images. Logits are in the ANN's scale: theta_(L-1),
        # the product of the unit-spike network's thresholds, times Algorithm 3's u_L(T) / T; where a network's readout
        # is no mean, times what it makes of one.
        unit = 1.0
        if isinstance(network, SpikingNetwork):
            unit = float(network.neurons[-1].unit.max()) * network.config.readout.gain(network.passes)
        step_size = params.zeta / network.input_range.scale**2 / unit
        start = torch.rand(len(targets), *victim.image_shape, generator=context.generator).to(context.device)
        ascending, watch, ascent = Variables(x=start), GradientWatch(), _Ascent(start, params.patience, params.rise)
        for step in context.steps(params.iterations, self.name, ascending=ascending, watch=watch, ascent=ascent):
            confidence, gradient = _confidence_and_gradient(simulate, ascending.x, targets, context.seed(), size)
            watch.see(gradient)
            if step == 0:
                ascent.first = float((step_size * gradient).square().mean().sqrt())
            over = ascent.ends(ascending.x, step, confidence)
            context.snapshot(ascent.images)
            if over:
                break
            ascending.x = (ascending.x + step_size * gradient).clamp(0, 1)
        else:
            # what the last step led to, which no further step looks at
            confidence, _ = _confidence_and_gradient(simulate, ascending.x, targets, context.seed(), size)
            ascent.ends(ascending.x, params.iterations, confidence)
        watch.check(self.name)
        # gradients grow with T, some power of it: where the first step is as long as the images' range, all pixels jump
        # between black and white, and little is said of the network
        context.finding("first step, root mean square over pixels (images are from 0 to 1)", ascent.first)
        context.finding("N: steps to the highest mean confidence", ascent.best_step)
        context.finding("mean confidence after N steps", ascent.best)
        context.finding("ended by the limit on steps (1) or for want of a rise (0)", float(not ascent.over))
        return ascent.images


class _Ascent:
    """The victim's mean confidence over the steps, and the images where it was highest.

    Algorithm 3 puts out x after N steps. N is where the confidence was highest: the steps after it only showed that it
    had stopped rising, and with a fixed step size the confidence swings by some hundredths there. N is one number for
    all images, so nothing is chosen image by image.
    """

    def __init__(self, start: Tensor, patience: int, rise: float) -> None:
        self._patience, self._rise = patience, rise
        self._mark, self._marked = 0.0, 0
        self.best, self.best_step = -1.0, 0
        self.first = 0.0
        """root mean square of the first step"""
        self.images = start
        self.over = False

    def state(self) -> State:
        numbers = [self._mark, self._marked, self.best, self.best_step, self.over, self.first]
        return {"images": self.images, "numbers": torch.tensor(numbers, dtype=torch.float64)}

    def restore(self, state: State) -> None:
        self._mark, marked, self.best, best_step, over, self.first = state["numbers"].tolist()
        self._marked, self.best_step, self.over = int(marked), int(best_step), bool(over)
        self.images = state["images"].to(self.images.device)

    def ends(self, images: Tensor, step: int, confidence: float) -> bool:
        """Whether the ascent is over after ``step`` steps, which led to ``images`` and this mean confidence.

        The noise of step 0 is no outcome, whatever the victim takes it for.
        """
        if confidence > self.best or self.best_step == 0:
            self.best, self.best_step, self.images = confidence, step, images
        if step == 0 or confidence > self._mark + self._rise:
            self._mark, self._marked = confidence, step
        # what has not risen yet has not stopped rising: networks that are silent on noise have to be woken first
        self.over = 0 < self._marked <= step - self._patience
        return self.over


def _detached(network: SpikingNetwork | ImageClassifier) -> Simulate:
    """``network`` with the reset left out of its gradients, as in the authors' code, whatever its own setting is.

    With the reset in the gradient, its norm falls by orders of magnitude from layer to layer, and steps of a fixed size
    lead nowhere.
    """
    if not isinstance(network, SpikingNetwork):
        seeded = isinstance(network, ModuleNetwork)
        return lambda images, seed, _first: network(images, seed) if seeded else network(images)
    neuron = dataclasses.replace(network.config.neuron, detach_reset=True)
    return network.configured(dataclasses.replace(network.config, neuron=neuron))


def _confidence_and_gradient(
    simulate: Simulate, x: Tensor, targets: Tensor, seed: int, size: int
) -> tuple[float, Tensor]:
    """Mean probability of ``targets`` [N] for the images ``x`` [N, C, H, W], and the gradient of their logits there.

    Deconvolving G = sum_t dy_c/dI_1(t) / T with W_1 is the gradient that passes straight through the Poisson encoder.
    Algorithm 3's y_c is u_L(T), T times a mean over time, which takes the place of 1/T.
    """
    total, gradients = 0.0, []
    for number, (images, wanted) in enumerate(zip(x.split(size), targets[:, None].split(size), strict=True)):
        images = images.detach().requires_grad_()
        logits = simulate(images, seed, number * size)
        gradients += torch.autograd.grad(logits.gather(1, wanted).sum(), images)
        total += float(logits.detach().softmax(1).gather(1, wanted).sum())
    return total / len(x), torch.cat(gradients)
