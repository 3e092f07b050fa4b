"""``--isolate`` and ``--no-isolate``: where the choice comes from, and that record and report say how plugins ran."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_said import Leakbench, record_in
from tiny_runs import OURS, Warm

from leakbench.bench import runner
from leakbench.errors import UsageError
from leakbench.runtime import plugins
from leakbench.runtime.isolation.confinement import what_is_lacking
from leakbench.runtime.workspace import Settings

confined = pytest.mark.skipif(bool(what_is_lacking()), reason="this system can't isolate")

MARK = "imported_by_a_test"
"""of the module sys, which the fence around plugins does not look at"""
MARKS = '''
"""An attack whose import leaves a mark."""

import sys

import torch

from leakbench.contracts import Access, Attack, Params

sys.imported_by_a_test = True


class Marks(Attack[Params]):
    """Grey images."""

    name = "marks"
    cites = "nobody"
    needs = Access.LABELS

    def run(self, victim, targets, context):
        return torch.full((len(targets), *victim.image_shape), 0.5)
'''


@pytest.fixture
def marks(tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "marks.py"
    path.write_text(MARKS, encoding="utf-8")
    yield f"{path}:Marks"
    vars(sys).pop(MARK, None)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings of runs that are not computed, on a system that can isolate."""
    seen: list[Settings] = []

    def look(_grid: object, settings: Settings, *_: object) -> None:
        seen.append(settings)
        raise UsageError("enough")

    monkeypatch.setattr(runner, "run_grid", look)
    monkeypatch.setattr(plugins, "what_is_lacking", lambda: "")
    return seen


@pytest.mark.slow
@pytest.mark.parametrize(("options", "reason"), [([], ""), (["--isolate"], ""), (["--no-isolate"], "--no-isolate")])
def test_plugins_are_isolated_unless_the_option_says_otherwise(
    leakbench: Leakbench, tmp_path: Path, asked: list[Settings], options: list[str], reason: str
) -> None:
    (tmp_path / "grid.toml").write_text("defense = 'han2020'\nattack = 'direct'\npreset = 'quick'\n")
    assert leakbench("run", "--config", "grid.toml", "-q", *options).line == "enough"
    (settings,) = asked
    assert settings.isolation.reason == reason
    assert bool(settings.isolation.scratch) == bool(settings.isolation.hidden) == (not reason)


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_on_a_gpu_plugins_are_not_isolated(
    leakbench: Leakbench, marks: str, asked: list[Settings], monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setattr("leakbench.bench.backends.check_device", lambda name: name)
    said = leakbench("run", "-d", "han2020", "-a", marks, "--preset", "quick", "--device", device, "-q")
    assert said.err.splitlines()[0] == "leakbench: marks is not isolated: on a GPU plugins can't be yet"
    assert asked[0].isolation.reason == "on a GPU plugins can't be yet"


@pytest.mark.slow
@pytest.mark.parametrize(("option", "lines"), [("--isolate", 1), ("--no-isolate", 0)])
def test_what_the_system_lacks_is_said_to_who_wanted_isolation(
    leakbench: Leakbench,
    marks: str,
    asked: list[Settings],
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    lines: int,
) -> None:
    monkeypatch.setattr(plugins, "what_is_lacking", lambda: "Darwin has no Landlock")
    said = leakbench("run", "-d", "han2020", "-a", f"direct,{marks}", "--preset", "quick", "-q", option)
    told = [line for line in said.err.splitlines() if "isolated" in line]
    assert told == ["leakbench: marks is not isolated: Darwin has no Landlock"] * lines
    assert len(asked) == 1


def ran(leakbench: Leakbench, warm: Warm, marks: str, out: Path, option: str) -> str:
    """A run of that attack beside one that is built in; the text of its report."""
    arguments = warm.tiny.arguments(out, attack=["direct", marks], controls=False)
    assert leakbench(*arguments, option, "--cache", warm.grown, "-q").status == 0
    return (out / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_run_without_isolation_says_so(leakbench: Leakbench, warm: Warm, marks: str, tmp_path: Path) -> None:
    page = ran(leakbench, warm, marks, tmp_path / "run", "--no-isolate")
    record, how = record_in(tmp_path / "run"), "not isolated: --no-isolate"
    assert hasattr(sys, MARK)
    assert {one.name: one.ran for one in record.plugins} == {OURS: "built-in", "direct": "built-in", "marks": how}
    assert {(cell.attack_name, cell.attack_ran) for cell in record.cells if cell.attack_name} == {
        ("direct", "built-in"),
        ("marks", how),
    }
    assert {cell.defense_ran for cell in record.cells if cell.defense_name} == {"built-in"}
    assert "1 plugin not isolated" in page and page.count(how) >= 3  # flag, method, provenance


@pytest.mark.slow
@confined
def test_an_isolated_run_says_so_and_is_made_anew(leakbench: Leakbench, warm: Warm, marks: str, tmp_path: Path) -> None:
    page = ran(leakbench, warm, marks, tmp_path / "run", "--isolate")
    record = record_in(tmp_path / "run")
    assert not hasattr(sys, MARK)
    assert {one.name: one.ran for one in record.plugins} == {
        OURS: "built-in",
        "direct": "built-in",
        "marks": "isolated",
    }
    assert {cell.attack_ran for cell in record.cells if cell.attack_name == "marks"} == {"isolated"}
    assert "not isolated" not in page and "<dt>marks ran</dt><dd>isolated</dd>" in page
    ran(leakbench, warm, marks, tmp_path / "other", "--no-isolate")
    keys = [
        {cell.attack_name: cell.artifacts["images"] for cell in record_in(out).cells if cell.attack_name}
        for out in (tmp_path / "run", tmp_path / "other")
    ]
    assert keys[0]["direct"] == keys[1]["direct"] and keys[0]["marks"] != keys[1]["marks"]


@pytest.mark.long
@pytest.mark.slow
@confined
def test_a_check_isolates_unless_told_otherwise(leakbench: Leakbench, marks: str) -> None:
    said = leakbench("check", marks, "--json")
    assert said.status == 0, said
    assert not hasattr(sys, MARK)
    assert leakbench("check", marks, "--json", "--no-isolate").status == 0
    assert hasattr(sys, MARK)
    assert {finding["status"] for finding in json.loads(said.out)} == {"ok"}
