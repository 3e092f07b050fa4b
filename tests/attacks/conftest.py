"""What tests of attacks share."""

from __future__ import annotations

import pytest

from leakbench.attacks import copies, distilled, members, pruned, repaired


@pytest.fixture
def ensemble_in_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three steps of everything in the recommended ensemble."""
    few = members.INVERSION.params.model_copy(update={"iterations": 3})
    for member in (members.INVERSION, members.TWIN):
        monkeypatch.setattr(member, "params", few)
    monkeypatch.setattr(members.Member.__init__, "__defaults__", (few, None))
    for module in (copies, repaired, pruned):
        monkeypatch.setattr(module, "GLANCE", few)
    monkeypatch.setattr(copies, "LESSON", 60)
    monkeypatch.setattr(distilled, "SHARED_QUERIES", 60)
    for module in (distilled, repaired):
        monkeypatch.setattr(module, "_STEPS", 3)
