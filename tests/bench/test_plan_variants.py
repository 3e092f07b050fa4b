"""Variants of a plugin: one for each combination of its parameters' values, with a label that tells them apart."""

from __future__ import annotations

from typing import ClassVar

import pytest
from planned_cells import OwnAttack, OwnDefense, attacks, labels, planned, rows
from pydantic import Field

from leakbench import registry
from leakbench.attacks.direct import Direct
from leakbench.contracts import Params
from leakbench.errors import UsageError

CONTROLS = ["ann", "han2020", "random"]


def test_several_values_make_variants_with_their_values_in_the_label() -> None:
    settings = {"sengupta2019.leak": ["0.5", "0.9"], "sengupta2019.images": ["16"], "direct.iterations": ["2", "3"]}
    cells = planned(set=settings)
    assert labels(cells) == [*CONTROLS, *(f"sengupta2019[images=16,leak={leak}]" for leak in (0.5, 0.9))]
    assert [cell.defense.params for cell in rows(cells)[3:]] == [
        {"images": 16, "encoder": "poisson", "leak": 0.5, "calibration_steps": None},
        {"images": 16, "encoder": "poisson", "leak": 0.9, "calibration_steps": None},
    ]
    attacked = [(c.defense.label, c.attack.label, c.attack.params) for c in attacks(cells)]
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
        return attacks(planned(set={"direct.iterations": [iterations]}))[0].attack.label

    assert (label(40), label(100)) == ("direct", "direct[iterations=100]")  # 40 in quick, which is planned here


def test_the_same_value_typed_twice_is_one_row() -> None:
    assert labels(planned(set={"sengupta2019.leak": ["0.5", "0.50", "1", "1.0"]}))[3:] == [
        "sengupta2019[leak=0.5]",
        "sengupta2019[leak=1]",
    ]


@pytest.mark.slow
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
    found = {c.attack.label for c in attacks(planned(attack=["wordy"], set={"wordy.word": odd}))}
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


def test_quantize_is_a_parameter_of_every_defence() -> None:
    registry.register("defense", "own", OwnDefense)
    cells = planned(
        defense=["own", "han2020", "ann"], attack=["none"],
        set={f"{name}.quantize": ["none", "int8"] for name in ("own", "han2020", "ann")},
    )  # fmt: skip
    wanted = [name + of for name in ("own", "han2020", "ann") for of in ("", "[quantize=int8]")]
    assert sorted(label for label in labels(cells) if label != "random") == sorted(wanted)
    plain, rounded = (next(c.defense for c in rows(cells) if c.defense.label == label) for label in wanted[2:4])
    (before,) = (c.defense for c in rows(planned(attack=["none"])) if c.defense.name == "han2020")
    assert plain == before
    assert rounded.params == before.params and rounded.changed == before.changed
    assert rounded.all_params == {**before.all_params, "quantize": "int8"}
    assert rounded.identity == {**before.identity, "params": rounded.all_params} != before.identity


def test_quantize_stands_behind_a_defence_s_own_parameters_in_the_label() -> None:
    settings = {"sengupta2019.quantize": ["int8"], "sengupta2019.images": ["16", "17"]}
    assert labels(planned(attack=["none"], set=settings))[3:] == [
        "sengupta2019[images=16,quantize=int8]",
        "sengupta2019[images=17,quantize=int8]",
    ]
    settings["sengupta2019.quantize"] = ["none"]
    assert labels(planned(attack=["none"], set=settings))[3:] == ["sengupta2019[images=16]", "sengupta2019[images=17]"]


def test_a_defence_s_own_parameter_of_that_name_is_its_own() -> None:
    class Bits(Params):
        quantize: int = Field(8, ge=2, le=8, description="bits")

    class Rounding(OwnDefense):
        name = "rounding"
        Params = Bits

    registry.register("defense", "rounding", Rounding)
    cells = planned(defense=["rounding"], attack=["none"], set={"rounding.quantize": ["4"]})
    variant = rows(cells)[-1].defense
    assert (variant.label, variant.params, variant.quantize) == ("rounding[quantize=4]", {"quantize": 4}, "none")


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("han2020.quantize", "int4", r"han2020\.quantize: input should be 'none' or 'int8' \(got 'int4'\)"),
        ("han2020.quantise", "int8", r"unknown parameter han2020\.quantise: did you mean 'quantize'\? han2020 has: .*"),
        ("direct.quantize", "int8", r"unknown parameter direct\.quantize: .*direct has: iterations, zeta,"),
    ],
)
def test_a_wrong_quantize_is_refused_in_one_line(key: str, value: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        planned(set={key: [value]})
