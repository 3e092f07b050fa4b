"""What was asked for: a grid of defences and attacks, and what a preset sets in it."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from leakbench.cells import Preset
from leakbench.contracts import Precision
from leakbench.data import grid_defaults
from leakbench.errors import UnknownName, UsageError
from leakbench.models import has_batch_norm, model_depth
from leakbench.models.training import Augmentation, Recipe, steps_of

log = logging.getLogger("leakbench")

NO_ATTACK = "none"
"""in place of attacks: accuracy and energy alone"""


class Sizes(BaseModel):
    """What a preset sets outside the plugins."""

    model_config = ConfigDict(frozen=True)

    timesteps: tuple[tuple[int, int], ...] = Field(
        description="(depth, T) from shallow to deep: T of networks up to this depth, the last one's of all others"
    )
    model: str = Field(description="network of data sets that have none of their own")
    images_per_class: int = Field(description="images that an attack draws of each class")
    test_images: int | None = Field(description="test images for accuracies; None: all")
    candidates: int = Field(1000, description="images of either side that membership attacks are asked about, at most")
    null_networks: int = Field(description="networks that know nothing, which attacks are compared with")
    references: int = Field(
        4, description="networks made as a victim was, for membership attacks that use them; in pairs, so even"
    )
    precision: Precision = Field("float32", description="of the networks' convolutions")
    training_threads: int = Field(1, description="threads that ANNs are trained on; part of what is computed")


SIZES: Mapping[str, Sizes] = {
    "quick": Sizes(
        timesteps=((4, 16), (8, 64)),
        model="vgg9",
        images_per_class=4,
        test_images=1000,
        candidates=300,
        null_networks=6,
    ),
    "standard": Sizes(
        timesteps=((3, 32), (4, 64), (8, 150)),
        model="vgg9",
        images_per_class=10,
        test_images=5000,
        null_networks=20,
        references=8,
    ),
    "paper-cpu": Sizes(
        timesteps=((8, 150),), model="vgg16", images_per_class=10, test_images=2000, null_networks=6, training_threads=2
    ),
    "paper": Sizes(
        timesteps=((8, 150),),
        model="vgg16",
        images_per_class=100,
        test_images=None,
        null_networks=20,
        references=8,
        training_threads=2,
    ),
}

SHALLOW = 4
"""layers of neurons up to which a network trains and answers fast"""

LONGEST_GRADIENT = 5.0
"""norm that gradients of a training are cut to, where some are far too long"""

FEW_IMAGES = 1000
"""training images below which the paper's 90 passes leave a network untrained"""

NULLS_OF_ENSEMBLES = 6
"""null networks that an ensemble is run on at most, as it costs as much as all others: the fewest that can name"""

SUITE_SETS = ("defense", "timesteps")
"""what a suite chooses itself"""
SuiteName = Literal["paper", "privacy"]
SUITE_ATTACKS: Mapping[SuiteName, tuple[str, ...]] = {
    "paper": ("reconversion", "direct", "auto"),
    "privacy": ("auto", "auto_mia"),
}
"""what each takes by default: the paper's two attacks, and the recommended ensemble; that of either kind of leak"""


MOST_TIMESTEPS = 100_000
"""two hundred times what papers simulate: beyond, a slip of the finger keeps a machine busy for weeks"""


