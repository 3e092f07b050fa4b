"""``leakbench new``: packages that work as they are written, and names that are refused."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest
from cli_said import Leakbench

from leakbench import registry
from leakbench.cli.completion import SETTABLE

KINDS = pytest.mark.parametrize("kind", SETTABLE)


@KINDS
def test_a_package_is_written(leakbench: Leakbench, tmp_path: Path, kind: registry.Kind) -> None:
    said = leakbench("new", kind, "my_plugin", "--out", tmp_path)
    assert (said.status, said.err) == (0, "")
    folder = tmp_path / "my_plugin"
    files = {"pyproject.toml", "README.md", "my_plugin.py", "test_my_plugin.py"}
    assert {file.name for file in folder.iterdir()} == files
    assert said.out.splitlines()[-1] == f"try it: leakbench check {folder / 'my_plugin.py'}:MyPlugin"
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["name"] == "leakbench-my-plugin"
    assert project["project"]["entry-points"] == {f"leakbench.{kind}s": {"my_plugin": "my_plugin:MyPlugin"}}
    plugin = registry.load(kind, f"{folder / 'my_plugin.py'}:MyPlugin")
    assert plugin.name == "my_plugin"
    assert plugin.cites and list(plugin.Params.model_fields)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["attack", *(pytest.param(one, marks=pytest.mark.long) for one in SETTABLE if one != "attack")]
)
def test_the_package_passes_its_own_test_the_check_and_the_linter(
    leakbench: Leakbench, tmp_path: Path, kind: registry.Kind
) -> None:
    leakbench("new", kind, "my_plugin", "--out", tmp_path)
    folder = tmp_path / "my_plugin"
    said = leakbench("check", f"{folder / 'my_plugin.py'}:MyPlugin")
    assert {line.split()[0] for line in said.out.splitlines()} == {"ok"}, said
    assert (said.status, said.err) == (0, "")
    tested = run(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert tested.returncode == 0 and "passed" in tested.stdout, tested.stdout
    pytest.importorskip("ruff")
    for checked in (run(folder, "-m", "ruff", "check"), run(folder, "-m", "ruff", "format", "--check")):
        assert checked.returncode == 0, checked.stdout


@pytest.mark.slow
@pytest.mark.parametrize("editable", [False, pytest.param(True, marks=pytest.mark.long)], ids=["wheel", "editable"])
def test_the_installed_package_is_listed(leakbench: Leakbench, tmp_path: Path, editable: bool) -> None:
    have = {one.name: one.version for one in distributions()}
    if "pip" not in have or int(have.get("setuptools", "0").partition(".")[0]) < 77:
        pytest.skip("packages are installed by pip and setuptools 77 or later")
    leakbench("new", "defense", "my_plugin", "--out", tmp_path)
    site = tmp_path / "site"
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--target", str(site)]
    source = ["--editable", "my_plugin"] if editable else ["./my_plugin"]
    installed = run(tmp_path, "-m", "pip", "install", *options, *source)
    assert installed.returncode == 0, installed.stderr
    # as a site folder, whose .pth files are read; from where the package's folder is beside Python
    code = "import site, sys; site.addsitedir(sys.argv.pop(1)); from leakbench.cli import main; main()"
    listed = run(tmp_path, "-c", code, str(site), "list", "defenses")
    assert "my_plugin" in listed.stdout and "[leakbench-my-plugin]" in " ".join(listed.stdout.split())
    shown = run(tmp_path, "-c", code, str(site), "info", "my_plugin")
    assert shown.stdout.startswith("my_plugin  defense, version 1"), shown


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python in that folder."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("name", ["My", "my-noise", "1st", "a b", "../up", "_x", "x_", "class", "ümlaut", ""])
def test_what_is_no_name_of_a_module_is_refused(leakbench: Leakbench, tmp_path: Path, name: str) -> None:
    assert "can't be the name of a module and a package" in leakbench("new", "attack", name, "--out", tmp_path).line
    assert not list(tmp_path.iterdir())


def test_names_that_are_taken_are_refused(leakbench: Leakbench, tmp_path: Path) -> None:
    registry.register("metric", "of_others", "somewhere:Metric")

    def line(kind: str, name: str) -> str:
        return leakbench("new", kind, name, "--out", tmp_path).line

    assert line("attack", "direct") == "the name 'direct' is taken by the attack 'direct' (built-in): choose another"
    assert "by the defense 'privatesnn'" in line("metric", "privatesnn")  # --set would mix them up
    assert "by the attack 'auto-v2'" in line("attack", "auto")
    assert "by the metric 'of_others' (registered)" in line("attack", "of_others")
    assert "'torch' is that of a Python module" in line("defense", "torch")
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_left_alone(leakbench: Leakbench, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "work.txt").write_text("weeks of it")
    assert "is there already" in leakbench("new", "attack", "mine", "--out", tmp_path).line
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["work.txt"]
    (tmp_path / "dangling").symlink_to(tmp_path / "none")
    assert "is there already" in leakbench("new", "attack", "dangling", "--out", tmp_path).line


def test_other_wrong_input_is_one_line(leakbench: Leakbench, tmp_path: Path) -> None:
    assert "did you mean 'defense'?" in leakbench("new", "defence", "mine", "--out", tmp_path).line
    assert "too long" in leakbench("new", "attack", "x" * 300, "--out", tmp_path).line
    (tmp_path / "file").touch()
    assert "can't write" in leakbench("new", "attack", "mine", "--out", tmp_path / "file").line


def test_half_a_package_is_removed(leakbench: Leakbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the disk is full: what is left would refuse the next try."""
    whole = Path.write_text

    def full(self: Path, *given: Any, **more: Any) -> int:
        if self.suffix == ".toml":
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(self, *given, **more)

    monkeypatch.setattr(Path, "write_text", full)
    assert "No space left on device" in leakbench("new", "attack", "mine", "--out", tmp_path).line
    assert not (tmp_path / "mine").exists()
