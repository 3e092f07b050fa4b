"""From options to cells: controls, variants, labels, defaults, and what is refused."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import Field

from leakbench import registry
from leakbench.attacks.direct import Direct
from leakbench.bench.grid import Cell, GridConfig, default_model, grid_digest, make_config, plan
from leakbench.contracts import Access, Attack, Defense, Params
from leakbench.errors import LeakBenchError, UnknownName, UsageError

QUICK = {"defense": ["sengupta2019"], "attack": ["direct"], "preset": "quick"}
CONTROLS = ["ann", "han2020", "random"]


def planned(**options: Any) -> list[Cell]:
    return plan(make_config({**QUICK, **options}))


def rows(cells: list[Cell]) -> list[Cell]:
    return [cell for cell in cells if cell.defense is not None and cell.attack is None]


def labels(cells: list[Cell]) -> list[str]:
    return [cell.defense.label for cell in rows(cells) if cell.defense]


def refused(**options: Any) -> str:
    with pytest.raises(LeakBenchError) as caught:
        planned(**options)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    return text


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    monkeypatch.setattr(registry, "_registered", {"attack": {}, "defense": {}})


class OwnParams(Params):
    depth: int = Field(3, ge=1, le=9, description="how deep")


class OwnAttack(Attack[OwnParams]):
    """An attack."""

    name = "own"
    needs = Access.LABELS
    presets: ClassVar = {"quick": {"depth": 1}}

    def run(self, victim: Any, targets: Any, context: Any) -> Any:  # noqa: ARG002
        raise AssertionError("planning runs nothing")


class OtherParams(Params):
    width: float = Field(0.5, gt=0, description="how wide")


class OwnDefense(Defense[OtherParams]):
    """A defence that has the same name as the attack."""

    name = "own"

    def protect(self, ann: Any, data: Any, context: Any) -> Any:  # noqa: ARG002
        raise AssertionError("planning runs nothing")


# --- the cells ---------------------------------------------------------------------------------------------------


def test_controls_anchors_and_checks_are_added_and_marked() -> None:
    cells = planned()
    found = [
        (c.anchor, c.defense.name if c.defense else "", c.attack.label if c.attack else "", c.of, c.control)
        for c in cells
    ]
    assert found == [
        ("noise", "", "", "", True),
        ("noise", "", "", "noise", True),  # a fresh draw
        ("real", "", "", "", True),
        ("real", "", "", "real", True),
        ("", "ann", "", "", True),
        ("", "han2020", "", "", True),  # the conversion that protects nothing
        ("", "random", "", "", True),
        ("", "sengupta2019", "", "", False),
        ("", "ann", "direct", "", True),
        ("", "han2020", "direct", "", True),
        ("", "random", "direct", "", True),
        ("", "sengupta2019", "direct", "", False),
        ("", "sengupta2019", "direct (iterations=20)", "direct", False),  # of quick's 40
    ]


def test_controls_that_are_asked_for_are_not_added_twice_and_can_be_left_out() -> None:
    cells = planned(defense=["sengupta2019", "ann"])
    assert labels(cells) == ["han2020", "random", "sengupta2019", "ann"]
    assert [cell.control for cell in rows(cells)] == [True, True, False, True]
    assert labels(planned(controls=False)) == ["sengupta2019"]
    # anchors calibrate the metrics
    assert [cell.anchor for cell in planned(controls=False)][:4] == ["noise", "noise", "real", "real"]
    asked = planned(defense=["han2020"], controls=False)
    assert [cell.control for cell in rows(asked)] == [False]  # in question then, and it calibrates all the same
    shuffled = rows(planned(defense=["shuffled"]))  # on request only, and judged like any defence
    assert [(row.defense.name, row.control) for row in shuffled if row.defense] == [
        *((name, True) for name in CONTROLS),
        ("shuffled", False),
    ]


# --- checks at half the effort -----------------------------------------------------------------------------------


def test_half_an_effort_below_the_parameter_s_bound_is_no_check() -> None:
    """surrogate_zoo takes two steps at least: a check with one could only fail."""
    options = {"defense": "privatesnn", "attack": "surrogate_zoo", "set": {"surrogate_zoo.iterations": 3}}
    assert not [cell for cell in plan(make_config(options)) if cell.of and cell.attack]


def test_every_attack_on_a_defence_is_checked_at_half_its_effort() -> None:
    settings = {"inversion.iterations": ["75", "8"], "sengupta2019.images": ["16", "17"]}
    cells = planned(attack=["inversion", "direct"], set=settings)
    checks = [cell for cell in cells if cell.of and cell.defense]
    assert [(c.defense.label, c.attack.label, c.of) for c in checks if c.defense and c.attack] == [
        (defense, label, of)
        for defense in ("sengupta2019[images=16]", "sengupta2019[images=17]")
        for label, of in (
            ("inversion[iterations=75] (iterations=37)", "inversion[iterations=75]"),
            ("inversion[iterations=8] (iterations=4)", "inversion[iterations=8]"),
            ("direct (iterations=20)", "direct"),
        )
    ]
    whole = {(c.defense.label, c.attack.label): c for c in cells if c.defense and c.attack and not c.of}
    for check in checks:
        assert check.defense is not None and check.attack is not None
        of = whole[check.defense.label, check.of]
        assert of.attack is not None
        half = {**of.attack.params, "iterations": of.attack.params["iterations"] // 2}
        assert check.attack == of.attack.model_copy(update={"label": check.attack.label, "params": half})
        # and in nothing else another cell
        assert check == of.model_copy(update={"attack": check.attack, "of": check.of})


@pytest.mark.usefixtures("own_registry")
@pytest.mark.parametrize(("effort", "depth", "half"), [("depth", "9", 4), ("depth", "1", None), ("", "9", None)])
def test_what_has_no_half_is_not_checked(
    effort: str, depth: str, half: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OwnAttack, "effort", effort)
    registry.register("attack", "own", OwnAttack)
    cells = planned(attack=["own"], set={"own.depth": [depth]})
    assert [c.attack.params["depth"] for c in cells if c.of and c.attack] == ([] if half is None else [half])


# --- public images -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("own_registry")
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
    assert {cell.public for cell in cells if cell.attack and cell.attack.name == "own"} == {source}
    assert [c.public for c in cells if c.of == "own[depth=4]"] == [source]  # the check at half its effort, too
    others = [cell for cell in cells if not (cell.attack and cell.attack.name == "own")]
    assert {cell.public for cell in others} == {""}
    # so that whatever is named, they are the same cells
    assert others == [c for c in planned(**options, public="mnist") if not (c.attack and c.attack.name == "own")]


def test_a_half_is_sized_as_the_whole() -> None:
    for dataset in ("digits", "cifar100"):
        for preset in ("standard", "paper"):
            whole, half = (planned(dataset=[name], preset=preset) for name in (dataset, f"{dataset}:half"))
            assert {c.dataset for c in half} == {f"{dataset}:half"}
            assert [c.model_copy(update={"dataset": dataset}) for c in half] == whole


# --- the product -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("own_registry")
def test_all_is_every_attack_once() -> None:
    registry.register("attack", "own", OwnAttack)
    found = {cell.attack.name for cell in planned(attack=["direct", "all"]) if cell.attack}
    plugins = {name: registry.load("attack", name) for name in registry.entries("attack")}
    on_classes = {name for name, plugin in plugins.items() if plugin.leakage == "inversion"}
    assert found == {name for name in on_classes if not plugins[name].ensemble}
    assert "own" in found
    assert "auto-v1" not in found
    # 2 anchors drawn twice, 4 defences, and on the one that is no control each but own at half its effort
    assert len(planned(attack=["all"])) == 8 + 4 * len(found) + len(found) - 1
    assert GridConfig(defense=("sengupta2019",)).attack == ("all",)


def test_auto_is_the_newest_ensemble() -> None:
    assert {cell.attack.label for cell in planned(attack=["auto"]) if cell.attack} == {"auto-v1"}
    assert planned(attack=["auto"]) == planned(attack=["auto-v1"])


def test_several_values_make_variants_with_their_values_in_the_label() -> None:
    settings = {"sengupta2019.leak": ["0.5", "0.9"], "sengupta2019.images": ["16"], "direct.iterations": ["2", "3"]}
    cells = planned(set=settings)
    assert labels(cells) == [*CONTROLS, *(f"sengupta2019[images=16,leak={leak}]" for leak in (0.5, 0.9))]
    assert [cell.defense.params for cell in rows(cells)[3:] if cell.defense] == [
        {"images": 16, "encoder": "poisson", "leak": 0.5, "calibration_steps": None},
        {"images": 16, "encoder": "poisson", "leak": 0.9, "calibration_steps": None},
    ]
    attacked = [
        (c.defense.label, c.attack.label, c.attack.params) for c in cells if c.defense and c.attack and not c.of
    ]
    assert attacked == [
        (defense, f"direct[iterations={n}]", Direct(iterations=n).params.model_dump())
        for defense in labels(cells)
        for n in (2, 3)
    ]


@pytest.mark.parametrize(
    ("given", "label"),
    [
        ({"leak": ["0.5"]}, "sengupta2019[leak=0.5]"),
        ({"leak": ["0.50"]}, "sengupta2019[leak=0.5]"),  # however it was typed
        ({"leak": ["1"]}, "sengupta2019"),  # what it is anyway
        ({"leak": ["1.0", "0.5"]}, "sengupta2019[leak=1]"),
        ({"encoder": ["direct"], "images": ["16"]}, "sengupta2019[images=16,encoder=direct]"),
        ({"images": ["16"], "encoder": ["direct"]}, "sengupta2019[images=16,encoder=direct]"),  # in whatever order
    ],
)
def test_a_value_that_was_set_stands_in_the_label_where_it_is_another_than_it_was(
    given: dict[str, list[str]], label: str
) -> None:
    cells = planned(set={f"sengupta2019.{name}": values for name, values in given.items()})
    assert labels(cells)[3] == label


def test_the_preset_s_own_value_is_no_other_and_the_default_is() -> None:
    def label(iterations: int) -> str:
        return next(c.attack.label for c in planned(set={"direct.iterations": [iterations]}) if c.attack)

    assert (label(40), label(100)) == ("direct", "direct[iterations=100]")  # 40 in quick, which is planned here


def test_the_same_value_typed_twice_is_one_row() -> None:
    assert labels(planned(set={"sengupta2019.leak": ["0.5", "0.50", "1", "1.0"]}))[3:] == [
        "sengupta2019[leak=0.5]",
        "sengupta2019[leak=1]",
    ]


@pytest.mark.usefixtures("own_registry")
def test_no_two_values_read_the_same_in_a_label() -> None:
    class Words(Params):
        word: str | bool | float | None = Field("plain", description="a value of any kind")
        other: str = Field("plain", description="one more")

    class Wordy(OwnAttack):
        name = "wordy"
        Params = Words
        presets: ClassVar = {}

    registry.register("attack", "wordy", Wordy)
    odd = ["a,other=b", "a", "a b", "True", True, "None", None, "0.5", 0.5, "", "]", '"a"', "\x1b[31m"]
    found = {c.attack.label for c in planned(attack=["wordy"], set={"wordy.word": odd}) if c.attack}
    assert len(found) == len(odd)
    assert not any(char in label for label in found for char in "\x1b\n")
    assert "wordy[word=a]" in found and 'wordy[word="a,other=b"]' in found and "wordy[word=True]" in found


def test_two_parameters_make_their_product() -> None:
    cells = planned(set={"sengupta2019.images": ["16", "17"], "sengupta2019.leak": ["0.95", "1"]})
    assert labels(cells)[3:] == [
        "sengupta2019[images=16,leak=0.95]",
        "sengupta2019[images=16,leak=1]",
        "sengupta2019[images=17,leak=0.95]",
        "sengupta2019[images=17,leak=1]",
    ]


def test_several_timesteps_repeat_what_spikes_and_not_the_ann() -> None:
    cells = planned(timesteps=["4", "8"], set={"sengupta2019.leak": ["0.5", "0.9"]})
    assert [(cell.defense.label, cell.timesteps) for cell in rows(cells) if cell.defense] == [
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


def test_one_network_serves_all_timesteps_where_it_is_the_same_for_each() -> None:
    fixed = {"timesteps": ["4", "16", "8"], "defense": ["datafree"], "set": {"datafree.calibration_steps": ["8"]}}
    at = {(cell.defense.name, cell.timesteps): cell.at for cell in planned(**fixed) if cell.defense}
    assert {steps: at["datafree", steps] for steps in (4, 8, 16)} == dict.fromkeys((4, 8, 16), (4, 8, 16))
    assert {at["han2020", steps] for steps in (4, 8, 16)} == {()}  # thresholds found over each T
    assert at["ann", None] == ()


def test_without_attacks_there_are_networks_and_nothing_to_judge() -> None:
    cells = planned(attack=["none"])
    assert cells == rows(cells)
    assert labels(cells) == [*CONTROLS, "sengupta2019"]
    assert "stands alone" in refused(attack=["none", "direct"])


def test_data_sets_models_and_seeds_multiply() -> None:
    cells = planned(dataset=["digits", "mnist"], model=["vgg4", "vgg5"], seeds=3)
    bases = list(itertools.product(("digits", "mnist"), range(3), ("vgg4", "vgg5")))
    for of in ("", "noise"):
        assert [(c.dataset, c.seed, c.model) for c in cells if c.anchor == "noise" and c.of == of] == bases
    assert len(cells) == 13 * len(bases)


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
    keys = [cell.model_copy(update={"defense": None, "attack": None}).model_dump_json() for cell in cells]
    parts = [(cell.defense and cell.defense.params, cell.attack and cell.attack.params) for cell in cells]
    assert len({f"{key} {part}" for key, part in zip(keys, parts, strict=True)}) == len(cells) == 13


def test_presets_set_sizes_and_parameters_and_options_win() -> None:
    quick, paper = planned(), planned(preset="paper")
    assert {cell.images_per_class for cell in quick} == {4}
    assert {cell.images_per_class for cell in paper} == {100}
    assert {cell.test_images for cell in quick} == {1000}
    assert {cell.test_images for cell in paper} == {None}
    assert {c.attack.params["iterations"] for c in quick if c.attack and not c.of} == {40}  # Direct's own preset
    assert {c.attack.params["iterations"] for c in paper if c.attack and not c.of} == {2000}  # and its default
    chosen = planned(images_per_class=7, set={"direct.iterations": ["5"]})
    assert {cell.images_per_class for cell in chosen} == {7}
    assert {c.attack.params["iterations"] for c in chosen if c.attack and not c.of} == {5}
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


@pytest.mark.usefixtures("own_registry")
def test_a_defence_and_an_attack_may_share_a_name() -> None:
    registry.register("attack", "own", OwnAttack)
    registry.register("defense", "own", OwnDefense)
    cells = planned(defense=["own"], attack=["own"], controls=False)
    (row,) = rows(cells)
    (attacked,) = [cell for cell in cells if cell.attack]
    assert row.defense is not None and attacked.attack is not None
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
        assert len({cell.attack.label for cell in cells if cell.attack}) == 2


def test_the_digest_is_of_the_grid_alone() -> None:
    first = make_config(QUICK)
    assert grid_digest(first) == grid_digest(make_config(dict(QUICK)))
    others: list[dict[str, Any]] = [
        {"defense": ["datafree"]},
        {"attack": ["all"]},
        {"dataset": ["mnist"]},
        {"model": ["vgg4"]},
        {"timesteps": ["4"]},
        {"seeds": 2},
        {"images_per_class": 3},
        {"preset": "standard"},
        {"set": {"direct.iterations": ["3"]}},
        {"ann": "weights.safetensors"},
        {"controls": False},
        {"public": "photos"},
        {"precision": "bfloat16"},
    ]
    assert {next(iter(other)) for other in others} == set(GridConfig.model_fields) - {"suite"}
    digests = {grid_digest(make_config({**QUICK, **other})) for other in others}
    digests.add(grid_digest(make_config({"suite": "paper"})))
    assert len(digests | {grid_digest(first)}) == len(others) + 2


def test_the_precision_is_of_what_spikes() -> None:
    cells = planned(precision="bfloat16")
    assert {cell.precision for cell in cells if cell.timesteps is not None} == {"bfloat16"}
    assert {cell.precision for cell in cells if cell.timesteps is None} == {"float32"}
    with pytest.raises(UsageError, match=r"--precision: .*'float32', 'tf32' or 'bfloat16'.*got 'half'"):
        make_config({**QUICK, "precision": "half"})


def test_nested_settings_of_a_toml_file_are_dotted_names() -> None:
    given = {"sengupta2019": {"leak": [0.5, 0.9], "images": 16}, "direct.iterations": 2}
    nested = make_config({**QUICK, "set": given})
    assert dict(nested.set) == {
        "sengupta2019.leak": (0.5, 0.9),
        "sengupta2019.images": (16,),
        "direct.iterations": (2,),
    }
    assert labels(plan(nested))[3:] == ["sengupta2019[images=16,leak=0.5]", "sengupta2019[images=16,leak=0.9]"]


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "nearest"),
    [
        ({"defense": ["privatesn"]}, "'privatesnn'"),
        ({"attack": ["direkt"]}, "'direct'"),
        ({"dataset": ["digit"]}, "'digits'"),
        ({"dataset": ["digts:half"]}, "'digits:half'"),
        ({"public": "photo"}, "'photos'"),
        ({"public": "fashionmnist"}, "'fashion-mnist'"),
        ({"model": ["vgg_4"]}, "'vgg4'"),
        ({"set": {"hann2020.beta": ["0.5"]}}, "'han2020'"),
        ({"set": {"han2020.betta": ["0.5"]}}, "'beta'"),
        ({"set": {"direct.iteration": ["5"]}}, "'iterations'"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest_one(options: dict[str, Any], nearest: str) -> None:
    text = refused(**options)
    assert text.startswith("unknown ")
    assert f"did you mean {nearest}?" in text


def test_a_name_like_no_other_lists_what_there_is() -> None:
    text = refused(defense=["qqqqqq"])
    assert "did you mean" not in text
    assert all(name in text for name in registry.entries("defense"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"timesteps": ["0"]}, ["--timesteps", "at least 1", "0"]),
        ({"timesteps": ["4", "-3"]}, ["--timesteps", "at least 1", "-3"]),
        ({"timesteps": ["four"]}, ["--timesteps", "integer", "four"]),
        ({"seeds": 0}, ["--seeds", "greater than or equal to 1", "0"]),
        ({"seeds": -1}, ["--seeds", "greater than or equal to 1", "-1"]),
        ({"images_per_class": 0}, ["--images-per-class", "greater than or equal to 1", "0"]),
        ({"preset": "fast"}, ["--preset", "'quick'", "'standard'", "'paper'", "fast"]),
        ({"set": {"han2020": ["0.5"]}}, ["--set", "plugin.param=value"]),
        ({"set": {"han2020.beta": ["1.5"]}}, ["han2020.beta", "less than or equal to 1", "1.5"]),
        ({"set": {"han2020.beta": ["0.5", "x"]}}, ["han2020.beta", "number", "x"]),
        ({"set": {"han2020.encoder": ["morse"]}}, ["han2020.encoder", "'poisson'", "'direct'", "morse"]),
        ({"set": {"privatesnn.epochs": ["5"]}}, ["privatesnn"]),
        ({"set": 5}, ["--set", "5"]),
        ({"ann": "/no/such.safetensors"}, ["--ann", "/no/such.safetensors"]),
        ({"defense": []}, ["--defense"]),
        ({"dataset": []}, ["--dataset"]),
        ({"public": "digits"}, ["public images 'digits'", "the private ones of 'digits'", "photos"]),
        ({"public": "half"}, ["public images 'half'", "digits:half"]),
        ({"public": ["photos"]}, ["--public", "string"]),
    ],
)
def test_wrong_values_are_refused_in_one_line(options: dict[str, Any], words: list[str]) -> None:
    text = refused(**options)
    assert [word for word in words if word not in text] == []


@pytest.mark.parametrize("value", ["inf", "nan", "-inf"])
def test_a_parameter_must_be_a_finite_number(value: str) -> None:
    """JSON, and so every key and record, knows no infinity: it is refused before anything is computed."""
    assert "direct.zeta" in refused(set={"direct.zeta": [value]})


def test_an_unknown_option_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UnknownName, match=r"'images-per-clas'.*did you mean 'images-per-class'"):
        make_config({**QUICK, "images_per_clas": 3})


def test_a_grid_without_a_defence_says_how_to_name_one() -> None:
    with pytest.raises(UsageError, match=r"--defense is missing.*privatesnn"):
        make_config({})
