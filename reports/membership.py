"""Membership: how well attacks distinguish training images from others, and the controls that calibrate them."""

from __future__ import annotations

from typing import Any

from leakbench.leakage.membership.kind import Membership
from leakbench.leakage.membership.verdict import HEADLINE, INDEX
from leakbench.reports.member_rows import membership_view
from leakbench.reports.report import Report
from leakbench.reports.roc import panels
from leakbench.reports.vocabulary import Vocabulary


def section(report: Report) -> dict[str, Any] | None:
    """None where no attack was after members."""
    record = report.record
    shown = dict.fromkeys((cell.dataset, cell.model) for cell in record.cells)
    views = [view for where in shown if (view := membership_view(record, *where))]
    declared = Vocabulary(record.metrics).declared.get(HEADLINE)
    if not views:
        return None
    figures = [panels(view.cells, number) for number, view in enumerate(views)]
    return {
        "membership": views, "figures": figures, "declared": declared, "index": INDEX, "gates": Membership.gates
    }  # fmt: skip
