"""Help, list and info: what they print, and that names are listed without torch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from cli_said import Leakbench
from tiny_runs import (
    Warm,
)

from leakbench import __version__, registry
from leakbench.bench.grid import SIZES
from leakbench.bench.protocols import PROTOCOLS
from leakbench.cli import main
from leakbench.data import dataset_names
from leakbench.models import model_names

COMMANDS = ("run", "list", "info", "report", "doctor", "cache")


@pytest.mark.slow
def test_help_names_every_command_and_the_first_step(leakbench: Leakbench) -> None:
    said = leakbench("--help")
    assert (said.status, said.err) == (0, "")
    assert all(command in said.out for command in COMMANDS)
    assert "leakbench run --defense privatesnn --attack auto,auto_mia" in said.out
    assert leakbench().out.strip() == said.out.strip()
    assert leakbench("--version").out == f"leakbench {__version__}\n"


def test_the_script_is_the_same_command() -> None:
    (script,) = entry_points(group="console_scripts", name="leakbench")
    assert script.load() is main


@pytest.mark.parametrize("command", [*COMMANDS, "cache ls", "cache prune"])
def test_every_command_explains_itself(leakbench: Leakbench, command: str) -> None:
    said = leakbench(*command.split(), "--help")
    assert (said.status, said.err) == (0, "")
    assert f"leakbench {command}" in said.out


@pytest.mark.parametrize("width", [80, 120])
def test_the_help_of_run_is_in_groups_and_whole(
    leakbench: Leakbench, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = leakbench("run", "--help").out.splitlines()
    assert max(map(len, lines)) <= width
    groups = [line.split("─ ")[1].split(" ─")[0] for line in lines if line.startswith("╭─ ")]
    assert groups == ["What to run", "How much", "Data and weights", "Where and how it runs", "Output"]
    start = {group: next(n for n, line in enumerate(lines) if f"─ {group} ─" in line) for group in groups}
    placed = {
        line.split()[1]: group
        for group in groups
        for line in lines[start[group] : next(n for n in range(start[group], len(lines)) if lines[n][0] == "╰")]
        if line.startswith("│ --")
    }
    assert placed["--defense"] == placed["--set"] == "What to run"
    assert placed["--seeds"] == "How much"
    assert placed["--out"] == "Where and how it runs"
    assert placed["--json"] == placed["--help"] == "Output"
    assert any("runs/DATASET-DEFENSES-HASH" in line for line in lines)


@pytest.mark.slow
def test_list_names_everything_there_is(leakbench: Leakbench) -> None:
    said = leakbench("list")
    assert (said.status, said.err) == (0, "")
    first = re.findall(r"^  (\S+)", said.out, re.MULTILINE)
    wanted = [
        *registry.entries("defense"),
        *("auto", "auto_mia"),
        *registry.entries("attack"),
        *registry.entries("metric"),
        *dataset_names(),
        *("NAME:half", "folder:PATH", "FILE.npz"),
        *model_names(),
        *("quick", "standard", "paper-cpu", "paper"),
        *PROTOCOLS,
    ]
    assert first == wanted
    assert "(needs WEIGHTS)" in next(line for line in said.out.splitlines() if line.startswith("  direct"))
    assert "can't be" not in said.out
    attacks = leakbench("list", "attacks").out
    assert attacks.splitlines()[0] == "attacks"
    assert attacks in said.out
    (auto,) = [line for line in attacks.splitlines() if line.startswith("  auto ")]
    newest = registry.newest("attack", "auto")
    assert f"(now {newest}; with repaired, pruned, distilled; needs WEIGHTS)" in auto


@pytest.mark.slow
def test_list_as_json(leakbench: Leakbench) -> None:
    said = leakbench("list", "--json")
    assert (said.status, said.err) == (0, "")
    listed = json.loads(said.out)
    assert list(listed) == ["defenses", "attacks", "metrics", "datasets", "models", "presets", "protocols"]
    assert all({"name", "summary"} <= row.keys() for rows in listed.values() for row in rows)
    attacks = {row["name"]: row for row in listed["attacks"]}
    assert (attacks["label_only"]["needs"], attacks["label_only"]["uses_public"]) == ("LABELS", True)
    assert {name for name, row in attacks.items() if row["uses_references"]} == {
        "auto_mia", "auto_mia-v1", "auto_mia-v2", "auto_mia-v3", "rmia", "lira", "bavaria", "shadow_mia",
        "trajectory_mia",
    }  # fmt: skip
    assert {name for name, row in attacks.items() if row["uses_synthetic"]} == {"synthetic_leak"}
    assert attacks["auto"]["version_of"] == registry.newest("attack", "auto")
    assert attacks["auto"]["run_with"] == attacks["auto-v2"]["run_with"] == ["repaired", "pruned", "distilled"]
    assert {row["name"]: row["available"] for row in listed["datasets"]} == {
        row["name"]: row["available"] for row in json.loads(leakbench("list", "datasets", "--json").out)["datasets"]
    }
    assert {row["name"] for row in listed["datasets"] if row["available"]} >= {"digits"}


@pytest.mark.slow
@pytest.mark.parametrize("width", [60, 80, 120])
def test_list_breaks_no_word(leakbench: Leakbench, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    whole = json.loads(leakbench("list", "--json").out)
    monkeypatch.setenv("COLUMNS", str(width))
    out = leakbench("list").out
    for line in out.splitlines():
        assert len(line) <= width or len(line.split()) <= 2, line  # but for what has no blank, as a long path
    words = {word for rows in whole.values() for row in rows for word in f"{row['name']} {row['summary']}".split()}
    assert words <= set(out.split())


def test_info_as_json(leakbench: Leakbench) -> None:
    facts = json.loads(leakbench("info", "privatesnn", "--json").out)
    plugin = registry.load("defense", "privatesnn")
    assert list(facts) == [
        "name", "kind", "version", "summary", "doc", "cites", "needs", "uses_public", "uses_references",
        "uses_population", "uses_synthetic", "run_with", "members", "parameters", "presets",
    ]  # fmt: skip
    assert facts["run_with"] == []
    assert (facts["name"], facts["kind"], facts["version"]) == ("privatesnn", "defense", plugin.version)
    assert (facts["cites"], facts["needs"]) == (plugin.cites, None)
    assert facts["presets"] == {name: dict(values) for name, values in plugin.presets.items()}
    parameters = {row["name"]: row for row in facts["parameters"]}
    assert parameters.keys() == {*plugin.Params.model_fields, "quantize"}
    assert parameters["epochs"] == {
        "name": "epochs",
        "type": "int",
        "default": 20,
        "required": False,
        "bounds": parameters["epochs"]["bounds"],
        "description": plugin.Params.model_fields["epochs"].description,
    }
    assert parameters["beta"]["bounds"] == {"gt": 0}
    assert parameters["synthesis_range"]["type"] == "Literal['images', 'authors']"
    auto = json.loads(leakbench("info", "auto", "--json").out)
    assert (auto["name"], auto["needs"], auto["parameters"]) == (registry.newest("attack", "auto"), "WEIGHTS", [])
    assert auto["run_with"] == ["repaired", "pruned", "distilled"]
    assert "run with: repaired, pruned, distilled" in leakbench("info", "auto").out
    assert [member["name"] for member in auto["members"]] == [
        member.name for member in registry.load("attack", "auto").members
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", ["--help", "--version", "list", "list defenses", "run --help", "cache --help", "info --help"]
)
def test_names_and_help_come_without_torch(command: str) -> None:
    """In a process of its own: this one has torch already."""
    look = (
        "import sys; from leakbench.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print(sorted({'torch', 'numpy', 'matplotlib', 'sklearn', 'pandas'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", look, *command.split()], capture_output=True, text=True, check=True)
    loaded = ended.stdout.splitlines()[-1]
    assert "torch" not in loaded
    assert "matplotlib" not in loaded


def test_info_shows_source_access_parameters_and_presets(leakbench: Leakbench) -> None:
    said = leakbench("info", "privatesnn")
    assert (said.status, said.err) == (0, "")
    plugin = registry.load("defense", "privatesnn")
    assert "defense, version" in said.out
    assert plugin.cites in said.out
    for name, field in plugin.Params.model_fields.items():
        (line,) = [line for line in said.out.splitlines() if line.startswith(f"  {name} ")]
        assert field.description and field.description in line
    assert "preset quick: samples=500" in said.out
    attack = leakbench("info", "direct").out
    assert "attack, version" in attack
    assert "needs: WEIGHTS" in attack
    (line,) = [line for line in attack.splitlines() if line.startswith("  iterations")]
    assert line.split()[1:4] == ["2000", ">=", "1"]


@pytest.mark.slow
def test_public_images_are_said_to_be_needed(
    leakbench: Leakbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "priors.py").write_text(
        "from leakbench.contracts import Access, Attack, Params\n"
        "class Prior(Attack[Params]):\n"
        '    """A prior."""\n'
        '    name = "prior"\n'
        "    needs = Access.SCORES\n"
        "    uses_public = True\n"
        "    def run(self, victim, targets, context):\n"
        "        raise AssertionError\n"
    )
    assert "needs: SCORES and public images\n" in leakbench("info", "priors.py:Prior").out
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry, "_registered", {"attack": {"prior": "priors:Prior"}, "defense": {}})
    assert "  A prior. (needs SCORES and public images) [registered]\n" in leakbench("list", "attacks").out


def test_info_of_a_file_and_of_a_parameter_without_default(leakbench: Leakbench, warm: Warm, tmp_path: Path) -> None:
    said = leakbench("info", f"{warm.tiny.gated}:Gated")
    assert said.status == 0
    assert said.out.startswith("gated")
    assert "Random images, after waiting at the gate." in said.out
    assert "  none" in said.out  # no parameters
    (tmp_path / "mine.py").write_text(
        "from enum import Enum\n"
        "from typing import Literal\n"
        "from pydantic import Field\n"
        "from leakbench.contracts import Defense, Params\n"
        "class Kind(Enum):\n"
        '    FIRST, SECOND = "first", "second"\n'
        "class MineParams(Params):\n"
        '    depth: int = Field(ge=1, lt=9, description="how deep")\n'
        "    kind: Kind = Kind.SECOND\n"
        '    way: Literal["here", "there"] | None = None\n'
        "class Mine(Defense[MineParams]):\n"
        '    """Mine."""\n'
        '    name = "mine"\n'
        "    def protect(self, ann, data, context):\n"
        "        raise AssertionError\n"
    )
    said = leakbench("info", "mine.py:Mine")
    assert said.status == 0
    assert "defense, version 1" in said.out
    assert "Undefined" not in said.out
    (line,) = [line for line in said.out.splitlines() if "depth" in line]
    assert ">= 1, < 9" in line
    assert "how deep" in line
    shown = [line.split() for line in said.out.splitlines()]
    assert ["kind", "second", "first", "|", "second"] in shown and ["way", "none", "here", "|", "there"] in shown
    folder = leakbench("info", "folder:images")
    assert "leakbench run -d ann -a none --dataset folder:images --dry-run says what is wrong with one" in folder.line


@pytest.mark.slow
def test_info_shows_models_and_data_sets(leakbench: Leakbench, tmp_path: Path) -> None:
    assert leakbench("info", "vgg5").out.splitlines() == [
        "vgg5  model, built-in",
        "",
        "3 convolutions, for images of 28x28.",
    ]
    digits = leakbench("info", "digits").out.splitlines()
    assert digits[0] == "digits  dataset, built-in"
    assert digits[-1].strip() == "here: inside scikit-learn"
    facts = json.loads(leakbench("info", "cifar10", "--json").out)
    assert (facts["kind"], facts["origin"]) == ("dataset", "built-in")
    assert isinstance(facts["available"], bool) and "cifar-10-binary" in facts["detail"]
    (tmp_path / "mine.py").write_text(
        'def build(image_shape, classes, generator):\n    """Mine.\n\n    More.\n    """\n'
        'def read(folder):\n    """Theirs \\x1b[31m."""\n'
        "class Half:\n    pass\n"
    )
    assert leakbench("info", "mine.py:build").out == "mine.py:build  model, mine.py:build\n\nMine.\n\nMore.\n"
    data = leakbench("info", "mine.py:read").out
    assert data.startswith("mine.py:read  dataset, mine.py:read")
    assert "\x1b" not in data and "Theirs \\x1b[31m." in data
    assert "'mine.py:Half' is no plugin: it must" in leakbench("info", "mine.py:Half").line


def test_info_shows_what_a_protocol_fixes(leakbench: Leakbench) -> None:
    for name, protocol in PROTOCOLS.items():
        facts = json.loads(leakbench("info", name, "--json").out)
        assert facts["kind"] == "protocol" and facts["settings"]["attacks"] == dict(protocol.attacks)
        assert facts["settings"]["fingerprint"] == protocol.fingerprint
    text = leakbench("info", "leakbench-v2-digits").out
    assert "leakbench-v2-digits  protocol" in text and "null-networks     20" in text
    assert "auto-v2 (version 5)" in text and "anchor (version 3)" in " ".join(text.split())


def test_info_shows_what_a_preset_sets(leakbench: Leakbench) -> None:
    for preset, sizes in SIZES.items():
        settings = json.loads(leakbench("info", preset, "--json").out)["settings"]
        assert settings == json.loads(sizes.model_dump_json())
    text = leakbench("info", "quick").out
    assert text.startswith("quick  preset") and "4:16 8:64" in text and "candidates" in text
