"""The Python guide does what it says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from api_samples import Computed, two, write
from torch import nn

import leakbench
from leakbench import registry
from leakbench.api import AttackImage, ComparisonResult, RunResult

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_every_call_of_the_guide_works(
    computed: Callable[..., list[Computed]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its runs are planned, and a record written by hand is what comes out of them."""
    monkeypatch.setattr(registry, "_registered", {})
    asked = computed(two())
    write(tmp_path / "runs" / "tuesday", two())
    blocks = re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == GUIDE.count("```python")
    # whatever it knows
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron").IFNode(v_reset=None)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), neuron, nn.Flatten(), nn.Linear(144, 10))
    monkeypatch.setattr("leakbench.session.answers.check_answers", lambda *_: None)
    names: dict[str, object] = {"__name__": "guide", "network": network}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert [one.folder.name for one in asked if one.folder.name in ("monday", "grey")] == ["monday", "grey"]
    assert asked[-2].grid.attack == ("grey", "direct")
    assert asked[-1].grid.model == ("graph: conv 4 k3x3 b; relu; flatten; linear 10 b",)
    assert isinstance(names["compared"], ComparisonResult)


def test_what_the_guide_names_is_there() -> None:
    members = {name for kind in (RunResult, ComparisonResult, AttackImage) for name in {*vars(kind), *fields(kind)}}
    for subject, name in re.findall(r"\b(result|compared|one|leakbench)\.(\w+)", GUIDE):
        assert name in members or (subject == "leakbench" and hasattr(leakbench, name)) or name == "errors", name


def fields(kind: type) -> set[str]:
    return set(kind.__annotations__)
