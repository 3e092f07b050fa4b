"""The analog twin: an ANN whose activations are the transfer functions of a spiking network's neurons.

Putting ReLUs back (Algorithm 1's first step) forgets what thresholds, leaks and resets do: a neuron fires at most once
a step, and a leaky one hardly below (1 - leak) theta. The twin keeps them: it computes what the deployed network does,
up to the noise of its spikes. What a neuron gives for a mean current depends on how the current changes, too, which no
formula knows: so the functions are measured on the network at work (docs/method.md, Attacks).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from leakbench.contracts import ImageClassifier
from leakbench.snn.folding import replace
from leakbench.snn.network import SpikingNetwork
from leakbench.snn.neurons import LIF, Run, TimeFixedDropout

LEAKY = 0.1
"""least slope of the gradient, so that neurons that are silent or saturated can be brought back"""
HIGHEST = 16.0
"""mean current up to which neurons are measured, in what a spike a step takes away"""
SEGMENTS = 256
"""of a curve on either side of 0, between currents that grow with their square: short ones where curves bend"""
_REACH = 8
"""segments on either side over which a slope is taken: over few steps curves are stairs"""
_PROBES = 4
"""images of each coarseness"""
_AT_ONCE = 2**22
"""neurons times steps that are simulated at once under constant currents"""

Array = np.ndarray[Any, np.dtype[np.float64]]


class _Curve(torch.autograd.Function):
    """Values at ``r`` of the curves whose points begin at ``first`` of ``values``; the slopes of segments are given."""

    @staticmethod
    def forward(ctx: Any, r: Tensor, values: Tensor, rises: Tensor, slopes: Tensor, first: Tensor | None) -> Tensor:
        place = _place(r)
        segment = place.int().clamp_(0, 2 * SEGMENTS - 1)
        place.sub_(segment)
        if first is not None:
            segment += first
        # in the order in which they lie in memory: another one is a copy
        lies = sorted(range(r.dim()), key=r.stride, reverse=True)
        back = [lies.index(dim) for dim in range(r.dim())]
        shape, segment = segment.permute(lies).shape, segment.permute(lies).flatten()
        found = (of_segments.index_select(0, segment) for of_segments in (values, rises, slopes))
        low, rise, slope = (numbers.view(shape).permute(back) for numbers in found)
        ctx.save_for_backward(slope)
        return low.addcmul_(rise, place)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        (slopes,) = ctx.saved_tensors
        return slopes.mul_(grad), None, None, None, None


def _place(r: Tensor) -> Tensor:
    """Where currents lie on a curve, in segments from its lowest point."""
    return (r.abs() * (SEGMENTS**2 / HIGHEST)).sqrt_().copysign_(r).add_(SEGMENTS)


def _points() -> Array:
    """The currents of a curve's points."""
    steps = np.arange(-SEGMENTS, SEGMENTS + 1) / SEGMENTS
    return HIGHEST * steps * np.abs(steps)


class _Units(nn.Module):
    """In what a layer's neurons are measured: r = current / span + offset, and rate = output / unit, spikes a step."""

    unit: Tensor
    """what a spike is worth"""
    span: Tensor
    """the current that a spike a step takes away, where nothing leaks"""
    offset: Tensor | None
    """of neurons whose membranes begin unlike each other: what is there enters over all steps"""

    def __init__(self, layer: LIF, timesteps: int) -> None:
        super().__init__()
        self.register_buffer("unit", layer.unit.clone())
        self.register_buffer("span", layer.unit / layer.response())
        begins = layer.initial / layer.threshold
        unlike = layer.kinds == 1 and bool((begins != begins.flatten()[0]).any())
        self.register_buffer("offset", (begins - begins.mean()) / timesteps if unlike else None)

    def r(self, current: Tensor) -> Tensor:
        r = current / self.span
        return r if self.offset is None else r + self.offset

    def current(self, r: Tensor) -> Tensor:
        return (r if self.offset is None else r - self.offset) * self.span


