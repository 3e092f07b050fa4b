"""What kinds of leak there are, one folder each: see :class:`~leakbench.leakage.kind.LeakageKind`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from leakbench.errors import PluginError

if TYPE_CHECKING:
    from leakbench.cells import UtilityCell
    from leakbench.leakage.kind import Evidence, LeakageKind, OtherTraining
    from leakbench.leakage.seed_group import Declarations
    from leakbench.records import CellRecord
    from leakbench.runtime.workspace import Workspace

__all__ = ["KINDS", "compared_kind", "conclude", "control_training", "leakage_kind", "leakage_kinds"]

KINDS = {
    "inversion": "leakbench.leakage.inversion.kind:Inversion",
    "membership": "leakbench.leakage.membership.kind:Membership",
}
"""name, as an attack's class gives it -> where the kind is"""


def leakage_kind(name: str) -> LeakageKind:
    """The kind of that name. PluginError for an attack that names none of them."""
    if name not in KINDS:
        raise PluginError(f"no kind of leak is named {name!r}: an attack's leakage is one of {', '.join(KINDS)}")
    module, _, attribute = KINDS[name].partition(":")
    return cast("LeakageKind", getattr(importlib.import_module(module), attribute)())


def leakage_kinds() -> list[LeakageKind]:
    """All kinds in their order."""
    return [leakage_kind(name) for name in KINDS]


def compared_kind() -> LeakageKind:
    """The kind by which defences are ranked: a comparison has one ranking."""
    (kind,) = (kind for kind in leakage_kinds() if kind.comparable)
    return kind


def control_training(workspace: Workspace, cell: UtilityCell) -> OtherTraining | None:
    """What the ANN of a cell is trained on, where the cell's defence is a control of a kind of leak that chooses it."""
    chosen = (kind.control_training(workspace, cell) for kind in leakage_kinds())
    return next((training for training in chosen if training is not None), None)


def conclude(cells: Sequence[CellRecord], needs: Mapping[str, str], declared: Declarations) -> Evidence:
    """Scales, rows and verdicts of every kind of leak that the cells of a run are after; ``needs``: plugin name of an
    attack -> its access."""
    from leakbench.leakage.kind import Evidence

    evidence = Evidence()
    for kind in KINDS:
        members = [cell for cell in cells if cell.leakage in ("", kind)]
        if any(cell.leakage for cell in members):
            evidence = evidence.extended(leakage_kind(kind).conclude(members, needs, declared))
    return evidence
