"""What a plugin in a module consists of: its file, and the modules of its author's that it imports."""

from __future__ import annotations

import hashlib
import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from leakbench.errors import PluginError
from leakbench.modules import module_file, source_digest

FILES = {
    "mine_of_a_test/__init__.py": "SCALE = 1\n",
    "mine_of_a_test/plugin.py": "import torch\nfrom . import steps\nfrom .sub import scale\n"
    "def f():\n    from .inner.deep import g\n",
    "mine_of_a_test/steps.py": "from mine_of_a_test.inner import NAME\nimport beside_of_a_test\n",
    "mine_of_a_test/inner/__init__.py": "NAME = 1\n",
    "mine_of_a_test/inner/deep.py": "from .. import steps\nfrom ....... import nothing\n",
    "mine_of_a_test/unused.py": "",
    "mine_of_a_test/sub/scale.py": "",
    "beside_of_a_test.py": "import leakbench.errors\n",
    "alone_of_a_test.py": "import os\nimport torch\nfrom leakbench.contracts import Defense\n",
    "broken_of_a_test.py": "import (\n",
    "space_of_a_test/inside.py": "from space_of_a_test import other\n",
    "space_of_a_test/other.py": "",
}
USED = ("__init__.py", "sub/scale.py", "plugin.py", "steps.py", "inner/__init__.py", "inner/deep.py")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def digest(name: str) -> str:
    file = module_file(name)
    assert file is not None
    return source_digest(name, file)


@pytest.mark.parametrize("name", [*(f"mine_of_a_test/{one}" for one in USED), "beside_of_a_test.py"])
def test_each_module_of_the_author_counts(folder: Path, name: str) -> None:
    before = digest("mine_of_a_test.plugin")
    assert digest("mine_of_a_test.plugin") == before
    (folder / name).write_text(f"{FILES[name]}\nX = 1\n")
    assert digest("mine_of_a_test.plugin") != before
    assert not any(one.endswith("_of_a_test") for one in sys.modules)  # found, and not imported


@pytest.mark.parametrize("name", ["mine_of_a_test/unused.py", "alone_of_a_test.py"])
def test_what_it_does_not_import_does_not_count(folder: Path, name: str) -> None:
    before = digest("mine_of_a_test.plugin")
    (folder / name).write_text(f"{FILES[name]}\nX = 1\n")
    assert digest("mine_of_a_test.plugin") == before


def test_two_that_change_their_content_are_no_longer_what_they_were(folder: Path) -> None:
    before = digest("mine_of_a_test.plugin")
    (folder / "mine_of_a_test/inner/__init__.py").write_text(FILES["beside_of_a_test.py"])
    (folder / "beside_of_a_test.py").write_text(FILES["mine_of_a_test/inner/__init__.py"])
    assert digest("mine_of_a_test.plugin") != before


@pytest.mark.parametrize("name", ["alone_of_a_test", "broken_of_a_test"])
def test_a_module_that_imports_none_of_its_author_is_its_file(folder: Path, name: str) -> None:
    assert digest(name) == hashlib.sha256((folder / f"{name}.py").read_bytes()).hexdigest()


def test_a_package_without_an_init_file(folder: Path) -> None:
    before = digest("space_of_a_test.inside")
    (folder / "space_of_a_test/other.py").write_text("X = 1\n")
    assert digest("space_of_a_test.inside") != before


def test_of_an_installed_package_its_own_modules_count_and_no_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = folder / "site-packages"
    for name in FILES:
        (installed / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).rename(installed / name)
    monkeypatch.syspath_prepend(installed)
    before = digest("mine_of_a_test.plugin")
    (installed / "beside_of_a_test.py").write_text("X = 1\n")
    assert digest("mine_of_a_test.plugin") == before
    (installed / "mine_of_a_test/steps.py").write_text("X = 1\n")
    assert digest("mine_of_a_test.plugin") != before


def test_another_place_is_the_same_source(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other") / "moved"
    folder.rename(other)
    name = "'mine_of_a_test.plugin'"
    here = f"from leakbench.modules import *; print(source_digest({name}, module_file({name})))"
    said = subprocess.run([sys.executable, "-c", here], cwd=other, capture_output=True, text=True, check=True).stdout
    other.rename(folder)
    assert said.strip() == digest("mine_of_a_test.plugin")


def test_what_was_edited_since_it_was_imported_is_refused_until_it_is_reloaded(folder: Path) -> None:
    """The code in memory computes: what it makes must not be kept as the new file's."""
    module = importlib.import_module("alone_of_a_test")
    try:
        before = digest("alone_of_a_test")
        (folder / "alone_of_a_test.py").write_text("X = 1\n")
        with pytest.raises(PluginError, match="was edited since 'alone_of_a_test' was imported: reload it"):
            digest("alone_of_a_test")
        importlib.reload(module)
        assert digest("alone_of_a_test") != before
    finally:
        del sys.modules["alone_of_a_test"]


def test_a_module_without_a_spec_has_no_file_to_be_found_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "__main__")
    monkeypatch.setitem(sys.modules, "specless_of_a_test", ModuleType("specless_of_a_test"))
    assert module_file("specless_of_a_test.inner") is None and module_file("__main__") is None
