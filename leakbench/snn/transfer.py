"""Transfer functions of spiking neurons: what comes out in the mean against the mean current, measured at work.

What a neuron gives for a mean current depends on its threshold, leak and reset, and on how the current changes over
time, too, which no formula knows. So the network is simulated on images that show nothing, and of all neurons that are
alike those with about the same mean current are averaged (docs/method.md, Attacks: transfer functions).

Currents are in units of the neuron, r = current / scale, where r = 1 lifts a membrane by a threshold a step. Rates are
spikes a step.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from leakbench.snn.calibration import Progress
from leakbench.snn.network import SpikingNetwork
from leakbench.snn.neurons import LIF, Run

LEAKY = 0.1
"""least slope of the gradient, so that neurons that are silent or saturated can be brought back"""
HIGHEST = 16.0
"""r up to which neurons are measured, and down to -HIGHEST; beyond, curves go on as lines"""
SEGMENTS = 256
"""of a curve on either side of 0, between r that grow with their square: short ones where curves bend"""
_REACH = 8
"""segments on either side over which a slope is taken: over few steps curves are stairs"""
_PROBES = 4
"""images of each coarseness"""
_AT_ONCE = 2**22
"""neurons times steps that are simulated at once under constant currents"""
_ALIKE = 0.05
"""mean rates in a quarter of the curve that count as the same"""
_LEVELS = (-5, 3)
"""lowest and highest power of two by which neurons are grouped: that of the standard deviation of r over the steps"""
_POOLED, _CONSTANT = 50.0, 0.001
"""neurons for which all of a layer count that differ by their currents' changes alone; those under constant currents"""

Array = np.ndarray[Any, np.dtype[Any]]


# --- curves ----------------------------------------------------------------------------------------------------------


def _points() -> Array:
    """r at the points of a curve, of which neighbours are the ends of a segment."""
    steps = np.arange(-SEGMENTS, SEGMENTS + 1) / SEGMENTS
    return HIGHEST * steps * np.abs(steps)


def _place(r: Tensor) -> Tensor:
    """Where ``r`` in -HIGHEST..HIGHEST lies on a curve, in segments from its lowest point."""
    return (r.abs() * (SEGMENTS**2 / HIGHEST)).sqrt_().copysign_(r).add_(SEGMENTS)


class _Curve(torch.autograd.Function):
    """Values at ``r`` of curves whose segments begin at ``first`` in the tables; ``ends``: what each rises beyond."""

    @staticmethod
    def forward(
        ctx: Any, r: Tensor, values: Tensor, rises: Tensor, slopes: Tensor, first: Tensor | None, ends: Tensor | None
    ) -> Tensor:
        inside = r.clamp(-HIGHEST, HIGHEST)
        place = _place(inside)
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
        rates = low.addcmul_(rise, place)
        return rates if ends is None else rates.addcmul_(ends, (r - inside).clamp_(min=0))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        (slopes,) = ctx.saved_tensors
        return grad * slopes, None, None, None, None, None


class Transfer(nn.Module):
    """A layer's neurons as an activation: mean output against mean current, both in the ANN's units."""

    unit: Tensor
    """what one spike a step is worth"""
    scale: Tensor
    """the current that is r = 1"""
    offset: Tensor | None
    """what is in the membranes at first, in r, where it differs by neuron and counts as current over all steps"""
    values: Tensor
    """rates at the lower ends of all segments, those of one curve after those of another"""
    rises: Tensor
    slopes: Tensor
    first: Tensor | None
    """of each neuron's segments, int32, where there are several curves"""
    ends: Tensor | None
    """slope beyond the highest r, where anything rises there"""

    def __init__(self, layer: LIF, timesteps: int) -> None:
        super().__init__()
        self.layer = layer.layer
        self.register_buffer("unit", layer.unit.clone())
        scale = layer.threshold / layer.lift(timesteps)
        self.register_buffer("scale", torch.where(scale.isfinite() & (scale != 0), scale, torch.ones_like(scale)))
        begins = layer.initial / layer.threshold
        unlike = layer.adds_up and bool((begins != begins.flatten()[0]).any())
        self.register_buffer("offset", (begins - begins.mean()) / timesteps if unlike else None)

    def follow(self, curves: Tensor, which: Tensor) -> None:
        """Take the ``curves`` [n, 2 SEGMENTS + 1], of which each neuron has number ``which`` (broadcast to theirs)."""
        at = functional.pad(torch.from_numpy(_points())[None], (_REACH, _REACH), "replicate")[0]
        padded = functional.pad(curves, (_REACH, _REACH), "replicate")
        apart = 2 * _REACH + 1
        slopes = (padded[:, apart:] - padded[:, :-apart]) / (at[apart:] - at[:-apart])
        tables = {"values": curves[:, :-1], "rises": curves.diff(), "slopes": slopes.clamp(min=LEAKY)}
        for name, numbers in tables.items():
            self.register_buffer(name, numbers.flatten().to(self.unit))
        which = which.to(self.unit.device)
        self.register_buffer("first", (which * (2 * SEGMENTS)).int() if len(curves) > 1 else None)
        ends = ((curves[:, -1] - curves[:, -2]) / float(at[-_REACH - 1] - at[-_REACH - 2])).to(self.unit)
        self.register_buffer("ends", ends[which] if bool((ends > 0).any()) else None)

    def r(self, current: Tensor) -> Tensor:
        """In the neurons' units; what is too large to be held is as large as floats are."""
        r = (current / self.scale).clamp_(-1e30, 1e30)
        return r if self.offset is None else r + self.offset

    def forward(self, current: Tensor) -> Tensor:
        r = self.r(current.float() if current.dtype == torch.bfloat16 else current)
        args = (r, self.values, self.rises, self.slopes, self.first, self.ends)
        rates = cast(Tensor, _Curve.apply(*args))  # type: ignore[no-untyped-call]
        return (rates * self.unit).to(current.dtype)