class Transfer(nn.Module):
    """Mean output of a layer's neurons against their mean current, both in the ANN's units.

    ``rates``: spikes a step at the points of one curve, or of one for each channel, [curves, 2 SEGMENTS + 1].
    """

    values: Tensor
    """rates at the lower points of all segments, those of one curve after those of another"""
    rises: Tensor
    slopes: Tensor
    first: Tensor | None
    """of the segments of each curve, where there are several"""

    def __init__(self, layer: LIF, timesteps: int, rates: Tensor) -> None:
        super().__init__()
        self.layer = layer.layer
        self.units = _Units(layer, timesteps)
        at = functional.pad(torch.from_numpy(_points())[None], (_REACH, _REACH), "replicate")[0]
        padded = functional.pad(rates, (_REACH, _REACH), "replicate")
        apart = 2 * _REACH + 1
        slopes = (padded[:, apart:] - padded[:, :-apart]) / (at[apart:] - at[:-apart])
        of_segments = {"values": rates[:, :-1], "rises": rates.diff(), "slopes": slopes.clamp(min=LEAKY)}
        for name, numbers in of_segments.items():
            self.register_buffer(name, numbers.flatten().to(layer.threshold))
        several = torch.arange(len(rates), dtype=torch.int32, device=layer.threshold.device) * (2 * SEGMENTS)
        self.register_buffer("first", several if len(rates) > 1 else None)

    def forward(self, current: Tensor) -> Tensor:
        r = self.units.r(current.float() if current.dtype == torch.bfloat16 else current)
        first = None if self.first is None else self.first.view(-1, *[1] * (r.dim() - 2))
        args = (r, self.values, self.rises, self.slopes, first)
        rates = cast(Tensor, _Curve.apply(*args))  # type: ignore[no-untyped-call]
        return (rates * self.units.unit).to(current.dtype)

    @property
    def unit(self) -> Tensor:
        """What one spike a step is worth."""
        return self.units.unit


def probes(shape: tuple[int, int, int]) -> Iterator[Tensor]:
    """Images in [0, 1] that show nothing: noise of every coarseness, from flat to fine, [4, *shape] of each.

    Every second one has its pixels' lowest or highest values alone, as the images have that attacks find.
    """
    generator = torch.Generator().manual_seed(0)
    for side in (2**power for power in range(max(shape[1:]).bit_length() + 1)):
        if side >= 2 * max(shape[1:]):
            return
        coarse = torch.rand(_PROBES, shape[0], *(min(side, most) for most in shape[1:]), generator=generator)
        images = functional.interpolate(coarse, shape[1:], mode="bilinear", align_corners=False)
        images[1::2] = images[1::2].round()
        yield images


def _measured(network: SpikingNetwork, layers: dict[str, LIF], units: dict[str, _Units]) -> dict[str, Array]:
    """What neurons do on :func:`probes`: [number of neurons, sum of r, sum of rates] by curve and segment of r."""
    seen = {name: np.zeros((3, layer.kinds, 2 * SEGMENTS)) for name, layer in layers.items()}
    sums: dict[str, list[Tensor]] = {}

    def watch(name: str, current: Tensor, _v: Tensor, out: Tensor) -> None:
        if name in layers:
            both = [x.sum(0, dtype=torch.float64) / network.passes for x in (current, out)]
            sums[name] = [one + other for one, other in zip(both, sums[name], strict=True)] if name in sums else both

    like = next(network.parameters())
    for number, images in enumerate(probes(network.image_shape)):
        sums.clear()
        network.observe(images.to(like), watch, number)
        for name, (current, out) in sums.items():
            total = seen[name]
            r, rates = units[name].r(current), out / units[name].unit
            place = _place(r).long().clamp_(0, 2 * SEGMENTS - 1)
            place += torch.arange(total.shape[1], device=r.device).view(-1, *[1] * (r.dim() - 2)) * (2 * SEGMENTS)
            index = place.flatten().cpu().numpy()
            for counts, of_each in zip(total, (torch.ones_like(r), r, rates), strict=True):
                counts += np.bincount(index, of_each.flatten().cpu().numpy(), counts.size).reshape(counts.shape)
    return seen


