"""Suites: which grids stand behind the paper's tables, and what may be chosen beside them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from planned_cells import attacks

from leakbench import registry
from leakbench.bench.grid import grid_digest, make_config
from leakbench.bench.suites import (
    ATTACKED,
    CONVERSIONS,
    PAPER_TIMESTEPS,
    PRIVATE_ANN,
    TIMESTEPS,
    TRAINED,
    cells_of,
    check_used,
)
from leakbench.cells import AttackCell, Cell, UtilityCell
from leakbench.errors import UsageError

pytestmark = pytest.mark.slow


def planned(**options: Any) -> list[Cell]:
    return cells_of(make_config({"suite": "paper", **options}))


def of(cells: list[Cell], defense: str, attack: str = "") -> list[UtilityCell]:
    return [
        cell
        for cell in cells
        if isinstance(cell, UtilityCell)
        and cell.defense.name == defense
        and (cell.attack.name if isinstance(cell, AttackCell) else "") == attack
    ]


def test_every_method_of_the_paper_is_attacked_by_its_attacks_and_the_ensemble() -> None:
    cells = planned()
    for name in (*PRIVATE_ANN, *CONVERSIONS, *TRAINED, "datafree", "privatesnn", "ann", "random"):
        for attack in ("reconversion", "direct", "auto-v2"):
            assert of(cells, name, attack), (name, attack)
    assert {cell.model for cell in of(cells, "knowledge_within")} == {"vgg4", "vgg4bn"}  # it needs batch norm


def test_on_a_processor_few_methods_of_the_paper_are_attacked_and_all_are_measured() -> None:
    cells = planned(dataset="cifar10", preset="paper-cpu")
    attacked = {cell.defense.name for cell in attacks(cells)}
    assert attacked == {*ATTACKED, "ann", "random"}
    assert {cell.model for cell in attacks(cells)} == {"vgg16"}
    for name in (*PRIVATE_ANN, *CONVERSIONS, *TRAINED, *ATTACKED):
        assert of(cells, name), name
    assert {cell.model for cell in of(cells, "knowledge_within")} == {"vgg16", "vgg16bn"}


METRIC = """
from leakbench.contracts import Params
from leakbench.metrics.reconstructions import ImageMetric


class Mine(ImageMetric[Params]):
    name = "mine"

    def scores(self, drawn):
        return drawn.images.float().mean((1, 2, 3))
