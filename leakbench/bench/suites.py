"""Suites: sets of grids that belong together, planned as one run.

``paper`` is what stands behind the PrivateSNN paper's Tables 1 to 5 and Figures 5 and 6, on any data set. With the
preset ``paper`` it has the paper's own T and numbers of synthetic images, with ``paper-cpu`` its T, and attacks on few
methods alone. Smaller presets keep theirs, and rows at T that only the paper's tables need are left out.

``privacy`` is every defence of the catalogue under the ensemble of either kind of leak: Table 1 with both measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from leakbench.bench.grid import NO_ATTACK, GridConfig, default_model
from leakbench.bench.plan import check_settings, plan, takes_timesteps, taking_part
from leakbench.cells import AttackCell, Cell, UtilityCell
from leakbench.data import grid_defaults
from leakbench.errors import UsageError
from leakbench.leakage import compared_kind
from leakbench.models import model_names

CONVERSIONS = (
    "diehl2015", "rueckauer2017", "sengupta2019", "han2020", "han_roy2020", "zambrano2019", "deng_gu2021", "li2021",
    "bu2022",
)  # fmt: skip
TRAINED = ("stbp", "tdbn", "lee2020")
PRIVATE_ANN = ("zskd", "knowledge_within")
PRIVATE_TRAINING = ("dpsgd",)
"""no method of the paper's"""
TIMESTEPS = (10, 20, 50, 100, 200, 500)
"""Figure 5a"""
PAPER_TIMESTEPS = (150, 250)
"""with the presets ``paper`` and ``paper-cpu`` as well: Figure 5a's red dot, and Han's row of Table 5 (Sengupta's, 500,
is there anyway). These rows have their thresholds from the curve's search, over its longest T."""
ATTACKED = ("han2020", "datafree", "privatesnn")
"""with the preset ``paper-cpu``: the two of the paper's Table 4, and one that has read training images. An attack on
VGG16 takes hours on a processor; the other methods' rows are of accuracy and energy."""
SHARES = (0.1, 0.25, 0.5, 1.0)
"""Figure 5b: of the synthetic images"""
_SEARCHED = ("sengupta2019", "han2020", "han_roy2020", "datafree")
"""whose thresholds are found by simulating: once, for all T"""
_SAMPLES = {"quick": 500, "standard": 2000, "paper-cpu": 1000, "paper": 5000}
_SYNTHETIC = ("datafree", "privatesnn")
"""both stand on the same synthetic images"""


def cells_of(config: GridConfig) -> list[Cell]:
    """The cells of a run: those of its grid, or of a suite's grids, each once."""
    if config.suite is None:
        return plan(config)
    parts = list(_grids(config))
    check_settings(config, {name for part in parts for name in taking_part(part)})
    cells = [cell for part in parts for cell in plan(part)]
    return list({cell.model_dump_json(): cell for cell in cells}.values())


def check_used(config: GridConfig, cells: Sequence[Cell]) -> None:
    """Raises UsageError where an option of a new run was given that none of its cells reads."""
    attacks = [cell for cell in cells if isinstance(cell, AttackCell)]
    if config.public and not any(cell.public for cell in attacks):
        raise UsageError(f"--public {config.public}: no attack of this run uses public images: leave it out")
    networks = [cell for cell in cells if type(cell) is UtilityCell]
    if config.timesteps and networks and not any(map(takes_timesteps, networks)):
        steps = ",".join(map(str, config.timesteps))
        raise UsageError(f"--timesteps {steps}: no network of this run takes them: leave it out")
    kind = compared_kind()
    for name in ("judges", "classes"):
        given = getattr(config, name)
        if given and not any(cell.leakage == kind.name for cell in attacks):
            raise UsageError(f"--{name} {given}: no attack of this run draws {kind.title}: leave it out")


def _grids(config: GridConfig) -> Iterator[GridConfig]:
    for dataset in config.dataset:
        models = config.model or (default_model(dataset, config.preset),)
        for model in models:
            yield from _parts(config, dataset, model)


def _parts(config: GridConfig, dataset: str, model: str) -> Iterator[GridConfig]:
    """For one data set and model, the attacked grid first: labels and controls of the others come after it."""
    given = {name: value for name, value in config if name not in ("suite", "defense", "dataset", "model")}

    defaults = grid_defaults(dataset)
    images = defaults.synthetic_images.get(config.preset)
    ours = {f"{name}.samples": (images,) for name in _SYNTHETIC} if images else {}

    def part(asked: Mapping[str, Any] = config.set, **changes: Any) -> GridConfig:
        options = {**given, "dataset": dataset, "model": model, "set": {}, **changes}
        settings = {**ours, **options["set"], **asked}
        grid = GridConfig(**{**options, "set": {}})
        # what is set for a plugin goes to the parts that it takes part in
        plugins = taking_part(grid)
        return grid.model_copy(update={"set": {k: v for k, v in settings.items() if k.partition(".")[0] in plugins}})

    beyond = PRIVATE_TRAINING if config.suite == "privacy" else ()
    every = (*PRIVATE_ANN, *CONVERSIONS, *TRAINED, *beyond, "datafree", "privatesnn")
    ablation = {"privatesnn.od": (True, False)} if config.suite == "paper" else {}
    alone: dict[str, Any] = {"attack": (NO_ATTACK,), "metric": (), "controls": False}
    few = config.suite == "paper" and config.preset == "paper-cpu"
    others = tuple(name for name in every if name not in ATTACKED) if few else ()
    yield part(defense=tuple(name for name in every if name not in others), set=ablation)
    if others:
        yield part(defense=others, **alone)
    normed = f"{model}bn"
    if normed in model_names():  # the rows that need batch norm, on the same network with it
        yield part(model=normed, defense=("knowledge_within", "han2020"), **(alone if few else {}))
    if config.suite != "paper":
        return
    over = tuple(sorted({*TIMESTEPS, *(PAPER_TIMESTEPS if config.preset in ("paper", "paper-cpu") else ())}))
    steps = {f"{name}.calibration_steps": (max(over),) for name in _SEARCHED}
    yield part(defense=(*CONVERSIONS, "datafree"), timesteps=over, set=steps, **alone)
    total = config.set.get("privatesnn.samples", (images or _SAMPLES[config.preset],))
    samples = _shares(total, defaults.fewest_synthetic_images)
    asked = {key: values for key, values in config.set.items() if key != "privatesnn.samples"}
    sweep = {"privatesnn.samples": samples, "privatesnn.od": (True, False)}
    yield part(asked, defense=("privatesnn",), set=sweep, **alone)


def _shares(samples: tuple[Any, ...], fewest: int) -> tuple[Any, ...]:
    """Of one number its shares, from ``fewest`` up; several are a sweep already, and what is no number the plugin
    refuses by its name."""
    if len(samples) > 1 or not str(samples[0]).isdecimal():
        return samples
    total = int(samples[0])
    return tuple(max(round(share * total), min(fewest, total)) for share in SHARES)
