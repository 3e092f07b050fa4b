"""What the sections of a run's page share: the record, and what more than one of them shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from leakbench.bench.comparison import Comparison
    from leakbench.records import RecordFiles, RunRecord
    from leakbench.reports.curves import Curve
    from leakbench.reports.flags import Flag
    from leakbench.reports.method import Method
    from leakbench.reports.summary import Group
    from leakbench.reports.wall import Wall


@dataclass(frozen=True)
class Report:
    """A run as its page shows it; every section's partial has these fields by their names."""

    record: RunRecord
    run: Path
    """the folder that its pictures are in"""
    files: RecordFiles
    groups: Sequence[Group]
    walls: Mapping[int, Wall]
    """number of a group -> its pictures; none where the run kept none"""
    curves: Mapping[int, Sequence[Curve]]
    """number of a group -> its sweeps"""
    noun: str
    """what its rows are: "network" or "defence" """
    compared: Comparison
    """the defences side by side"""
    flags: Sequence[Flag]
    method: Method
