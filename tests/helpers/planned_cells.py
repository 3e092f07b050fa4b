"""The cells of a plan, sorted by what they are, and plugins that are planned and never run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from pydantic import Field

from leakbench.bench.grid import make_config
from leakbench.bench.plan import plan
from leakbench.cells import AnchorCell, AttackCell, BaseCell, Cell, CheckCell, NullCell, UtilityCell
from leakbench.contracts import Access, Attack, Defense, Params

QUICK: dict[str, Any] = {"defense": ["sengupta2019"], "attack": ["direct"], "preset": "quick"}


def planned(**options: Any) -> list[Cell]:
    """The plan of a quick grid of one defence and one attack, with these options."""
    return plan(make_config({**QUICK, **options}))


def anchors(cells: Iterable[BaseCell]) -> list[AnchorCell]:
    return [cell for cell in cells if isinstance(cell, AnchorCell)]


def rows(cells: Iterable[BaseCell]) -> list[UtilityCell]:
    """Defences alone."""
    return [cell for cell in cells if type(cell) is UtilityCell]


def labels(cells: Iterable[BaseCell]) -> list[str]:
    """Of the defences."""
    return [cell.defense.label for cell in rows(cells)]


def attacks(cells: Iterable[BaseCell]) -> list[AttackCell]:
    """Attacks on defences, the checks at half the effort left out."""
    return [cell for cell in cells if type(cell) is AttackCell]


def checks(cells: Iterable[BaseCell]) -> list[CheckCell]:
    return [cell for cell in cells if type(cell) is CheckCell]


def nulls(cells: Iterable[BaseCell]) -> list[NullCell]:
    """Attacks on networks that know nothing."""
    return [cell for cell in cells if isinstance(cell, NullCell)]


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
