"""How fast a machine trains a network: the unit of the table of measured costs, which holds for others by that."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import cache

import torch
from pydantic import BaseModel, ConfigDict
from torch.nn import functional

from leakbench.bench.work import DataSize, Sizes
from leakbench.cells import BaseCell
from leakbench.contracts import InputRange, Precision
from leakbench.data.dataset import are_pictures
from leakbench.models.fast_convolutions import fast_convolutions
from leakbench.models.storage import build_ann
from leakbench.runtime.process import fixed_threads, tune_process
from leakbench.snn import SpikingConfig, SpikingNetwork, add_gradients, balance_thresholds, trace

log = logging.getLogger("leakbench")
_IMAGES, _SPIKING_IMAGES, _TIMESTEPS = 64, 8, 16
"""of a step. Of fewer, small networks take longer for an image than in the stages that the table is of"""
_WORK, _SPIKING_WORK = 20.0, 40.0
"""thousands of millions of multiply-accumulates of a step, which is of fewer images or time steps to take no more"""
_LARGEST = 2.0
"""those of one image from which on a step takes gigabytes"""
_USUAL = "vgg9"
_PICTURES = DataSize((3, 32, 32), 10, 1, 1, flips=True, input_range=InputRange(-1.0, 1.0))
"""What evaluation models and generators are as fast as, up to a factor that the table has: the network of a run says
nothing of them. So are networks that are too large to time, or that can't be trained as they are built, for lack of a
layer's activity say: an estimate stops no run."""
_SCALE = 0.6
"""of the spiking network's thresholds: a few per cent of its neurons fire at a step, as of trained ones"""
_ROUNDS, _ENOUGH = 3, 0.5
"""steps that are timed: so many, or fewer that took so many seconds"""


class Speed(BaseModel):
    """Seconds of one thread for a thousand million multiply-accumulates of a training step.

    Of an ANN those of its images' forward passes are counted, of a spiking network those times T.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ann: float
    """of the network, as an ANN"""
    spiking: float
    """of the network"""
    other: float
    """of an ANN that is the same for all runs"""

    def taken(self, sizes: Sequence[float]) -> tuple[float, ...]:
        """Sizes (:attr:`leakbench.bench.work.Part.sizes`), each times what a unit of it takes in training."""
        units = 1.0, self.ann, self.ann, self.spiking, self.spiking, self.other, self.other
        return tuple(size * unit for size, unit in zip(sizes, units, strict=True))


class Speeds:
    """How fast this machine's processor trains the networks of a run, each measured once."""

    def __init__(self, sizes: Sizes, precision: Precision) -> None:
        self._sizes, self._precision = sizes, precision
        self._of = cache(self._measured)

    def __call__(self, cell: BaseCell) -> Speed | None:
        """That of a cell's network; None where the data set is not at hand."""
        return self._of(cell.model, cell.dataset)

    def _measured(self, model: str, dataset: str) -> Speed | None:
        data = self._sizes.data(dataset)
        return None if data is None else measured_speed(model, data, self._precision)


def measured_speed(model: str, data: DataSize, precision: Precision) -> Speed:
    """The fastest of a few training steps of small batches, untrained."""
    tune_process()  # as before a run
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]), fixed_threads(1):
        try:
            ann, spiking = _training(model, data, precision)
        except Exception:  # of a third party's network, anything
            log.debug("%s is not trained for an estimate", model, exc_info=True)
            ann, spiking = _usual(precision)
        # evaluation models of small images are trained in float32 whatever the run's precision
        other, _ = _usual(precision if are_pictures(data.shape) else "float32")
    return Speed(ann=ann, spiking=spiking, other=other)


@cache
def _usual(precision: Precision) -> tuple[float, float]:
    return _training(_USUAL, _PICTURES, precision)


def _training(model: str, data: DataSize, precision: Precision) -> tuple[float, float]:
    """Of the ANN, of the spiking network.

    NotApplicable where it can't be converted, NumericalError where it has no activity to balance thresholds by.
    """
    ann = build_ann(model, data.shape, data.classes, data.input_range)
    macs = sum(layer.macs for layer in trace(ann.body, data.shape).weights) / 1e9
    if macs > _LARGEST:
        return _usual(precision)
    count = _at_most(_IMAGES, _WORK / macs)
    spiking = _at_most(_SPIKING_IMAGES, _SPIKING_WORK / macs / _TIMESTEPS)
    timesteps = _at_most(_TIMESTEPS, _SPIKING_WORK / macs / spiking)
    images, labels = torch.rand(count, *data.shape, generator=torch.Generator().manual_seed(0)), torch.arange(count)
    labels, few = labels % data.classes, images[:spiking]
    snn = SpikingNetwork.from_ann(ann, SpikingConfig(timesteps))
    balance_thresholds(snn, few[:1], seed=1, scale=_SCALE)
    snn = snn.configured(SpikingConfig(timesteps, precision=precision))
    ann.precision = precision

    def train() -> None:
        ann.zero_grad(set_to_none=True)
        with fast_convolutions(ann):
            functional.cross_entropy(ann(images), labels).backward()

    def train_spiking() -> None:
        snn.zero_grad(set_to_none=True)
        add_gradients(snn, few, 1, lambda logits, part: functional.cross_entropy(logits, labels[: len(few)][part]))

    ann.requires_grad_(True)
    snn.requires_grad_(True)
    return _fastest(train) / (macs * count), _fastest(train_spiking) / (macs * spiking * timesteps)


def _at_most(most: int, wanted: float) -> int:
    """From 1 to ``most``."""
    return max(1, min(most, int(wanted)))


def _fastest(step: Callable[[], None]) -> float:
    """Seconds of processor time; the first step, which allocates, is left out."""
    step()
    took: list[float] = []
    while len(took) < _ROUNDS and sum(took) < _ENOUGH:
        start = time.process_time()
        step()
        took.append(time.process_time() - start)
    return min(took)
