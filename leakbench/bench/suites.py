"""Suites: sets of grids that belong together, planned as one run.

``paper`` is what stands behind the PrivateSNN paper's Tables 1 to 5 and Figures 5 and 6, on any data set.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from leakbench.bench.grid import NO_ATTACK, Cell, GridConfig, default_model, plan
from leakbench.models.family import FAMILY

CONVERSIONS = (
    "diehl2015", "rueckauer2017", "sengupta2019", "han2020", "han_roy2020", "zambrano2019", "deng_gu2021", "li2021",
    "bu2022",
)  # fmt: skip
TRAINED = ("stbp", "tdbn", "lee2020")
PRIVATE_ANN = ("zskd", "knowledge_within")
TIMESTEPS = (10, 20, 50, 100, 200, 500)
"""Figure 5a"""
SHARES = (0.1, 0.25, 0.5, 1.0)
"""Figure 5b: of the preset's synthetic images"""
_SEARCHED = ("sengupta2019", "han2020", "han_roy2020", "datafree")
"""whose thresholds are found by simulating: once, for all T"""
_SAMPLES = {"quick": 500, "standard": 2000, "paper": 5000}


def cells_of(config: GridConfig) -> list[Cell]:
    """The cells of a run: those of its grid, or of a suite's grids, each once."""
    if config.suite is None:
        return plan(config)
    cells = [cell for part in _paper(config) for cell in plan(part)]
    return list({cell.model_dump_json(): cell for cell in cells}.values())


def _paper(config: GridConfig) -> Iterator[GridConfig]:
    for dataset in config.dataset:
        models = config.model or (default_model(dataset, config.preset),)
        for model in models:
            yield from _parts(config, dataset, model)


def _parts(config: GridConfig, dataset: str, model: str) -> Iterator[GridConfig]:
    """For one data set and model, the attacked grid first: labels and controls of the others come after it."""
    given = {name: value for name, value in config if name not in ("suite", "defense", "dataset", "model")}

    def part(**changes: Any) -> GridConfig:
        own = {**given, "dataset": dataset, "model": model, **changes}
        plugins = {*own["defense"], *own["attack"]}
        # what is set for a plugin goes to the parts that it takes part in
        settings = {key: values for key, values in config.set.items() if key.partition(".")[0] in plugins}
        return GridConfig(**{**own, "set": {**own.get("set", {}), **settings}})

    every = (*PRIVATE_ANN, *CONVERSIONS, *TRAINED, "datafree", "privatesnn")
    yield part(defense=every, set={"privatesnn.od": (True, False)})
    normed = f"{model}bn"
    if normed in FAMILY:  # the rows that need batch norm, on the same network with it
        yield part(model=normed, defense=("knowledge_within", "han2020"), set={})
    alone = {"attack": NO_ATTACK, "controls": False}
    steps = {f"{name}.calibration_steps": (max(TIMESTEPS),) for name in _SEARCHED}
    yield part(defense=(*CONVERSIONS, "datafree"), timesteps=TIMESTEPS, set=steps, **alone)
    samples = tuple(round(share * _SAMPLES[config.preset]) for share in SHARES)
    yield part(defense=("privatesnn",), set={"privatesnn.samples": samples, "privatesnn.od": (True, False)}, **alone)
