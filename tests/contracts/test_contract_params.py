"""Parameters of plugins, checked before anything runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import Field, ValidationError
from tiny_plugins import SHAPE, Knobs, Painter, one_line, tiny
from torch import Tensor

from leakbench.contracts import Access, Attack, AttackContext, Defense, Params, Plugin, Victim
from leakbench.errors import UsageError


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"iteration": 5},
            "unknown parameter painter.iteration: did you mean 'iterations'? painter has: iterations, rate",
        ),
        ({"zzz": 5}, "unknown parameter painter.zzz: painter has: iterations, rate, mode"),
        ({"iterations": 0}, "painter.iterations: input should be greater than or equal to 1 (got 0)"),
        ({"rate": 2}, "painter.rate: input should be less than or equal to 1 (got 2)"),
        ({"rate": float("nan")}, "painter.rate: input should be a finite number (got nan)"),
        ({"mode": "fats"}, "painter.mode: input should be 'fast' or 'slow' (got 'fats')"),
        ({"iterations": "x"}, "painter.iterations: input should be a valid integer"),
        ({"iterations": 1, "mode": "slow"}, "painter: slow needs two iterations"),
    ],
)
def test_wrong_parameters_are_one_line_that_says_what_would_be_right(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        Painter(**given)
    assert one_line(error).startswith(message)
    assert error.value.__cause__ is None


class Fields(Params):
    """One of each kind; no bounds but those of ``seed`` and ``long``."""

    count: int = 1
    some: int | None = None
    rate: float = 0.5
    flag: bool = False
    maybe: bool | None = None
    either: int | bool = 1
    text: str = ""
    seed: int = Field(0, ge=0, lt=2**31)
    long: float = Field(1.0, le=1e200)


class Fielded(Painter):
    name = "fielded"
    Params = Fields


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"count": 10_000_001}, "fielded.count: input should be within +-10,000,000 (got 10000001)"),
        ({"count": -10_000_001}, "fielded.count: input should be within +-10,000,000 (got -10000001)"),
        ({"count": "10000001"}, "fielded.count: input should be within +-10,000,000 (got '10000001')"),
        ({"count": 10**400}, "fielded.count: input should be within +-10,000,000"),
        ({"some": 10**9}, "fielded.some: input should be within +-10,000,000"),
        ({"rate": 1.1e38}, "fielded.rate: input should be within +-1e38"),
        ({"rate": "-1e300"}, "fielded.rate: input should be within +-1e38 (got '-1e300')"),
        ({"seed": 2**31}, "fielded.seed: input should be less than 2147483648"),
        ({"count": True}, "fielded.count: input should be a number, not true or false (got True)"),
        ({"some": False}, "fielded.some: input should be a number, not true or false (got False)"),
        ({"rate": True}, "fielded.rate: input should be a number, not true or false (got True)"),
        ({"text": True}, "fielded.text: input should be a valid string (got True)"),
    ],
)
def test_every_number_has_bounds_and_true_is_none(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        Fielded(**given)
    assert one_line(error).startswith(message)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({"count": "5", "some": "7", "rate": "2"}, {"count": 5, "some": 7, "rate": 2.0}),
        ({"count": 10_000_000, "rate": -1e38}, {"count": 10_000_000, "rate": -1e38}),
        ({"seed": 2**31 - 1, "long": 1e199}, {"seed": 2**31 - 1, "long": 1e199}),  # bounds of their own
        ({"flag": "1", "maybe": "0"}, {"flag": True, "maybe": False}),
        ({"flag": True, "maybe": "false", "either": True}, {"flag": True, "maybe": False, "either": True}),
    ],
)
def test_texts_become_numbers_and_booleans(given: dict[str, Any], taken: dict[str, Any]) -> None:
    params = Fielded(**given).params.model_dump()
    assert {name: (type(params[name]), params[name]) for name in given} == {k: (type(v), v) for k, v in taken.items()}


def test_parameters_can_not_be_changed_afterwards() -> None:
    attack = Painter(iterations=7)
    assert (attack.params.iterations, attack.params.rate) == (7, 0.1)
    with pytest.raises(ValidationError):
        attack.params.iterations = 8  # type: ignore[misc]


def test_the_parameters_class_is_the_one_in_the_brackets() -> None:
    class Heir(Painter):
        name = "heir"

    class Generic_(Attack[Params]):  # noqa: N801
        name = "generic"

    assert Painter.Params is Knobs
    assert Heir.Params is Knobs
    assert Generic_.Params is Params


def test_an_heir_may_bring_parameters_of_its_own() -> None:
    class More(Knobs):
        extra: int = 1

    class Heir(Painter):
        name = "heir"
        Params = More

    assert Heir(extra=4).params.model_dump() == {"iterations": 3, "rate": 0.1, "mode": "fast", "extra": 4}


def test_a_plugin_without_brackets_has_no_parameters() -> None:
    class Plain(Attack):  # type: ignore[type-arg]
        name = "plain"
        needs = Access.WEIGHTS

        def run(self, victim: Victim, targets: Tensor, context: AttackContext) -> Tensor:  # noqa: ARG002
            return torch.zeros(len(targets), *victim.image_shape)

    assert Plain()(
        Victim(tiny(), Access.WEIGHTS), torch.tensor([1]), AttackContext(torch.Generator().manual_seed(0))
    ).images.shape == (1, *SHAPE)
    with pytest.raises(UsageError, match=r"unknown parameter plain\.x: plain has: none"):
        Plain(x=1)


def test_kinds() -> None:
    assert (Attack.kind, Defense.kind) == ("attack", "defense")
    assert issubclass(Attack, Plugin) and issubclass(Defense, Plugin)


def test_none_in_words_is_none_where_a_field_takes_it() -> None:
    assert Fields(some=3).some == 3 and Fields.model_validate({"some": "none", "maybe": "none"}).some is None
    assert Fields(text="none").text == "none"
    with pytest.raises(ValidationError):
        Fields.model_validate({"count": "none"})