# --- what neurons do -------------------------------------------------------------------------------------------------


def probes(shape: tuple[int, int, int]) -> Iterator[Tensor]:
    """Images in [0, 1] that show nothing: noise of every coarseness, from flat to fine, [4, *shape] of each.

    Every second one has its channels' lowest and highest values alone, as the images have that attacks find.
    """
    generator = torch.Generator().manual_seed(0)
    for side in (2**power for power in range(max(shape[1:]).bit_length() + 1)):
        if side >= 2 * max(shape[1:]):
            return
        coarse = torch.rand(_PROBES, shape[0], *(min(side, most) for most in shape[1:]), generator=generator)
        images = functional.interpolate(coarse, shape[1:], mode="bilinear", align_corners=False)
        images[1::2] = images[1::2].round()
        yield images


class _Kinds:
    """The kinds of neurons of a layer, which differ in what they make of a constant current.

    ``of``: the kind of each neuron, of a shape that is broadcast to theirs.
    """

    def __init__(self, layer: LIF, network: SpikingNetwork) -> None:
        self._layer, self._network = layer, network
        self._buffers = {name: one.flatten()[0] if one.numel() == 1 else one for name, one in layer.named_buffers()}
        if layer.adds_up:  # elsewhere the offset says it
            self._buffers["initial"] = (layer.initial / layer.threshold).mean() * self._buffers["threshold"]
        shape = torch.broadcast_shapes(*(one.shape for one in self._buffers.values()))
        every = torch.arange(int(np.prod(shape)))
        middles = _middles()[SEGMENTS :: SEGMENTS // 64]
        rates = self._rates(middles, every) if len(every) > 1 else np.zeros((1, 64))
        rates = np.nan_to_num(rates) / max(1.0, float(np.nan_to_num(rates).max()))
        profiles = np.round(rates.reshape(len(every), 4, -1).mean(2) / _ALIKE)
        _, self._one, of = np.unique(profiles, axis=0, return_index=True, return_inverse=True)
        self.of = torch.from_numpy(of.reshape(shape))

    def rates(self) -> Array:
        """Spikes a step of one neuron of each kind at the middle of each segment, [kinds, 2 SEGMENTS]."""
        return self._rates(_middles(), torch.from_numpy(self._one))

    def _rates(self, r: Array, which: Tensor) -> Array:
        """Of the neurons ``which`` [n] under constant currents ``r`` [N]: spikes a step, [n, N]."""
        shape = torch.broadcast_shapes(*(one.shape for one in self._buffers.values()))
        one = copy.deepcopy(self._layer)
        for name, buffer in self._buffers.items():
            setattr(one, name, buffer.expand(shape).flatten()[which] if buffer.dim() else buffer)
        steps, passes = self._network.config.timesteps, self._network.passes
        units = Transfer(one, steps)
        rates = []
        for part in torch.from_numpy(r).to(units.scale).split(max(1, _AT_ONCE // (passes * len(which)))):
            x = (part[:, None] * units.scale).expand(passes, len(part), len(which)).contiguous()
            run = Run(len(part), torch.zeros(len(part), 2, dtype=torch.int32, device=x.device), 0, steps)
            out, *_ = one.fire(x, one.start(x), run)
            rates.append(out.mean(0, dtype=torch.float64) / units.unit)
        return torch.cat(rates).T.cpu().numpy()


class _Seen:
    """What the neurons of a layer did, by kind and channel: number, sum of r and of rates in each segment of r."""

    def __init__(self, layer: LIF, network: SpikingNetwork) -> None:
        self.units = Transfer(layer, network.config.timesteps)
        self._kinds = _Kinds(layer, network)
        self._passes = network.passes
        self._sums: list[Tensor] = []
        self._counts: Array | None = None

    def add(self, current: Tensor, out: Tensor) -> None:
        """Some steps of a simulation, [t, B, ...] each."""
        new = [x.sum(0, dtype=torch.float64) for x in (current, out, (current / self.units.scale).square_())]
        self._sums = [one + other for one, other in zip(new, self._sums, strict=True)] if self._sums else new

    def end(self) -> None:
        """Of the simulation: its neurons are counted."""
        current, out, square = (total / self._passes for total in self._sums)
        self._sums = []
        if self._counts is None:
            self._find_channels(current.shape[1:])
            self._counts = np.zeros((3, len(self._kind), 2 * SEGMENTS))
            self._changes = np.zeros((2, len(self._kind)))
        r, rates = self.units.r(current), out / self.units.unit
        changes = (square - (current / self.units.scale).square()).clamp_(min=0)
        known = r.isfinite() & rates.isfinite() & changes.isfinite()
        segment = _place(r.clamp(-HIGHEST, HIGHEST)).nan_to_num_(0).long().clamp_(0, 2 * SEGMENTS - 1)
        pair = self._pair.to(r.device).expand(r.shape)[known]
        index = (pair * (2 * SEGMENTS) + segment[known]).cpu().numpy()
        for counts, of_each in zip(self._counts, (None, r, rates), strict=True):
            numbers = None if of_each is None else of_each[known].cpu().numpy()
            counts += np.bincount(index, numbers, counts.size).reshape(counts.shape)
        for total, of_each in zip(self._changes, (None, changes), strict=True):
            numbers = None if of_each is None else of_each[known].cpu().numpy()
            total += np.bincount(pair.cpu().numpy(), numbers, total.size)

    def _find_channels(self, shape: torch.Size) -> None:
        """Number the pairs of kind and channel that there are among neurons of that ``shape``."""
        channel = torch.arange(shape[0]).view(-1, *[1] * (len(shape) - 1))
        both = self._kinds.of * shape[0] + channel
        pairs, of = np.unique(both.numpy(), return_inverse=True)
        self._kind, self._pair = pairs // shape[0], torch.from_numpy(of.reshape(both.shape))

    def transfer(self) -> Transfer:
        """The rising curves that are nearest to the means of neurons of one kind whose currents change alike."""
        constant = self._kinds.rates()
        assert self._counts is not None
        number, changes = self._changes
        level = np.log2(np.sqrt(changes / np.maximum(number, 1)) + 2.0 ** (_LEVELS[0] - 1)).round().clip(*_LEVELS)
        groups, group = np.unique(np.stack([self._kind, level]), axis=1, return_inverse=True)
        curves = []
        for of_group, kind in enumerate(groups[0].astype(int)):
            own = self._counts[:, group.reshape(-1) == of_group].sum(1)
            pool = self._counts[:, self._kind == kind].sum(1)
            number, r, rates = own + pool * (_POOLED / max(1, pool[0].sum()))
            curves.append(_fitted(number, r, rates, constant[kind]))
        self.units.follow(torch.from_numpy(np.stack(curves)), torch.from_numpy(group.reshape(-1))[self._pair])
        return self.units


def _middles() -> Array:
    """r at the middles of segments."""
    points = _points()
    return (points[1:] + points[:-1]) / 2


def _fitted(number: Array, r: Array, rates: Array, constant: Array) -> Array:
    """A curve's points: nearest, among those that rise, to the means over the neurons of each segment.

    ``constant`` stands where there are none.
    """
    from sklearn.isotonic import IsotonicRegression  # takes half a second to load

    empty = number == 0
    weight = np.where(empty, 1, number)
    at, mean = np.where(empty, _middles(), r / weight), np.where(empty, np.nan_to_num(constant), rates / weight)
    fitted = IsotonicRegression().fit_transform(at, mean, sample_weight=np.where(empty, _CONSTANT, number))
    points: Array = np.interp(_points(), at, fitted)
    return points


@torch.no_grad()
def transfers(network: SpikingNetwork, progress: Progress) -> dict[str, Transfer]:
    """Layer -> transfer function of its neurons, from what they do on :func:`probes`."""
    seen = {layer.layer: _Seen(layer, network) for layer in network.neurons}

    def watch(name: str, current: Tensor, _v: Tensor, out: Tensor) -> None:
        if name in seen:
            seen[name].add(current, out)

    like, every = next(network.parameters()), list(probes(network.image_shape))
    for number, images in enumerate(every):
        progress("measuring the neurons", number, len(every))
        network.observe(images.to(like), watch, number)
        for layer in seen.values():
            layer.end()
    progress("measuring the neurons", len(every), len(every))
    return {name: layer.transfer() for name, layer in seen.items()}
