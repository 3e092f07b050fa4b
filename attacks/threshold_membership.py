"""Membership among the images that a conversion found its thresholds on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from leakbench.contracts import Access, AttackContext, MembershipAttack, Params, Rows, Victim
from leakbench.errors import NotApplicable
from leakbench.snn import LIF, SpikingNetwork

_BATCH = 64
_EQUAL = 1e-5
"""of a threshold: inputs as near count as equal, for sums are rounded otherwise in another batch"""
_TAIL = 0.05
"""of the candidates: those whose largest inputs show how the tail of all such inputs falls off"""


class ThresholdParams(Params):
    """How often candidates are simulated."""

    draws: int = Field(8, ge=1, le=1000, description="simulations of a candidate, whose encoder noise differs")
    share: float = Field(
        1.0, gt=0, le=10, description="of the maxima that the conversion takes as thresholds: beta of han2020"
    )
    steps: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="over which the conversion found its thresholds, its calibration_steps; none: the network's T",
    )


class ThresholdMembership(MembershipAttack[ThresholdParams]):
    """Scores an image by how likely a layer's threshold is its largest input, and that none of its inputs is above it.

    A threshold that is the maximum over the calibration images (Spike-Norm, RMP) is one image's own number, to the last
    digit where the input is a constant current. An image whose inputs exceed it was not there. With encoder noise both
    are probabilities. Where thresholds can't be such maxima, as most candidates have inputs above them in some layer,
    the highest activations of the ReLU network take the inputs' place, if thresholds can be maxima of these (Diehl
    2015); they have no noise. Under other rules (percentiles, least error) it is a guess, and most images tell little:
    it finds few of many calibration images, and those for certain.
    """

    name = "threshold_membership"
    version = 5
    needs = Access.WEIGHTS
    effort = "draws"
    asks_of = "conversion"
    cites = "LeakBench; of maxima over training images as thresholds: Sengupta et al. 2019, Han et al. 2020"

    def run(self, victim: Victim, candidates: Tensor, labels: Tensor, context: AttackContext) -> Tensor:  # noqa: ARG002
        network = victim.network
        if not isinstance(network, SpikingNetwork):
            raise NotApplicable("threshold_membership needs a spiking victim: this one has no thresholds")
        draws = self.params.draws if network.config.encoder == "poisson" else 1
        seeds = [context.seed() for _ in range(draws)]
        what, rows = "comparing inputs with thresholds", Rows()
        layers = network.neurons
        activations = _highest_activations(network, candidates)
        for number in context.loop(what).steps(len(layers), rows=rows):
            context.progress(what, number, len(layers))
            layer = layers[number]
            simulated = (_highest(network, layer, candidates, seed, self.params.steps) for seed in seeds)
            maxima = layer.threshold.detach().double().cpu().flatten() / self.params.share
            of_inputs = _scored(torch.stack([*simulated]), maxima)
            # activations are in units of the threshold
            of_activations = _scored(activations[number][None], torch.full_like(maxima, 1 / self.params.share))
            rows.add(torch.stack([*of_inputs, *of_activations])[None])
        inputs, above_inputs, relus, above_relus = rows.tensor.unbind(1)
        other = bool((above_inputs > 0).any() and not (above_relus > 0).any())
        total = (relus if other else inputs).sum(0)
        context.finding("thresholds compared with activations", int(other))
        context.finding("candidates whose input equals a threshold", int((total > math.log(1 / _EQUAL) / 2).sum()))
        return total


def _scored(highest: Tensor, maxima: Tensor) -> tuple[Tensor, Tensor]:
    """Of a layer's ``highest`` [draws, N, thresholds]: the images' log ratios, float64 [N], and as many times 1 where
    most images lie above one of the ``maxima`` [thresholds], which are no maxima then, or else 0."""
    ratio = sum(log_ratio(highest[:, :, place], maximum) for place, maximum in enumerate(maxima.tolist()))
    assert isinstance(ratio, Tensor)
    above = (highest.mean(0) > maxima * (1 + _EQUAL)).double().mean(0)
    return ratio, torch.full_like(ratio, float((above > 0.5).any()))


def log_ratio(highest: Tensor, threshold: float) -> Tensor:
    """How much likelier the threshold is if an image was among those whose maximum it is: log, float64 [N].

    ``highest`` [draws, N]: the image's largest input in each simulation. With F_x and f_x the distribution and density
    of an image's largest input, taken as normal with the spread of all images, and n h the hazard of the tail of all
    images (the expected density of others near the threshold), the ratio is F_x + f_x / (n h).
    """
    mean = highest.mean(0)
    pooled = float(highest.var(0, correction=1).mean()) ** 0.5 if len(highest) > 1 else 0.0
    spread = max(pooled, _EQUAL * abs(threshold))
    z = (threshold - mean) / spread
    below = torch.special.ndtr(z)
    density = torch.exp(-(z**2) / 2) / (spread * math.sqrt(2 * math.pi))
    top = mean.sort(descending=True).values[: max(2, math.ceil(_TAIL * len(mean)) + 1)]
    excess = float((top[:-1] - top[-1]).mean())
    hazard = 1 / max(excess, spread)
    ratio: Tensor = (below + density / hazard).clamp(min=1e-30).log()
    return ratio


@torch.no_grad()
def _highest(network: SpikingNetwork, layer: LIF, images: Tensor, seed: int, steps: int | None) -> Tensor:
    """The largest input over the ``steps`` (None: T) of each image, to all neurons or, with a threshold each, to those
    of a channel: float64 [N, thresholds]."""
    places = layer.threshold.numel()
    rows = []
    for first in range(0, len(images), _BATCH):
        part = images[first : first + _BATCH]
        best = torch.full((len(part), places), -math.inf, dtype=torch.float64)
        for current in network.currents(layer, part, seed, first, steps):
            inputs = _by_channel(current, len(part))
            if places == 1:
                values = inputs.amax((0, 2, 3))[:, None]
            elif places == inputs.shape[2]:
                values = inputs.amax((0, 3))
            else:
                raise NotApplicable(f"thresholds of single neurons (layer {layer.layer!r}) are not compared")
            best = torch.maximum(best, values.double().cpu())
        rows.append(best)
    return torch.cat(rows)


@torch.no_grad()
def _highest_activations(network: SpikingNetwork, images: Tensor) -> list[Tensor]:
    """Of each layer of neurons, in the order of :attr:`SpikingNetwork.neurons`: the largest activation of each image in
    the ReLU network, in units of the threshold: float64 [N, thresholds]."""
    relu = network.reconvert()
    relu.precision = "float32"  # thresholds were found in it, whatever the network computes in
    found: dict[str, list[Tensor]] = {}

    def watch(name: str, threshold: Tensor) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_module: nn.Module, _args: Any, out: Tensor) -> None:
            part = out / threshold  # spikes are worth their threshold, so both networks have the same units
            values = part.flatten(2) if part.dim() > 2 else part[..., None]
            values = values.amax((1, 2))[:, None] if threshold.numel() == 1 else values.amax(2)
            found.setdefault(name, []).append(values.double().cpu())

        return hook

    names = {id(module): name for name, module in network.body.named_modules()}
    for layer in network.neurons:
        name = names[id(layer)]
        relu.body.get_submodule(name).register_forward_hook(watch(name, layer.threshold))
    for first in range(0, len(images), _BATCH):
        relu(images[first : first + _BATCH])
    return [torch.cat(found[names[id(layer)]]) for layer in network.neurons]


def _by_channel(current: Tensor, images: int) -> Tensor:
    """A layer's input as [t, images, channels, neurons of a channel]; the fast path has channels last, and t apart."""
    if current.dim() in (3, 5):
        return current.flatten(2, -2).transpose(2, 3) if current.dim() == 5 else current[..., None]
    return current.view(-1, images, current.shape[1], current[0, 0].numel())