"""


def test_a_metric_of_a_user_is_measured_where_something_is_attacked(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(METRIC)
    cells = planned(metric=f"{tmp_path}/mine.py:Mine")
    attacked = [cell for cell in cells if isinstance(cell, AttackCell)]
    assert attacked and all([metric.name for metric in cell.metrics] == ["mine"] for cell in attacked)


def test_the_ablation_has_both_rows() -> None:
    found = {cell.defense.params["od"] for cell in of(planned(), "privatesnn", "auto-v2")}
    assert found == {True, False}


def test_the_curve_over_time_is_one_network_and_one_simulation_each() -> None:
    cells = planned()
    for name in ("datafree", "han2020", "han_roy2020", "rueckauer2017", "bu2022"):
        swept = [cell for cell in of(cells, name) if cell.timesteps in TIMESTEPS]
        assert [cell.timesteps for cell in swept] == list(TIMESTEPS)
        assert {cell.all_timesteps for cell in swept} == {TIMESTEPS}
        assert {type(cell) for cell in swept} == {UtilityCell}


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
def test_with_the_papers_preset_the_curve_has_its_own_time_steps(dataset: str) -> None:
    cells = planned(dataset=dataset)
    for name, steps in (("datafree", 150), ("han2020", 250), ("sengupta2019", 500)):
        (found,) = [cell for cell in of(cells, name) if cell.all_timesteps and cell.timesteps == steps]
        assert (found.timesteps, found.all_timesteps) == (steps, tuple(sorted({*TIMESTEPS, *PAPER_TIMESTEPS})))
    # it is accuracy and energy that are printed for them: no attack comes to these rows
    assert not [cell for cell in attacks(cells) if cell.timesteps in (250, 500)]


def test_smaller_presets_do_not_pay_for_the_papers_time_steps() -> None:
    for preset in ("quick", "standard"):
        swept = [cell for cell in of(planned(preset=preset, dataset="cifar10"), "han2020") if cell.all_timesteps]
        assert {cell.timesteps for cell in swept} == set(TIMESTEPS)


def samples_of(cells: list[Cell], defense: str, attack: str = "") -> set[tuple[int, bool]]:
    found = [cell.defense.params for cell in of(cells, defense, attack)]
    return {(params["samples"], params.get("od", True)) for params in found}


@pytest.mark.parametrize(
    ("dataset", "preset", "samples"),
    [
        ("cifar10", "paper", 5000),
        ("cifar100", "paper", 10_000),
        ("cifar100:half", "paper", 10_000),
        ("tinyimagenet", "paper", 10_000),
        ("cifar100", "standard", 2000),
        ("digits", "standard", 2000),
    ],
)
def test_synthetic_images_are_the_papers_and_figure_5b_has_shares_of_them(
    dataset: str, preset: str, samples: int
) -> None:
    cells = planned(dataset=dataset, preset=preset)
    for attack in ("reconversion", "direct", "auto-v2"):
        assert samples_of(cells, "privatesnn", attack) == {(samples, True), (samples, False)}
        assert samples_of(cells, "datafree", attack) == {(samples, True)}
    assert samples_of(cells, "datafree") == {(samples, True)}  # the curve over T and the row of its own
    shares = (samples // 10, samples // 4, samples // 2, samples)
    assert samples_of(cells, "privatesnn") == {(share, od) for share in shares for od in (True, False)}
    labels = [cell.defense.label for cell in of(cells, "privatesnn")]
    assert f"privatesnn[samples={samples // 10},od=True]" in labels


def test_a_number_of_images_that_is_chosen_keeps_figure_5b() -> None:
    cells = planned(dataset="cifar10", set={"privatesnn.samples": ["8000"]})
    assert samples_of(cells, "privatesnn", "direct") == {(8000, True), (8000, False)}
    assert {n for n, _ in samples_of(cells, "privatesnn")} == {800, 2000, 4000, 8000}


@pytest.mark.parametrize(
    ("dataset", "preset", "shares"),
    [
        ("cifar100", "quick", {100, 125, 250, 500}),
        ("tinyimagenet", "quick", {200, 250, 500}),
        ("tinyimagenet", "paper-cpu", {200, 250, 500, 1000}),
    ],
)
def test_no_share_is_of_fewer_images_than_classes(dataset: str, preset: str, shares: set[int]) -> None:
    cells = planned(dataset=dataset, preset=preset)
    assert {n for n, _ in samples_of(cells, "privatesnn")} == shares


def test_several_numbers_of_images_are_a_sweep_already() -> None:
    cells = planned(set={"privatesnn.samples": ["300", "700"]})
    assert {n for n, _ in samples_of(cells, "privatesnn")} == {300, 700}


def test_what_is_no_number_of_images_is_refused_by_its_name() -> None:
    with pytest.raises(UsageError, match="samples"):
        planned(set={"privatesnn.samples": ["many"]})


@pytest.mark.parametrize("dataset", ["digits", "cifar10", "cifar100"])
def test_no_cell_is_there_twice(dataset: str) -> None:
    cells = planned(dataset=dataset)
    assert len({cell.model_dump_json() for cell in cells}) == len(cells)
    titles = [(cell.model, cell.title, getattr(cell, "timesteps", None), getattr(cell, "checks", "")) for cell in cells]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize(
    ("dataset", "model", "preset", "timesteps"),
    [("digits", "vgg4", "standard", 32), ("fashion-mnist", "vgg5", "standard", 64), ("cifar10", "vgg16", "paper", 150)],
)
def test_it_is_sized_for_the_data_set(dataset: str, model: str, preset: str, timesteps: int) -> None:
    cells = planned(dataset=dataset)
    assert cells[0].preset == preset
    assert cells[0].model == model
    assert {cell.timesteps for cell in of(cells, "privatesnn", "auto-v2")} == {timesteps}


def test_what_is_chosen_beside_it_counts() -> None:
    cells = planned(attack=["direct"], preset="quick", seeds=2, set={"privatesnn.epochs": ["1"]})
    assert {cell.attack.name for cell in attacks(cells)} == {"direct"}
    assert {cell.seed for cell in cells} == {0, 1}
    assert {cell.defense.params["epochs"] for cell in of(cells, "privatesnn")} == {1}
    assert grid_digest(make_config({"suite": "paper"})) != grid_digest(make_config({"suite": "paper", "seeds": 2}))


def test_privacy_is_every_defence_of_the_catalogue_under_both_ensembles() -> None:
    cells = planned(suite="privacy", preset="quick")
    protecting = {cell.defense.name for cell in attacks(cells) if not cell.control}
    assert protecting == {*registry.built_in("defense")} - {"ann", "random", "shuffled", "overfitted", "unseen"}
    for name in protecting:
        assert of(cells, name, "auto-v2") and of(cells, name, "auto_mia-v3"), name
    assert {cell.model for cell in of(cells, "knowledge_within")} == {"vgg4", "vgg4bn"}  # it needs batch norm
    assert all(len(cell.all_timesteps) <= 1 for cell in cells if isinstance(cell, UtilityCell))  # no sweep
    assert {cell.attack.name for cell in attacks(planned(suite="privacy", attack=["rmia"]))} == {"rmia"}


@pytest.mark.parametrize("option", ["defense", "timesteps"])
def test_it_names_its_own_defences_and_steps(option: str) -> None:
    with pytest.raises(UsageError, match=f"--suite paper names its own {option}: leave out --{option}"):
        planned(**{option: ["8"]})


def test_a_grid_that_was_written_comes_back_the_same() -> None:
    config = make_config({"suite": "paper", "dataset": ["cifar10"]})
    assert cells_of(make_config(config.model_dump(mode="json", exclude={"defense", "timesteps"}))) == cells_of(config)
    assert type(config)(**config.model_dump(mode="json")) == config


def test_what_is_set_for_a_plugin_of_a_file_reaches_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from leakbench.contracts import Access, Attack, Params\n\n\n"
        "class P(Params):\n    k: int = 1\n\n\n"
        "class Mine(Attack[P]):\n    name = 'mine'\n    needs = Access.LABELS\n\n"
        "    def run(self, victim, targets, context): ...\n"
    )
    options = {"suite": "paper", "attack": [f"{tmp_path}/mine.py:Mine"], "set": {"mine.k": ["7"]}}
    attacked = [cell for cell in cells_of(make_config(options)) if isinstance(cell, AttackCell)]
    assert attacked
    assert {cell.attack.params["k"] for cell in attacked} == {7}


def test_what_is_set_of_nothing_that_takes_part_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown plugin in --set 'privatsnn': did you mean 'privatesnn'"):
        cells_of(make_config({"suite": "privacy", "dataset": "digits", "set": {"privatsnn.epochs": 5}}))


def test_what_is_set_of_a_control_is_so() -> None:
    cells = cells_of(make_config({"suite": "privacy", "dataset": "digits", "set": {"overfitted.encoder": "direct"}}))
    overfitted = [cell for cell in cells if isinstance(cell, UtilityCell) and cell.defense.name == "overfitted"]
    assert {cell.defense.params["encoder"] for cell in overfitted} == {"direct"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"attack": "inversion", "public": "cifar100"}, "--public cifar100: no attack of this run uses public images"),
        ({"attack": "none", "classes": 3}, "--classes 3: no attack of this run draws classes"),
        ({"attack": "rmia", "judges": "folder"}, "--judges folder: no attack of this run draws classes"),
    ],
)
def test_what_nothing_in_the_run_reads_is_refused(given: dict[str, Any], words: str) -> None:
    unused = make_config({"defense": "han2020", **given})
    with pytest.raises(UsageError, match=re.escape(words)):
        check_used(unused, cells_of(unused))
    attack = "generative_prior" if "public" in given else "inversion"
    used = make_config({"defense": "han2020", **given, "attack": attack})
    check_used(used, cells_of(used))
