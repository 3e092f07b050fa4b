"""How much there is to compute in a job of a run, told from shapes and numbers alone: nothing is trained or simulated.

Sizes count multiply-accumulates in thousands of millions, or pixels where no network is at work. What a unit of them
takes is measured: see :mod:`leakbench.bench.costs`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

from leakbench import registry
from leakbench.bench.grid import victim_recipe
from leakbench.bench.jobs import Job
from leakbench.bench.shares import Shares, chosen_shares, share_key, text_of
from leakbench.cells import (
    AnchorCell,
    AttackCell,
    BaseCell,
    CheckCell,
    PreparationCell,
    ReferenceCell,
    UtilityCell,
    Variant,
)
from leakbench.contracts import InputRange
from leakbench.data import base_name, load_dataset
from leakbench.data.catalogue import default_data_folder
from leakbench.data.folder import PREFIX
from leakbench.data.npz import is_npz
from leakbench.errors import NotApplicable
from leakbench.leakage import leakage_kind
from leakbench.leakage.controls import BLANK, UNSEEN
from leakbench.models.storage import build_ann
from leakbench.runtime.plugins import load_plugin
from leakbench.snn.graph import trace

_REPEATS = ("restarts", "starts", "population", "points", "directions")
"""parameters of attacks that multiply the work of each image"""
_PREPARATION = ("steps", "rounds", "pool")
"""parameters of attacks that multiply the work before any image"""
_SHARED = (("samples", "synthesis_steps"), ("gan_steps", "gan_batch"))
"""parameters of what plugins share that multiply its work"""
_TESTED = "accuracy and energy"


Work = tuple[float, float]
"""(done once, of all steps): multiply-accumulates"""


@dataclass(frozen=True)
class Part:
    """A share of a job that costs are measured of."""

    stage: str
    once: float = 0.0
    """the network's work beside the steps: preparation, calibration, last answers"""
    each: float = 0.0
    """its work of the steps: images that are attacked or trained on, times steps or passes"""
    steps: int = 1
    """T; 1 where nothing spikes"""
    key: Hashable = None
    """parts of the same key are computed once; None: this one alone"""
    other: Work = (0.0, 0.0)
    """likewise, with no network of the run: of evaluation models, generators, pixels"""
    fixed: float = 1.0
    """whether what the stage takes whatever its sizes is counted: of a stage in several parts, by one of them"""

    @property
    def sizes(self) -> tuple[float, ...]:
        """What its seconds are a weighted sum of."""
        return self.fixed, self.once, self.each, self.once * self.steps, self.each * self.steps, *self.other


@dataclass(frozen=True)
class DataSize:
    """What of a data set the work depends on."""

    shape: tuple[int, int, int]
    classes: int
    training: int
    test: int
    flips: bool
    input_range: InputRange

    @property
    def pixels(self) -> float:
        """Thousands of millions of values of one image."""
        return prod(self.shape) / 1e9


class Sizes:
    """The sizes of data sets and networks, each found once. None where it can't be known without a download."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder or default_data_folder()
        self.data = cache(self._data)
        self.macs = cache(self._macs)
        self.preparation = cache(self._preparation)

    def _data(self, name: str) -> DataSize | None:
        whole = base_name(name)
        if registry.is_built_in("dataset", whole):
            if not registry.load("dataset", whole).availability(self._folder).available:
                return None
        elif not name.startswith(PREFIX) and not is_npz(whole):
            return None  # a third party's function may download
        data = load_dataset(name, self._folder)
        return DataSize(
            data.image_shape, len(data.classes), len(data.train), len(data.test), data.flips, data.input_range
        )

    def _macs(self, model: str, dataset: str) -> float | None:
        """Thousands of millions of multiply-accumulates of one image's forward pass."""
        data = self.data(dataset)
        if data is None:
            return None
        ann = build_ann(model, data.shape, data.classes, data.input_range)
        try:
            return sum(layer.macs for layer in trace(ann.body, data.shape).weights) / 1e9
        except NotApplicable:
            return None

    def _preparation(self, leakage: str, dataset: str, part: str) -> Work | None:
        """What a kind of leak prepares of a data set in a part, or after its parts."""
        data, kind = self.data(dataset), leakage_kind(leakage)
        if data is None:
            return None
        once, each = kind.preparation(part, data.shape, data.classes, data.training, data.test, data.flips)
        return once / 1e9, each / 1e9


def parts_of(job: Job, sizes: Sizes, shares: Shares) -> list[Part] | None:
    """The parts of a job; None where the data set is not known, or the network of what one takes part in."""
    cell = job.cell
    data = sizes.data(cell.dataset)
    if data is None:
        return None
    match job.task, cell:
        case "prepare", PreparationCell():
            work = sizes.preparation(cell.leakage, cell.dataset, cell.part) or (0.0, 0.0)
            if cell.part and not work[1]:
                return []
            stage = leakage_kind(cell.leakage).preparation_stage(cell.part, data.shape)
            return [Part(stage, other=work, fixed=0.0 if cell.part else 1.0)]
        case _, AnchorCell():
            stage = f"{'fresh' if cell.fresh else 'usual'} anchor of {cell.leakage}"
            return [Part(stage, other=(cell.images(data.classes) * data.pixels, 0.0))]
    macs = sizes.macs(cell.model, cell.dataset)
    if macs is None:
        return None
    match job.task, cell:
        case "ann", ReferenceCell():
            return list(_reference_ann(cell, data, macs))
        case "ann", _:
            return list(_ann(cell, data, macs))
        case _, ReferenceCell():
            return list(_reference(cell, data, macs, shares))
        case _, AttackCell():
            return list(_attack(cell, data, macs, shares))
        case _, UtilityCell():
            return list(_defense(cell, data, macs, shares))
    return []


