"""The example and the Python guide do what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from api_samples import Computed, two, write

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
    names: dict[str, object] = {"__name__": "guide"}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert [one.folder.name for one in asked if one.folder.name in ("monday", "grey")] == ["monday", "grey"]
    assert asked[-1].grid.attack == ("grey", "direct")
    assert isinstance(names["compared"], ComparisonResult)


def test_what_the_guide_names_is_there() -> None:
    members = {name for kind in (RunResult, ComparisonResult, AttackImage) for name in {*vars(kind), *fields(kind)}}
    for subject, name in re.findall(r"\b(result|compared|one|leakbench)\.(\w+)", GUIDE):
        assert name in members or (subject == "leakbench" and hasattr(leakbench, name)) or name == "errors", name


def fields(kind: type) -> set[str]:
    return set(kind.__annotations__)


@pytest.mark.slow
def test_the_first_look_runs(tmp_path: Path) -> None:
    environment = {**os.environ, "LEAKBENCH_CACHE": str(tmp_path / "cache")}
    script = ROOT / "examples" / "first_look.py"
    done = subprocess.run([sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "runs" / "first-look"
    assert {path.name for path in out.glob("*.png")} == {"leakage.png", "tradeoff.png", "budget.png", "first.png"}
    assert done.stdout.splitlines()[0].startswith("privatesnn, classes: ")
    assert f"report: {out.relative_to(tmp_path) / 'report.html'}" in done.stdout
    assert re.search(r"^\d+ of 40 images are classified as the target class$", done.stdout, re.MULTILINE)  # 4 a class
