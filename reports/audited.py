"""Runs that audit a network which was given: what it is, by which controls, and what that can't show."""

from __future__ import annotations

from pathlib import Path

from leakbench import registry
from leakbench.built_ins import GIVEN, NETWORK
from leakbench.leakage.controls import ANN, OVERFITTED, UNPROTECTED, UNSEEN, UNTRAINED
from leakbench.records import RunRecord

LIMIT = (
    "One network can be shown to leak. To name the leaked classes takes three networks of one training recipe, to say "
    "that they resist four."
)
_CONTROLS = {
    ANN: "an ANN",
    UNPROTECTED: "the ANN's unprotected conversion",
    UNTRAINED: "an untrained network",
    f"{UNTRAINED} of it": "the network with the weights of each layer in random order",
    OVERFITTED: "an overfitted network",
    UNSEEN: "a network trained on other images",
}


def noun_of(record: RunRecord) -> str:
    """What the run's rows are: "network" in an audit, where nobody defended anything, else "defence"."""
    return "network" if _file(record) else "defence"


def of_one_network(record: RunRecord) -> bool:
    """Whether every seed is of one network: in an audit, and where the ANN was given."""
    return bool(_file(record) or record.grid.get("ann"))


def audit_lines(record: RunRecord) -> list[str]:
    """What was audited, what it is compared with, and what that can't show; none where the run audits nothing."""
    file = _file(record)
    cell = next((one for one in record.cells if one.defense and not one.control), None)
    if not file or cell is None:
        return []
    about = next((one.summary for one in record.plugins if (one.kind, one.name) == ("defense", cell.defense_name)), "")
    facts = [file, f"sha256 {str(cell.defense_params.get('sha256', ''))[:16]}"]
    facts += [f"T = {cell.timesteps}"] if cell.timesteps else []
    ran = {one.defense_name + " of it" * ("sha256" in one.defense_params) for one in record.cells if one.control}
    controls = [text for name, text in _CONTROLS.items() if name in ran]
    lines = [f"Audited: {', '.join(facts)}. {about}"]
    return [*lines, *([f"Controls: {'; '.join(controls)}."] if controls else []), LIMIT]


def _file(record: RunRecord) -> str:
    """Its name, where one network is all that the grid asks about; empty elsewhere."""
    named = record.grid.get("defense")
    if not isinstance(named, list | tuple) or len(named) != 1 or not str(named[0]).startswith(GIVEN):
        return ""
    return Path(registry.in_file(str(named[0])).removeprefix(NETWORK)).name
