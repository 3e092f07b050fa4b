"""From a grid to cells: controls, anchors, checks, public images, and what multiplies."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from planned_cells import QUICK, OwnAttack, OwnDefense, anchors, attacks, checks, labels, nulls, planned, rows

from leakbench import registry
from leakbench.bench.grid import GridConfig, default_model, make_config
from leakbench.bench.plan import plan
from leakbench.cells import AttackCell, Cell
from leakbench.errors import UsageError

CONTROLS = ["ann", "han2020", "random"]


# --- the cells ---------------------------------------------------------------------------------------------------


def test_controls_anchors_and_checks_are_added_and_marked() -> None:
    cells = planned()
    assert [(c.anchor, c.fresh, c.control) for c in anchors(cells)] == [
        *(("noise", fresh, True) for fresh in (False, True)),
        *(("real", fresh, True) for fresh in (False, True)),
    ]
    assert [(c.defense.name, c.control) for c in rows(cells)] == [
        ("ann", True),
        ("han2020", True),  # the conversion that protects nothing
        ("random", True),
        ("sengupta2019", False),
    ]
    assert [(c.defense.name, c.attack.label, c.control) for c in attacks(cells)] == [
        *((name, "direct", True) for name in CONTROLS),
        ("sengupta2019", "direct", False),
    ]
    assert [(c.defense.name, c.attack.label, c.checks, c.control) for c in checks(cells)] == [
        ("sengupta2019", "direct (iterations=20)", "direct", False),  # of quick's 40
    ]
    assert cells == [*anchors(cells), *rows(cells), *attacks(cells), *checks(cells)]
    assert {c.leakage for c in (*anchors(cells), *attacks(cells), *checks(cells))} == {"inversion"}


def test_networks_that_know_nothing_are_attacked_from_three_seeds_on() -> None:
    assert not nulls(planned(seeds=2)) and not nulls(planned(seeds=3, controls=False))
    cells = nulls(planned(seeds=3, attack=["direct", "auto"], dataset=["digits", "mnist"]))
    by_attack = {
        name: [cell for cell in cells if (cell.dataset, cell.attack.name) == ("digits", name)]
        for name in {cell.attack.name for cell in cells}
    }
    assert {name: [cell.number for cell in each] for name, each in by_attack.items()} == {
        name: list(range(6)) for name in ("direct", *registry.together("attack", "auto"))
    }
    # of one ANN's shape and with random numbers of their own, whatever defences and seeds there are
    assert {(cell.seed, cell.control, cell.timesteps) for cell in cells} == {(0, True, 16)}
    assert [cell.replicate for cell in by_attack["direct"]] == list(range(6))
    assert [cell.defense.name for cell in by_attack["direct"]] == ["random", "random", "shuffled"] * 2
    assert len({cell.row for cell in cells}) == 12


def test_ensembles_are_run_on_six_of_them() -> None:
    cells = nulls(planned(seeds=4, attack=["direct", "auto"], preset="standard", timesteps=[4, 8]))
    names = [cell.attack.name for cell in cells]
    assert (names.count("direct"), len(names)) == (20, 44)  # six networks of each of the four
    assert {cell.timesteps for cell in cells} == {4}  # at several T's they are shared
    fewer = nulls(planned(seeds=4, attack=["direct", "auto"], null_networks=3))
    assert len(fewer) == 15
    assert not nulls(planned(seeds=4, null_networks=0))
    assert not nulls(planned(seeds=4, attack=["loss_threshold"]))  # of another kind of leak


def test_controls_that_are_asked_for_are_not_added_twice_and_can_be_left_out() -> None:
    cells = planned(defense=["sengupta2019", "ann"])
    assert labels(cells) == ["han2020", "random", "sengupta2019", "ann"]
    assert [cell.control for cell in rows(cells)] == [True, True, False, True]
    assert labels(planned(controls=False)) == ["sengupta2019"]
    # anchors calibrate the metrics
    assert [cell.anchor for cell in anchors(planned(controls=False)[:4])] == ["noise", "noise", "real", "real"]
    asked = planned(defense=["han2020"], controls=False)
    assert [cell.control for cell in rows(asked)] == [False]  # in question then, and it calibrates all the same
    shuffled = rows(planned(defense=["shuffled"]))  # on request only, and judged like any defence
    assert [(row.defense.name, row.control) for row in shuffled] == [
        *((name, True) for name in CONTROLS),
        ("shuffled", False),
    ]


# --- checks at half the effort -----------------------------------------------------------------------------------


def test_half_an_effort_below_the_parameter_s_bound_is_no_check() -> None:
    """surrogate_zoo takes two steps at least: a check with one could only fail."""
    options = {"defense": "privatesnn", "attack": "surrogate_zoo", "set": {"surrogate_zoo.iterations": 3}}
    assert not checks(plan(make_config(options)))


def test_every_attack_on_a_defence_is_checked_at_half_its_effort() -> None:
    settings = {"inversion.iterations": ["75", "8"], "sengupta2019.images": ["16", "17"]}
    cells = planned(attack=["inversion", "direct"], set=settings)
    assert [(c.defense.label, c.attack.label, c.checks) for c in checks(cells)] == [
        (defense, label, of)
        for defense in ("sengupta2019[images=16]", "sengupta2019[images=17]")
        for label, of in (
            ("inversion[iterations=75] (iterations=37)", "inversion[iterations=75]"),
            ("inversion[iterations=8] (iterations=4)", "inversion[iterations=8]"),
            ("direct (iterations=20)", "direct"),
        )
    ]
    whole = {(c.defense.label, c.attack.label): c for c in attacks(cells)}
    for check in checks(cells):
        of = whole[check.defense.label, check.checks]
        half = {**of.attack.params, "iterations": of.attack.params["iterations"] // 2}
        changed = {**of.attack.changed, "iterations": half["iterations"]}  # what its seeds follow from
        label = check.attack.label
        assert check.attack == of.attack.model_copy(update={"label": label, "params": half, "changed": changed})
        # and in nothing else another cell
        own = {"type", "attack", "checks"}
        assert check.model_dump(exclude=own) == of.model_dump(exclude=own)


@pytest.mark.parametrize(("effort", "depth", "half"), [("depth", "9", 4), ("depth", "1", None), ("", "9", None)])
def test_what_has_no_half_is_not_checked(
    effort: str, depth: str, half: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OwnAttack, "effort", effort)
    registry.register("attack", "own", OwnAttack)
    cells = planned(attack=["own"], set={"own.depth": [depth]})
    assert [c.attack.params["depth"] for c in checks(cells)] == ([] if half is None else [half])


# --- public images -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "given", "source"),
    [("digits", None, "photos"), ("digits:half", None, "half"), ("digits:half", "photos", "photos"),
     ("digits", "fashion-mnist", "fashion-mnist")],
)  # fmt: skip
def test_public_images_stand_in_the_cells_of_attacks_that_use_them_and_in_no_other(
    dataset: str, given: str | None, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OwnAttack, "uses_public", True)
    monkeypatch.setattr(OwnAttack, "effort", "depth")
    registry.register("attack", "own", OwnAttack)
    options = {"dataset": [dataset], "attack": ["own", "direct"], "set": {"own.depth": ["4"]}}
    cells = planned(**options, public=given)

    def others(cells: list[Cell]) -> list[Cell]:
        return [cell for cell in cells if not (isinstance(cell, AttackCell) and cell.attack.name == "own")]

    assert {cell.public for cell in attacks(cells) if cell.attack.name == "own"} == {source}
    # the check at half its effort, too
    assert [c.public for c in checks(cells) if c.checks == "own[depth=4]"] == [source]
    assert {cell.public for cell in (*attacks(others(cells)), *checks(others(cells)))} == {""}
    # so that whatever is named, they are the same cells
    assert others(cells) == others(planned(**options, public="mnist"))


@pytest.mark.slow
def test_a_half_is_sized_as_the_whole() -> None:
    for dataset in ("digits", "cifar100"):
        for preset in ("standard", "paper"):
            whole, half = (planned(dataset=[name], preset=preset) for name in (dataset, f"{dataset}:half"))
            assert {c.dataset for c in half} == {f"{dataset}:half"}
            assert [c.model_copy(update={"dataset": dataset}) for c in half] == whole


# --- the product -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_all_is_every_attack_once() -> None:
    registry.register("attack", "own", OwnAttack)
    found = {cell.attack.name for cell in attacks(planned(attack=["direct", "all"]))}
    plugins = {name: registry.load("attack", name) for name in registry.entries("attack")}
    assert found == {name for name, plugin in plugins.items() if not plugin.ensemble}
    assert {"own", "loss_threshold", "rmia"} <= found
    quoted = {*registry.together("attack", "auto"), *registry.together("attack", "auto_mia")}
    assert not {"auto-v1", "auto_mia-v1", *quoted} & found
    members = {name for name in found if plugins[name].leakage == "membership"}
    # 2 anchors drawn twice, 6 defences of which two are controls of members alone, and on the one that is no control
    # each attack on classes of which half an effort is one at half of it
    halved = sum(
        bool(plugins[name].effort) and plugins[name]().params.model_dump()[plugins[name].effort] > 1
        for name in found - members
    )
    assert len(planned(attack=["all"])) == 4 + 6 + 4 * len(found) + 2 * len(members) + halved
    assert GridConfig(defense=("sengupta2019",)).attack == ("auto",)  # without which nothing can resist


def test_auto_is_the_newest_ensemble_and_what_is_run_with_it() -> None:
    together = "auto-v2", "repaired", "pruned", "distilled"
    found = [cell.attack.label for cell in attacks(planned(attack=["auto"]))]
    assert tuple(dict.fromkeys(found)) == together
    assert planned(attack=["auto"]) == planned(attack=["auto-v2"]) == planned(attack=["auto-v2", "pruned", "auto"])
    assert {cell.attack.label for cell in attacks(planned(attack=["pruned"]))} == {"pruned"}


def test_several_timesteps_repeat_what_spikes_and_not_the_ann() -> None:
    cells = planned(timesteps=["4", "8"], set={"sengupta2019.leak": ["0.5", "0.9"]})
    assert [(cell.defense.label, cell.timesteps) for cell in rows(cells)] == [
        ("ann", None),
        ("han2020[T=4]", 4),
        ("han2020[T=8]", 8),
        ("random[T=4]", 4),
        ("random[T=8]", 8),
        ("sengupta2019[leak=0.5,T=4]", 4),
        ("sengupta2019[leak=0.5,T=8]", 8),
        ("sengupta2019[leak=0.9,T=4]", 4),
        ("sengupta2019[leak=0.9,T=8]", 8),
    ]
    assert labels(planned(timesteps=["4"])) == [*CONTROLS, "sengupta2019"]
    assert [cell.timesteps for cell in rows(planned(timesteps=["4"]))] == [None, 4, 4, 4]


@pytest.mark.parametrize("name", ["overfitted", "unseen"])
def test_trained_controls_simulate_the_preset_s_t_at_least(name: str) -> None:
    def simulated(*timesteps: str) -> list[tuple[str, int | None]]:
        cells = planned(timesteps=list(timesteps), attack=["loss_threshold"])
        return [(cell.defense.label, cell.timesteps) for cell in rows(cells) if cell.defense.name == name]

    assert simulated("4") == [(name, 16)]
    assert simulated("4", "8") == [(name, 16)]
    assert simulated("4", "16", "8", "32") == [(f"{name}[T=16]", 16), (f"{name}[T=32]", 32)]


def test_attacks_on_the_conversion_have_all_controls() -> None:
    """Where it read all training images or none they compare with test images."""

    def controls(*attacks: str) -> dict[str, list[str]]:
        cells = planned(attack=list(attacks), defense=["datafree"])
        attacked = [cell for cell in cells if type(cell) is AttackCell and cell.control]
        return {
            "": [cell.defense.name for cell in rows(cells) if cell.control],
            **{name: [one.defense.name for one in attacked if one.attack.name == name] for name in attacks},
        }

    usual = ["ann", "han2020", "random", "overfitted", "unseen"]
    assert controls("threshold_membership") == {"": usual, "threshold_membership": usual}


def test_one_network_serves_all_timesteps_where_it_is_the_same_for_each() -> None:
    fixed = {"timesteps": ["4", "16", "8"], "defense": ["datafree"], "set": {"datafree.calibration_steps": ["8"]}}
    at = {(cell.defense.name, cell.timesteps): cell.all_timesteps for cell in rows(planned(**fixed))}
    assert {steps: at["datafree", steps] for steps in (4, 8, 16)} == dict.fromkeys((4, 8, 16), (4, 8, 16))
    assert {at["han2020", steps] for steps in (4, 8, 16)} == {()}  # thresholds found over each T
    assert at["ann", None] == ()


def test_without_attacks_there_are_networks_and_nothing_to_measure() -> None:
    cells = planned(attack=["none"])
    assert cells == rows(cells)
    assert labels(cells) == [*CONTROLS, "sengupta2019"]
    with pytest.raises(UsageError, match="can't be combined with others"):
        planned(attack=["none", "direct"])


@pytest.mark.slow
def test_data_sets_models_and_seeds_multiply() -> None:
    cells = planned(dataset=["digits", "mnist"], model=["vgg4", "vgg5"], seeds=3)
    bases = list(itertools.product(("digits", "mnist"), range(3), ("vgg4", "vgg5")))
    noise = [cell for cell in anchors(cells) if cell.anchor == "noise"]
    for fresh in (False, True):
        assert [(c.dataset, c.seed, c.model) for c in noise if c.fresh == fresh] == bases
    assert len(nulls(cells)) == 4 * 6  # of each data set and model, whatever the seeds
    assert len(cells) == 13 * len(bases) + len(nulls(cells))


@pytest.mark.parametrize(
    "options",
    [
        {"timesteps": ["4", "4"]},
        {"model": ["vgg4", "vgg4"]},
        {"dataset": ["digits", "digits"]},
        {"defense": ["sengupta2019", "sengupta2019"], "attack": ["direct", "direct"]},
        {"set": {"sengupta2019.leak": ["0.5", "0.5"]}},
    ],
    ids=["timesteps", "model", "dataset", "plugins", "set"],
)
def test_what_is_named_twice_is_there_once(options: dict[str, Any]) -> None:
    cells = planned(**options)
    unnamed: Any = {"defense": {"label"}, "attack": {"label"}}
    assert len({cell.model_dump_json(exclude=unnamed) for cell in cells}) == len(cells) == 13


def test_presets_set_sizes_and_parameters_and_options_win() -> None:
    quick, paper = planned(), planned(preset="paper")
    assert {cell.images_per_class for cell in quick} == {4}
    assert {cell.images_per_class for cell in paper} == {100}
    assert {cell.test_images for cell in quick} == {1000}
    assert {cell.test_images for cell in paper} == {None}
    assert {c.attack.params["iterations"] for c in attacks(quick)} == {40}  # Direct's own preset
    assert {c.attack.params["iterations"] for c in attacks(paper)} == {2000}  # and its default
    chosen = planned(images_per_class=7, set={"direct.iterations": ["5"]})
    assert {cell.images_per_class for cell in chosen} == {7}
    assert {c.attack.params["iterations"] for c in attacks(chosen)} == {5}
    assert {c.timesteps for c in rows(paper)} == {None, 150}


def test_a_folder_is_accepted_by_name_and_gets_a_model() -> None:
    cells = planned(dataset=["folder:/no/such/place"])  # whether it is there is seen when it is loaded
    assert {(cell.dataset, cell.model) for cell in cells} == {("folder:/no/such/place", "vgg9")}


@pytest.mark.parametrize(
    ("dataset", "preset", "model"),
    [
        ("digits", "quick", "vgg4"),
        ("mnist", "standard", "vgg5"),
        ("fashion-mnist", "paper", "vgg5"),
        ("cifar10", "standard", "vgg9"),
        ("cifar10", "paper", "vgg16"),
        ("tinyimagenet", "paper", "vgg16"),
        ("folder:x", "quick", "vgg9"),
        ("fashion-mnist:half", "paper", "vgg5"),
    ],
)
def test_the_default_model_fits_the_data_set(dataset: str, preset: str, model: str) -> None:
    assert default_model(dataset, preset) == model
    assert {cell.model for cell in planned(dataset=[dataset], preset=preset)} == {model}


@pytest.mark.parametrize(
    ("dataset", "model", "preset", "timesteps"),
    [
        ("digits", "vgg4", "standard", 32),
        ("digits:half", "vgg4bn", "standard", 32),
        ("digits", "vgg4", "quick", 16),
        ("digits", "vgg9", "standard", 150),
        ("fashion-mnist", "vgg5max", "standard", 64),
        ("folder:x", "vgg9", "quick", 64),
        ("folder:x", "resnet8", "standard", 150),
        ("folder:x", "vgg16", "paper", 150),
        ("cifar10", "vgg16", "paper", 150),
        ("cifar100", "vgg16", "paper", 200),
        ("tinyimagenet", "vgg16bn", "paper", 200),
    ],
)
def test_the_default_t_is_what_the_network_needs(dataset: str, model: str, preset: str, timesteps: int) -> None:
    """But for the two data sets on which the paper takes more."""
    cells = planned(dataset=[dataset], model=[model], preset=preset)
    assert {cell.timesteps for cell in rows(cells)} == {None, timesteps}


@pytest.mark.slow
def test_a_defence_and_an_attack_may_share_a_name() -> None:
    registry.register("attack", "own", OwnAttack)
    registry.register("defense", "own", OwnDefense)
    cells = planned(defense=["own"], attack=["own"], controls=False)
    (row,) = rows(cells)
    (attacked,) = attacks(cells)
    assert row.defense.params == {"width": 0.5}
    assert attacked.attack.params == {"depth": 1}


def test_two_plugins_of_one_name_are_told_apart_or_refused(tmp_path: Path) -> None:
    """Else their cells, labels and --set values can't be told from each other."""
    source = (
        "from leakbench.contracts import Access, Attack, Params\n"
        "class Mine(Attack[Params]):\n"
        '    """Mine."""\n'
        '    name = "mine"\n'
        "    needs = Access.LABELS\n"
        "    def run(self, victim, targets, context):\n"
        "        raise AssertionError\n"
    )
    targets = []
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
        targets.append(f"{tmp_path / name}.py:Mine")
    try:
        cells = planned(attack=targets, controls=False)
    except UsageError as error:
        assert "'mine'" in str(error)
    else:
        assert len({cell.attack.label for cell in attacks(cells)}) == 2


def test_the_precision_is_of_all_networks() -> None:
    assert {cell.precision for cell in planned(precision="bfloat16")} == {"bfloat16"}
    assert {cell.precision for cell in planned()} == {"float32"}
    with pytest.raises(UsageError, match=r"--precision: .*'float32', 'tf32' or 'bfloat16'.*got 'half'"):
        make_config({**QUICK, "precision": "half"})


def test_a_defence_with_a_t_of_its_own_has_one_row_in_a_sweep() -> None:
    defenses = ["tdbn", "privatesnn", "han2020"]

    def swept(**settings: list[str]) -> list[str]:
        return labels(planned(defense=defenses, attack=["none"], timesteps=["4", "8"], controls=False, set=settings))

    both = ["privatesnn[T=4]", "privatesnn[T=8]", "han2020[T=4]", "han2020[T=8]"]
    assert swept() == ["tdbn", *both]
    assert len(swept(**{"tdbn.timesteps": ["none"]})) == 6
    assert len(swept(**{"privatesnn.timesteps": ["5"]})) == 1 + 1 + 2