def _under_constant_currents(network: SpikingNetwork, layer: LIF, r: Array) -> Array:
    """Spikes a step of a layer's neurons, one of each kind, that get ``r`` [N] all the time: [kinds, N]."""
    one = copy.deepcopy(layer)
    if layer.kinds == 1:
        one.initial = (layer.initial / layer.threshold).mean() * layer.threshold.flatten()[0]
    for name, buffer in one.named_buffers():
        if buffer.numel() > 1:
            setattr(one, name, buffer.reshape(len(buffer), -1)[:, 0] if layer.kinds > 1 else buffer.flatten()[0])
    units = _Units(one, network.config.timesteps)
    rates = []
    for part in torch.from_numpy(r).to(units.span).split(max(1, _AT_ONCE // (network.passes * layer.kinds))):
        x = units.current(part[:, None]).expand(network.passes, len(part), layer.kinds).contiguous()
        run = Run(len(part), torch.zeros(len(part), 2, dtype=torch.int32), 0, network.config.timesteps)
        out, *_ = one.fire(x, one.start(x), run)
        rates.append(out.mean(0, dtype=torch.float64) / units.unit)
    return torch.cat(rates).T.cpu().numpy()


@torch.no_grad()
def transfer_rates(network: SpikingNetwork) -> Tensor:
    """Spikes a step at the points of all layers' transfer functions, one below the other: [curves, 2 SEGMENTS + 1].

    The rising curve that is nearest to the means over the neurons of each segment of currents. Segments that no neuron
    was in have the rate of neurons under constant currents instead.
    """
    from sklearn.isotonic import IsotonicRegression  # takes half a second to load

    points = _points()
    middles = (points[1:] + points[:-1]) / 2
    layers = {layer.layer: layer for layer in network.neurons}
    units = {name: _Units(layer, network.config.timesteps) for name, layer in layers.items()}
    curves = []
    for name, (number, r, rates) in _measured(network, layers, units).items():
        empty = number == 0
        wanted = empty.any(0)
        constant = np.zeros_like(rates)
        constant[:, wanted] = _under_constant_currents(network, layers[name], middles[wanted])
        weight = np.where(empty, 1, number)
        r, rates = np.where(empty, middles, r / weight), np.where(empty, constant, rates / weight)
        curves += [
            np.interp(points, at, IsotonicRegression().fit_transform(at, of_one, sample_weight=how_many))
            for at, of_one, how_many in zip(r, rates, weight, strict=True)
        ]
    return torch.from_numpy(np.stack(curves))


def analog_twin(network: SpikingNetwork, rates: Tensor | None = None) -> ImageClassifier:
    """An ANN with a copy of the network's weights whose activations are its neurons' transfer functions.

    ``rates``: what :func:`transfer_rates` has measured, where it has been done.
    """
    rates = transfer_rates(network) if rates is None else rates
    layers = network.neurons
    found = dict(zip((layer.layer for layer in layers), rates.split([layer.kinds for layer in layers]), strict=True))
    body = copy.deepcopy(network.body)
    for name, module in list(body.named_modules()):
        if isinstance(module, LIF):
            replace(body, name, Transfer(module, network.config.timesteps, found[module.layer]))
        elif isinstance(module, TimeFixedDropout):
            replace(body, name, module.plain())
    return ImageClassifier(
        body, network.image_shape, network.classes, network.input_range, network.arch, network.config.precision
    ).eval()


@dataclass(frozen=True)
class Agreement:
    """How well an ANN predicts what a spiking network does."""

    correlation: float
    """Pearson's r of the logits over images and classes"""
    same_class: float
    """share of images to which both give the same class"""
    rate_error: dict[str, float]
    """layer -> mean absolute error of the rates, spikes a step"""


@torch.no_grad()
def agreements(network: SpikingNetwork, images: Tensor, seed: int, *anns: ImageClassifier) -> list[Agreement]:
    """Compares each ANN with one simulation of ``images`` [B, C, H, W] in [0, 1].

    Rates are compared where an ANN has transfer functions.
    """
    rates: dict[str, Tensor] = {}
    steps = network.passes

    def watch(layer: str, _current: Tensor, _v: Tensor, out: Tensor) -> None:
        rates[layer] = rates.get(layer, torch.zeros(())) + out.sum(0, dtype=torch.float64) / steps

    logits = network.observe(images, watch, seed)
    return [_agreement(ann, images, logits, rates) for ann in anns]


def _agreement(ann: ImageClassifier, images: Tensor, logits: Tensor, rates: dict[str, Tensor]) -> Agreement:
    errors: dict[str, float] = {}

    def compare(module: nn.Module, _args: Any, out: Tensor) -> None:
        assert isinstance(module, Transfer)
        # in doubles: thresholds of a network whose layers were scaled against each other may be as large as floats are
        error = (out.double() - rates[module.layer]) / module.unit.double()
        errors[module.layer] = float(error.abs().mean())

    parts = [module for module in ann.modules() if isinstance(module, Transfer)]
    handles = [module.register_forward_hook(compare) for module in parts]
    try:
        predicted = ann(images)
    finally:
        for handle in handles:
            handle.remove()
    pair = torch.stack([predicted.flatten(), logits.flatten()]).double()
    constant = bool((pair.std(1) == 0).any())
    return Agreement(
        0.0 if constant else float(torch.corrcoef(pair)[0, 1]),
        float((predicted.argmax(1) == logits.argmax(1)).double().mean()),
        errors,
    )
