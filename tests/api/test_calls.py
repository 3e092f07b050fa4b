"""``leakbench.run``: the grid that its parameters make, plugins of the caller's own, and what comes back."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from api_samples import Computed, two
from tiny_runs import CELLS, Warm, numbers

import leakbench
from leakbench import registry
from leakbench.attacks.direct import Direct
from leakbench.bench.grid import GridConfig, make_config
from leakbench.contracts import Access, Attack, Params
from leakbench.errors import LeakBenchError, PluginError, UsageError
from leakbench.runtime.plugins import Isolation
from leakbench.runtime.workspace import Settings

Fake = Callable[..., list[Computed]]


class Grey(Attack[Params]):
    """Grey images."""

    name = "grey-of-tests"
    needs = Access.LABELS

    def run(self, victim: Any, targets: Any, _context: Any) -> torch.Tensor:
        return torch.full((len(targets), *victim.image_shape), 0.5)


@pytest.fixture(autouse=True)
def unregistered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})


def test_its_parameters_are_the_options_of_the_command() -> None:
    parameters = set(inspect.signature(leakbench.run).parameters)
    elsewhere = {"data", "inception", "features", "cache", "out", "device", "jobs", "isolate", "quiet", "protocol"}
    elsewhere |= {"local_cache", "executor", "address"}
    elsewhere |= {"weights", "mean", "std"}  # of an ANN that becomes a model of the grid
    assert parameters == set(GridConfig.model_fields) | elsewhere


def test_nothing_given_is_what_the_command_takes(computed: Fake) -> None:
    (asked, *_) = [computed(two()), leakbench.run("privatesnn", "direct", quiet=True)]
    (one,) = asked
    assert one.grid == make_config({"defense": "privatesnn", "attack": "direct"})
    assert one.folder.parent == Path("runs") and one.folder.name.startswith("digits-privatesnn-")
    assert (one.settings.data, one.settings.inception, one.settings.features, one.jobs) == (None,) * 4
    assert one.command == "leakbench.run(defense=['privatesnn'], attack=['direct'])"


@pytest.mark.slow
def test_all_that_is_given_arrives(computed: Fake, tmp_path: Path) -> None:
    asked = computed(two())
    grid: dict[str, Any] = {
        "defense": ["privatesnn"], "attack": ["direct", "generative_prior"], "dataset": ["digits", "digits:half"],
        "model": ["vgg4"],
        "timesteps": [4, 8], "preset": "quick", "seeds": 2, "images_per_class": 3, "controls": False,
        "null_networks": 0, "public": "photos", "precision": "bfloat16", "set": {"privatesnn.epochs": [2, 3]},
    }  # fmt: skip
    where = {name: tmp_path / name for name in ("cache", "local_cache", "data", "inception", "features")}
    result = leakbench.run(**grid, **where, out=tmp_path / "run", device="cpu", jobs=1, quiet=True)
    (one,) = asked
    assert one.grid == make_config(grid)
    paths = {name: str(path) for name, path in where.items()}
    isolation = Isolation("nothing is computed")
    assert one.settings == Settings(device="cpu", precision="bfloat16", isolation=isolation, **paths)
    assert (one.folder, one.jobs) == (tmp_path / "run", 1)
    assert result == leakbench.load(tmp_path / "run")
    assert result.record == two()


@pytest.mark.parametrize(("isolate", "reason"), [(True, "nothing is computed"), (False, "--no-isolate")])
def test_plugins_are_isolated_where_the_system_can_unless_told_otherwise(
    computed: Fake, isolate: bool, reason: str
) -> None:
    asked = computed(two())
    leakbench.run("privatesnn", "direct", quiet=True, isolate=isolate)
    assert [one.settings.isolation for one in asked] == [Isolation(reason)]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"isolate": None}, "--isolate must be True or False, got"),
        ({"quiet": "no"}, "--quiet must be True or False, got 'no'"),
        ({"jobs": True}, "--jobs must be a whole number, got True"),
    ],
)
def test_flags_are_bools_and_numbers_are_not(computed: Fake, given: dict[str, Any], words: str) -> None:
    """Isolation is never switched off by what is no bool."""
    computed(two())
    with pytest.raises(UsageError, match=words):
        leakbench.run("privatesnn", "direct", **{"quiet": True, **given})


def test_classes_and_functions_stand_where_names_do(computed: Fake) -> None:
    def shapes(folder: Path | None) -> Any:
        raise AssertionError(folder)

    asked = computed(two())
    leakbench.run("privatesnn", [Grey, "direct", Direct], quiet=True, seeds=3)
    (one,) = asked
    assert one.grid.attack == ("grey-of-tests", "direct")  # what is built in is itself
    assert "grey-of-tests" in {cell.attack.name for cell in one.cells if hasattr(cell, "attack")}
    with pytest.raises(AssertionError):  # it is asked for its images
        shapes(None)
    leakbench.run("privatesnn", "none", dataset=shapes, quiet=True)
    assert asked[1].grid.dataset == ("shapes",)
    assert registry.load("dataset", "shapes") is shapes


@pytest.mark.slow
def test_a_class_that_is_defined_again_takes_the_place_of_the_first(computed: Fake, tmp_path: Path) -> None:
    computed(two())
    again = type("Again", (Grey,), {"__doc__": "Again."})
    for number, attack in enumerate((Grey, again)):
        leakbench.run("privatesnn", attack, out=tmp_path / str(number), quiet=True)
        assert registry.load("attack", Grey.name) is attack


class Direct2(Grey):
    """Under the name of a built-in."""

    name = "direct"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({}, "--defense is missing: name at least one"),
        ({"defense": []}, "--defense is missing"),
        ({"defense": "privatesn"}, "unknown defense 'privatesn': did you mean 'privatesnn'?"),
        ({"defense": "privatesnn", "attack": Direct2}, "the attack 'direct' is built in: register yours under"),
        ({"defense": Grey}, "'grey-of-tests' is no defense: it must derive from"),
        ({"defense": "privatesnn", "attack": int}, "'int' is no attack: it must derive from"),
        ({"defense": "privatesnn", "attack": torch.nn.ReLU()}, "must be a class, a function or a text"),
        ({"defense": "privatesnn", "seeds": 0}, "--seeds: Input should be greater than or equal to 1 (got 0)"),
        (
            {"defense": "privatesnn", "preset": "fast"},
            "--preset: Input should be 'quick', 'standard', 'paper-cpu' or 'paper'",
        ),
        ({"defense": "privatesnn", "timesteps": True}, "--timesteps: must be a number, not true or false"),
        ({"defense": "privatesnn", "set": {"privatesnn.epoch": 3}}, "privatesnn"),
        ({"defense": "privatesnn", "set": ["privatesnn.epochs=3"]}, "--set: "),
        ({"defense": "privatesnn", "device": "abacus"}, "--device abacus: not usable here"),
        ({"defense": "privatesnn", "jobs": 10_000}, "--jobs must be 1 to"),
        ({"defense": "privatesnn", "ann": "none.safetensors"}, "--ann: no such file 'none.safetensors'"),
        ({"defense": "privatesnn", "out": "a" * 300}, "--out: the name 'aaa"),
        ({"defense": "privatesnn", "suite": "paper"}, "--suite paper names its own defense"),
        ({"defense": 3}, "--defense takes names and classes, one or a list of them, and got 3"),
        (
            {"defense": ["privatesnn", torch.zeros(2, 2)]},
            "--defense takes names and classes, one or a list of",
        ),
        (
            {"defense": "privatesnn", "model": [3]},
            "--model takes names and functions, one or a list of",
        ),
        ({"defense": "privatesnn", "attack": int, "isolate": True}, "'int' is no attack: it must derive from"),
        ({"defense": "privatesnn", "protocol": 3}, "--protocol must be a name, got 3"),
        ({"defense": "privatesnn", "jobs": "4"}, "--jobs must be a whole number, got '4'"),
        ({"suite": ["paper"]}, "--suite must be a name, got a list"),
        ({"defense": "privatesnn", "device": None}, "--device must be a name, got a NoneType"),
        ({"defense": "privatesnn", "out": 5}, "--out must be a path, got 5"),
        ({"defense": "privatesnn", "cache": ["a"]}, "--cache must be a path, got a list"),
        ({"defense": "privatesnn", "executor": 3}, "--executor must be a name or a Backend, got 3"),
    ],
)
def test_errors_are_one_line_and_write_nothing(options: dict[str, Any], line: str) -> None:
    with pytest.raises(LeakBenchError) as raised:
        leakbench.run(**{"attack": "direct", "isolate": False, **options})
    assert line in str(raised.value) and "\n" not in str(raised.value)
    assert isinstance(raised.value, UsageError | PluginError)
    assert not Path("runs").exists()


def test_what_is_no_folder_is_refused() -> None:
    for call in (leakbench.load, leakbench.compare):
        with pytest.raises(UsageError, match="must be a path, got 3"):
            call(3)  # type: ignore[operator]
    with pytest.raises(UsageError, match="--settings must be a path, got a list"):
        leakbench.audit("net.nir", ["a"])  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_folder_of_another_grid_is_refused(warm: Warm) -> None:
    with pytest.raises(UsageError, match="holds another run"):
        leakbench.run("privatesnn", "direct", out=warm.out, quiet=True)


def test_only_the_interfaces_own_names_are_there() -> None:
    assert set(leakbench.__all__) <= set(dir(leakbench))
    assert all(hasattr(leakbench, name) for name in leakbench.__all__)
    with pytest.raises(AttributeError, match="module 'leakbench' has no attribute 'rum'"):
        leakbench.rum  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.slow
def test_a_run_is_that_of_the_command(warm: Warm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {**warm.tiny.options(), "timesteps": 4}
    result = leakbench.run(**options, out=tmp_path / "run", cache=warm.cache, device="cpu", isolate=False)
    assert numbers(result.record) == numbers(warm.record)
    assert result == leakbench.load(tmp_path / "run")
    assert result.report.is_file() and (tmp_path / "run" / "results.csv").is_file()
    lines = capsys.readouterr().err.splitlines()  # no terminal and no notebook: lines
    assert lines[0] == f"{CELLS} cells" and lines[-1].startswith(f"[{CELLS}/{CELLS}] ok: ")
    (label,) = [cell.defense for cell in result.record.cells if cell.defense_name == "sengupta2019" and not cell.attack]
    (attack,) = {cell.attack for cell in result.record.cells if cell.attack_name == "gated"}
    assert {np.asarray(one.image).shape for one in result.images(label, attack)} == {(8, 8)}


@pytest.mark.slow
def test_an_interrupt_leaves_a_report(warm: Warm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("leakbench.session.progress.Silent.ended", stop)
    with pytest.raises(KeyboardInterrupt):
        leakbench.run(
            **warm.tiny.options(), out=tmp_path / "run", cache=warm.cache, device="cpu", quiet=True, isolate=False
        )
    result = leakbench.load(tmp_path / "run")
    assert not result.record.complete and result.report.is_file()


SCRIPT = """
import sys, torch, leakbench
from leakbench.contracts import Access, Attack, Params
print("once")
{plugin}
for attack, settings in ((Grey, {{}}), ("direct", {{"direct.iterations": [2]}})):
    result = leakbench.run("sengupta2019", attack, dataset={dataset!r}, model="vgg4", ann={ann!r}, timesteps=4,
                           images_per_class=2, preset="quick", controls=False, cache={cache!r}, jobs=1, set=settings)
    print(result.failed, sorted({{cell.attack for cell in result.record.cells if cell.attack_name}}))
"""
PLUGIN = inspect.getsource(Grey).replace(": Any", "")


@pytest.mark.long
@pytest.mark.slow
def test_a_script_needs_no_guard(warm: Warm, tmp_path: Path) -> None:
    """Neither a class that only the script knows, which runs in its process, nor a worker make it run a second time."""
    given = {"dataset": warm.tiny.dataset, "ann": str(warm.tiny.checkpoint), "cache": str(warm.grown)}
    (tmp_path / "script.py").write_text(SCRIPT.format(plugin=PLUGIN, **given))
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, own, built_in = done.stdout.splitlines()
    assert first == "once" and own.startswith("0 ['grey-of-tests") and built_in.startswith("0 ['direct")
