"""Suites: which grids stand behind the paper's tables, and what may be chosen beside them."""

from __future__ import annotations

from typing import Any

import pytest

from leakbench.bench.grid import Cell, grid_digest, make_config
from leakbench.bench.suites import CONVERSIONS, PRIVATE_ANN, TIMESTEPS, TRAINED, cells_of
from leakbench.errors import UsageError


def planned(**options: Any) -> list[Cell]:
    return cells_of(make_config({"suite": "paper", **options}))


def of(cells: list[Cell], defense: str, attack: str = "") -> list[Cell]:
    return [
        cell for cell in cells
        if cell.defense and cell.defense.name == defense and (cell.attack.name if cell.attack else "") == attack
    ]  # fmt: skip


def test_every_method_of_the_paper_is_attacked_by_its_attacks_and_the_ensemble() -> None:
    cells = planned()
    for name in (*PRIVATE_ANN, *CONVERSIONS, *TRAINED, "datafree", "privatesnn", "ann", "random"):
        for attack in ("reconversion", "direct", "auto-v1"):
            assert of(cells, name, attack), (name, attack)
    assert {cell.model for cell in of(cells, "knowledge_within")} == {"vgg4", "vgg4bn"}  # it needs batch norm


def test_the_ablation_has_both_rows() -> None:
    found = {cell.defense.params["od"] for cell in of(planned(), "privatesnn", "auto-v1") if cell.defense}
    assert found == {True, False}


def test_the_curve_over_time_is_one_network_and_one_simulation_each() -> None:
    cells = planned()
    for name in ("datafree", "han2020", "han_roy2020", "rueckauer2017", "bu2022"):
        swept = [cell for cell in of(cells, name) if cell.timesteps in TIMESTEPS]
        assert [cell.timesteps for cell in swept] == list(TIMESTEPS)
        assert {cell.at for cell in swept} == {TIMESTEPS}
        assert not any(cell.attack for cell in swept)


def test_the_curve_over_samples_ends_at_the_preset_s_own_set() -> None:
    swept = [cell for cell in of(planned(), "privatesnn") if cell.defense and "samples" in cell.defense.label]
    found = {(cell.defense.params["samples"], cell.defense.params["od"]) for cell in swept if cell.defense}
    assert found == {(n, od) for n in (200, 500, 1000, 2000) for od in (True, False)}


def test_no_cell_is_there_twice() -> None:
    cells = planned()
    assert len({cell.model_dump_json() for cell in cells}) == len(cells)
    titles = [(cell.model, cell.title, cell.timesteps, cell.of) for cell in cells]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize(
    ("dataset", "model", "preset", "timesteps"),
    [("digits", "vgg4", "standard", 32), ("fashion-mnist", "vgg5", "standard", 64), ("cifar10", "vgg16", "paper", 150)],
)
def test_it_is_sized_for_the_data_set(dataset: str, model: str, preset: str, timesteps: int) -> None:
    cells = planned(dataset=dataset)
    assert cells[0].preset == preset
    assert cells[0].model == model
    assert {cell.timesteps for cell in of(cells, "privatesnn", "auto-v1")} == {timesteps}


def test_what_is_chosen_beside_it_counts() -> None:
    cells = planned(attack=["direct"], preset="quick", seeds=2, set={"privatesnn.epochs": ["1"]})
    assert {cell.attack.name for cell in cells if cell.attack} == {"direct"}
    assert {cell.seed for cell in cells} == {0, 1}
    assert {cell.defense.params["epochs"] for cell in of(cells, "privatesnn") if cell.defense} == {1}
    assert grid_digest(make_config({"suite": "paper"})) != grid_digest(make_config({"suite": "paper", "seeds": 2}))


@pytest.mark.parametrize("option", ["defense", "timesteps"])
def test_it_names_its_own_defences_and_steps(option: str) -> None:
    with pytest.raises(UsageError, match=f"--suite paper names its own {option}: leave out --{option}"):
        planned(**{option: ["8"]})


def test_a_grid_that_was_written_comes_back_the_same() -> None:
    config = make_config({"suite": "paper", "dataset": ["cifar10"]})
    assert cells_of(make_config(config.model_dump(mode="json", exclude={"defense", "timesteps"}))) == cells_of(config)
    assert type(config)(**config.model_dump(mode="json")) == config