class GridConfig(BaseModel):
    """The grid as it was asked for: the options of ``leakbench run`` and the keys of ``--config``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    suite: SuiteName | None = Field(None, description="a set of grids that is laid out like a paper's tables")
    defense: tuple[str, ...] = ()
    attack: tuple[str, ...] = Field(("auto",), min_length=1)
    dataset: tuple[str, ...] = Field(("digits",), min_length=1)
    model: tuple[str, ...] = ()
    timesteps: tuple[int, ...] = ()
    seeds: int = Field(1, ge=1, le=1000)
    images_per_class: int | None = Field(None, ge=1, le=10000)
    classes: int | None = Field(None, ge=2, description="classes that attacks draw, at most; None: all")
    preset: Preset = "standard"
    precision: Precision | None = Field(None, description="of the networks' convolutions; None: the preset's")
    metric: tuple[str, ...] = Field((), description="metrics that are measured besides the usual ones")
    set: Mapping[str, tuple[Any, ...]] = Field({}, description='"plugin.param" -> values')
    ann: str | None = Field(
        None,
        description="weights that take the place of training: a file, which FILE.py:FUNCTION has become",
    )
    judges: str | None = Field(None, description="folder of evaluation models that take the place of training")
    public: str | None = Field(
        None, description="where public images come from; None: the other half of a data set with :half, else photos"
    )
    controls: bool = True
    null_networks: int | None = Field(
        None, ge=0, le=1000, description="networks that know nothing, for an attack; None: the preset's number"
    )

    @model_validator(mode="before")
    @classmethod
    def _suite(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        if given.get("suite") is None:
            if not given.get("defense"):
                raise ValueError("--defense is missing: name at least one, as in --defense privatesnn")
            return given
        for name in SUITE_SETS:
            if given.get(name):
                raise ValueError(f"--suite {given['suite']} names its own {name}: leave out --{name}")
        datasets = given.get("dataset", ("digits",))
        datasets = (datasets,) if isinstance(datasets, str) else datasets
        # small sets are done on two cores in any case; of others the paper's own sizes want a GPU
        small = all(grid_defaults(str(name)).model for name in datasets)
        return {
            "preset": "standard" if small else "paper",
            "attack": SUITE_ATTACKS.get(given["suite"], ("auto",)),
            **given,
        }

    @field_validator("seeds", "images_per_class", "classes", "null_networks", "timesteps", mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        if any(isinstance(one, bool) for one in (value if isinstance(value, list | tuple) else (value,))):
            raise ValueError("must be a number, not true or false")
        return value

    @field_validator("defense", "attack", "dataset", "model", "metric", "timesteps", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | int) else value

    @field_validator("set", mode="before")
    @classmethod
    def _as_lists(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise ValueError("must be a table, as [set] with privatesnn.epochs = 5 below it")
        plain = {k: _plain(v) for k, v in _flat(value).items()}
        lists = {k: tuple(_plain(one) for one in v) if isinstance(v, list | tuple) else (v,) for k, v in plain.items()}
        for key, values in lists.items():
            for one in values:
                if not isinstance(one, str | int | float | None):
                    raise ValueError(f"{key} takes one value or a list of them, and got a {type(one).__name__}")
        return {k: tuple(dict.fromkeys(v)) for k, v in lists.items()}

    @field_validator("defense", "attack", "dataset", "model", "metric", "timesteps")
    @classmethod
    def _once(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(dict.fromkeys(value))

    @field_validator("timesteps")
    @classmethod
    def _positive(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        for steps in value:
            if steps < 1:
                raise ValueError(f"must be at least 1, got {steps}")
            if steps > MOST_TIMESTEPS:
                raise ValueError(f"must be at most {MOST_TIMESTEPS}, got {steps}")
        return value


def _plain(value: Any) -> Any:
    """Python's own numbers in place of numpy's."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """TOML reads [set] privatesnn.epochs = 5 as nested tables: back to dotted names."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def make_config(options: Mapping[str, Any]) -> GridConfig:
    """A checked GridConfig; UsageError, one line, names the option at fault."""
    try:
        return GridConfig(**options)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise UsageError(first["msg"].removeprefix("Value error, ")) from None
        name = str(first["loc"][0]).replace("_", "-")
        if first["type"] == "extra_forbidden":
            raise UnknownName("option", name, [f.replace("_", "-") for f in GridConfig.model_fields]) from None
        told = first["msg"].removeprefix("Value error, ")
        ours = first["type"] == "value_error" and ", got " in told
        got = "" if ours else f" (got {' '.join(repr(first['input']).split())[:200]})"
        raise UsageError(f"--{name}: {told}{got}") from None


def default_model(dataset: str, preset: str) -> str:
    """The member of the VGG family that a data set gets when none is named: VGG16 where the paper used it."""
    return grid_defaults(dataset).model or SIZES[preset].model


def default_timesteps(dataset: str, model: str, preset: str) -> int:
    """T where none is asked for: each layer of neurons needs some steps before it passes on what it sees."""
    of_data = grid_defaults(dataset).timesteps.get(preset)
    by_depth, depth = SIZES[preset].timesteps, model_depth(model)
    steps = next((t for deepest, t in by_depth if depth is not None and depth <= deepest), by_depth[-1][1])
    return of_data or steps


def victim_recipe(preset: Preset, model: str, images: int, side: int, flips: bool) -> Recipe:
    """How the ANN is trained: the paper's recipe, or one cycle of few steps for small sets and CPUs.

    The paper's counts passes, which are too few steps of few images: these are learned in as many as at standard.

    Networks of many layers without normalisation have gradients that now and then are far too long: they are cut, and
    labels smoothed. Those of few layers have them on images of more than 28 pixels: there they are cut alone. Weights
    that are standardized (:func:`standardizes`) take steps twice as long.
    """
    if preset == "paper" and images >= FEW_IMAGES:
        return Recipe(steps_of(90, images, 256), augmentation=Augmentation(max(1, side // 8), flips))
    depth = model_depth(model)
    shallow = depth is not None and depth <= SHALLOW
    if images < 10_000:
        steps, size = 900 if preset == "quick" else 1350, 32
    elif preset == "quick":
        steps, size = 2800, 64
    else:
        steps, size = (9400, 64) if shallow else (7800, 128)
    if shallow:
        changes = Augmentation(side // 28, flips)
        longest = LONGEST_GRADIENT if side > 28 else None
        return Recipe(steps, size, lr=0.1, schedule="one-cycle", longest=longest, augmentation=changes)
    changes = Augmentation(max(1, side // 8), flips)
    return Recipe(
        steps, size, lr=0.1 if standardizes(preset, model, images) else 0.05, schedule="one-cycle", smoothing=0.1,
        longest=LONGEST_GRADIENT, augmentation=changes,
    )  # fmt: skip


def standardizes(preset: Preset, model: str, images: int) -> bool:
    """Whether the weights of the ANN are standardized while it is trained (:mod:`leakbench.models.standardized`): those
    of many layers without batch norm, where the recipe is not the paper's."""
    depth = model_depth(model)
    papers = preset == "paper" and images >= FEW_IMAGES
    return depth is not None and depth > SHALLOW and not has_batch_norm(model) and not papers


def grid_digest(config: GridConfig) -> str:
    """Short hash of a grid: tells whether a folder holds a run of the same one."""
    return hashlib.sha256(json.dumps(config.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:12]
