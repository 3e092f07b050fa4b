"""What no isolated plugin may read: all that a run's settings and grid name."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from pathlib import Path

import pytest

from leakbench.bench.grid import make_config
from leakbench.data import default_data_folder
from leakbench.paths import default_cache
from leakbench.runtime import plugins
from leakbench.runtime.workspace import Settings
from leakbench.session.run import isolated


@pytest.fixture(autouse=True)
def capable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that can isolate: no process is started here."""
    monkeypatch.setattr(plugins, "what_is_lacking", lambda: "")


def hidden(settings: Settings, folder: Path, **options: object) -> set[str]:
    grid = make_config({"defense": ["han2020"], "attack": ["direct"], **options})
    with isolated(True, grid, settings, folder) as given:
        assert given == replace(settings, isolation=given.isolation)
        assert given.isolation.reason == "" and Path(given.isolation.scratch).is_dir()
        return set(given.isolation.hidden)


def test_every_path_of_the_settings_is_hidden(tmp_path: Path) -> None:
    others = ("device", "precision", "isolation")
    named = {one.name: str(tmp_path / one.name) for one in fields(Settings) if one.name not in others}
    found = hidden(Settings(**named), tmp_path / "run")
    assert found == {*named.values(), str(tmp_path / "run"), str(default_cache())}


def test_the_usual_data_folder_is_hidden(tmp_path: Path) -> None:
    assert str(default_data_folder().absolute()) in hidden(Settings(cache=str(tmp_path)), tmp_path)


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"ann": "weights.safetensors"}, "weights.safetensors"),
        ({"dataset": ["folder:faces"]}, "faces"),
        ({"dataset": ["folder:faces:flips"]}, "faces"),
        ({"dataset": ["arrays.npz"]}, "arrays.npz"),
        ({"dataset": ["arrays.npz:flips"]}, "arrays.npz"),
        ({"dataset": ["arrays.npz:flips:half"]}, "arrays.npz"),
        ({"dataset": ["digits", "folder:~/faces"]}, "~/faces"),
        ({"public": "folder:faces:flips"}, "faces"),
        ({"dataset": ["folder:~nobody-of-that-name/faces"]}, "~nobody-of-that-name/faces"),
        ({"dataset": ["folder:x/" + "y" * 300]}, "x/" + "y" * 300),
    ],
)
def test_what_the_grid_names_is_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object], path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("weights.safetensors", "faces", "arrays.npz"):
        (tmp_path / name).touch()
    expected = str((tmp_path / os.path.expanduser(path)).absolute())  # noqa: PTH111
    assert expected in hidden(Settings(cache=str(tmp_path / "cache")), tmp_path / "run", **options)


def test_code_of_a_data_set_is_not_hidden(tmp_path: Path) -> None:
    """A plugin may be in the same file."""
    found = hidden(Settings(cache="c"), tmp_path / "run", dataset=[f"{tmp_path}/mine.py:build"])
    assert not [path for path in found if "mine.py" in path]
