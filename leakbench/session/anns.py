"""A user's own ANN: what --ann, --weights, --mean and --std name becomes a graph and a file of weights for a run."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from leakbench import registry
from leakbench.bench.grid import GridConfig, default_model
from leakbench.contracts import ImageClassifier
from leakbench.data import Dataset, load_dataset
from leakbench.errors import PluginError, UsageError
from leakbench.foreign.anns import Normalisation, ann_of_module
from leakbench.models.asked import module_of
from leakbench.models.storage import build_ann
from leakbench.models.weights import load_checkpoint, load_weights, read_weights
from leakbench.session.kept import kept


@dataclass(frozen=True)
class OwnAnn:
    """What is said of a user's ANN beside --ann, which stands in the grid."""

    weights: Path | None = None
    """file that fills what a function builds"""
    mean: str | None = None
    std: str | None = None
    """of images in [0, 1] that the network takes normalised: a number, or one of each channel"""

    def files(self, ann: str | None) -> list[Path]:
        """The files that hold such a network: no plugin is to read them."""
        of_function = [Path(ann.rpartition(":")[0])] if ann is not None and ".py:" in ann else []
        return [*of_function, *([self.weights] if self.weights else [])]

    @property
    def normalisation(self) -> Normalisation | None:
        """UsageError where --mean and --std are no such numbers."""
        if self.mean is None and self.std is None:
            return None
        mean, std = _numbers("--mean", self.mean or "0"), _numbers("--std", self.std or "1")
        if not all(value > 0 for value in std):
            raise UsageError(f"--std {self.std}: must be above 0")
        if max(mean) > 1:
            raise UsageError(f"--mean {self.mean}: it is of images in [0, 1]: divide it and --std by 255")
        return Normalisation(mean, std)


def with_own_ann(grid: GridConfig, own: OwnAnn, data: Path | None, cache: Path | None) -> GridConfig:
    """The grid with a graph as its model and the graph's weights as its ANN, a file of the store, where --ann names a
    function or the network takes normalised images; the same grid otherwise.

    UsageError or PluginError, one line, for what can't be such a network.
    """
    normalisation = own.normalisation
    function = grid.ann is not None and ".py:" in grid.ann
    if own.weights is not None and not function:
        raise UsageError("--weights fills the network of --ann FILE.py:FUNCTION; of a built-in model say --ann WEIGHTS")
    if grid.ann is None:
        if normalisation is not None:
            raise UsageError(
                "--mean and --std are of your own ANN: name it with --ann; those of --snn stand in its settings, under "
                '"input"'
            )
        return grid
    if not function and normalisation is None:
        return grid
    if len(grid.dataset) > 1 or len(grid.model) > 1:
        raise UsageError("--ann: a network is of one data set and one model: name one")
    (name,) = grid.dataset
    dataset = load_dataset(name, data)
    if function:
        if grid.model:
            raise UsageError(f"--ann {grid.ann} says itself what the network is: leave out --model")
        module = _built(grid.ann, own.weights)
    else:
        model = grid.model[0] if grid.model else default_model(name, grid.preset)
        module = _filled(model, Path(grid.ann), dataset).body
    try:
        ann = ann_of_module(module, dataset.image_shape, len(dataset.classes), dataset.input_range, normalisation)
    except UsageError as error:
        raise UsageError(f"--ann {grid.ann}, on {name}: {error}") from None
    return grid.model_copy(update={"ann": str(kept(ann, grid.ann, cache)), "model": (ann.arch,)})


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        values = tuple(map(float, text.split(",")))
    except ValueError:
        values = (math.nan,)
    if not all(map(math.isfinite, values)):
        raise UsageError(f"{option} {text!r}: give a number, or one of each channel, as in 0.49,0.48,0.45")
    return values


def _built(target: str, weights: Path | None) -> nn.Module:
    """The network that a user's function returns, with the weights of a file where one is named."""
    module_of.cache_clear()
    try:
        module = copy.deepcopy(module_of(registry.from_file(target, anew=True)))
    except PluginError as error:
        raise PluginError(f"--ann {target}: {error}") from error
    if weights is not None:
        where = f"--weights {str(weights)!r}"
        load_weights(read_weights(weights, "--weights"), module, where, registry.label(target))
    return module


def _filled(model: str, weights: Path, dataset: Dataset) -> ImageClassifier:
    ann = build_ann(model, dataset.image_shape, len(dataset.classes), dataset.input_range)
    load_checkpoint(weights, ann)
    return ann