def _ann(cell: BaseCell, data: DataSize, macs: float) -> Iterator[Part]:
    if cell.checkpoint is None:
        recipe = victim_recipe(cell.preset, cell.model, data.training, min(data.shape[1:]), data.flips)
        yield Part("ANN training", 0.0, macs * recipe.steps * min(recipe.batch_size, data.training))


def _defense(cell: UtilityCell, data: DataSize, macs: float, shares: Shares) -> Iterator[Part]:
    params, steps = _numbers(cell.defense.params), max(cell.all_timesteps, default=_steps(cell))
    # one network and one simulation serve all T of the grid
    key = (*cell.network, cell.defense.target, text_of(cell.defense.all_params)) if cell.all_timesteps else None
    read = params.get("images", data.training) if "least_steps" not in params else data.training
    # private training passes over the training images; the synthetic ones are for the thresholds alone
    images = data.training if "max_grad_norm" in params else params.get("samples", read)
    passes = max(images * params.get("epochs", 0), params.get("least_steps", 0) * params.get("batch_size", 0))
    calibrated = int(params.get("calibration_steps") or steps)
    yield from _shared(cell.defense, cell.network, macs, shares)
    if cell.defense.name == UNSEEN and not isinstance(cell, ReferenceCell):  # one ANN for all T
        for part in _ann(cell.model_copy(update={"checkpoint": None}), data, macs):
            yield replace(part, key=("control ann", *cell.network))
    once, each = macs * params.get("images", 1), macs * passes
    yield Part(_stage("defense", cell.defense), once, each, calibrated, key and ("defense", key))
    tested = min(data.test, cell.test_images or data.test)
    yield Part(_TESTED, macs, macs * tested, steps, key and ("utility", key))


def _reference_ann(cell: ReferenceCell, data: DataSize, macs: float) -> Iterator[Part]:
    # defences of one network share its references' ANNs
    for part in _ann(cell, data, macs):
        yield replace(part, key=("ann", *cell.network, cell.number))


def _reference(cell: ReferenceCell, data: DataSize, macs: float, shares: Shares) -> Iterator[Part]:
    if cell.defense.name not in BLANK:
        yield from _reference_ann(cell, data, macs)
    # where a defence takes a T of its own, so do references
    for part in _defense(cell, data, macs, shares):
        yield replace(part, key=part.key and (part.key, cell.number))


def _attack(cell: AttackCell, data: DataSize, macs: float, shares: Shares) -> Iterator[Part]:
    variant, steps = cell.attack, _steps(cell)
    images = leakage_kind(cell.leakage).asked(cell, data.classes, data.training, data.test)
    public = (cell.dataset, cell.seed, cell.public)
    for part in _shared(variant, public, data.pixels, shares):
        yield replace(part, each=0.0, other=(0.0, part.each))
    running = [(member.name, _numbers(member.params)) for member in variant.members]
    running = running or [(variant.target, _numbers(variant.params))]
    # every image is answered at least once, however little effort is made
    prepared = sum(prod(params.get(name, 1) for name in _PREPARATION) for _, params in running)
    if not variant.code:  # a third party's is not measured
        prepared += load_plugin("attack", variant.target).prepared_images(data.classes)
    networks = 1 + cell.references  # all of them are asked alike
    once = macs * networks * (images + prepared)
    each = macs * networks * images * sum(_effort(target, params) for target, params in running)
    yield Part(_stage("attack", variant), once, each, steps)
    stage = f"{'check' if isinstance(cell, CheckCell) else 'metrics'} of {cell.leakage}"
    yield Part(stage, each=macs * images, steps=steps, other=(data.pixels * images, 0.0))


def _steps(cell: UtilityCell) -> int:
    """T of the deployed network: some defences have their own."""
    return int(_numbers(cell.defense.params).get("timesteps") or cell.timesteps or 1)


def _numbers(params: Mapping[str, Any]) -> dict[str, int | float]:
    """Those that are numbers: a third party's plugin may mean something else by a usual name."""
    return {name: value for name, value in params.items() if type(value) in (int, float)}


def _effort(target: str, params: Mapping[str, int | float]) -> float:
    effort = load_plugin("attack", target).effort
    return float(prod(params.get(name, 1) for name in (effort, *_REPEATS)))


def _shared(variant: Variant, scope: Hashable, size: float, shares: Shares) -> Iterator[Part]:
    for name, given in chosen_shares(variant, shares).items():
        chosen = _numbers(given)
        work = next((prod(chosen[p] for p in each) for each in _SHARED if all(p in chosen for p in each)), 1)
        yield Part(f"shared {name}", 0.0, size * work, key=share_key(name, scope, given))


def _stage(kind: str, variant: Variant) -> str:
    # what a third party's plugin takes is not measured, whatever it is named
    return f"{kind} {variant.target if variant.code else variant.name}"


def chosen_parts(jobs: Iterable[Job], sizes: Sizes, shares: Shares) -> list[list[Part] | None]:
    """The parts of each job, without those that a job before it has computed."""
    seen: set[Hashable] = set()
    chosen: list[list[Part] | None] = []
    for job in jobs:
        parts = parts_of(job, sizes, shares)
        if parts is not None:
            parts = [part for part in parts if part.key is None or part.key not in seen]
            seen.update(part.key for part in parts if part.key is not None)
        chosen.append(parts)
    return chosen
