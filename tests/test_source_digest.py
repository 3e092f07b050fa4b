"""What a plugin in a module consists of: its file, and the modules of its package that come with it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType

import pytest

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


@pytest.mark.parametrize("name", [f"mine_of_a_test/{one}" for one in USED])
def test_each_module_of_the_package_counts(folder: Path, name: str) -> None:
    before = digest("mine_of_a_test.plugin")
    assert digest("mine_of_a_test.plugin") == before
    (folder / name).write_text(f"{FILES[name]}\nX = 1\n")
    assert digest("mine_of_a_test.plugin") != before
    assert not any(one.startswith("mine_of_a_test") for one in sys.modules)  # found, and not imported


@pytest.mark.parametrize("name", ["mine_of_a_test/unused.py", "alone_of_a_test.py", "beside_of_a_test.py"])
def test_what_it_does_not_import_does_not_count(folder: Path, name: str) -> None:
    before = digest("mine_of_a_test.plugin")
    (folder / name).write_text(f"{FILES[name]}\nX = 1\n")
    assert digest("mine_of_a_test.plugin") == before


def test_two_that_change_their_content_are_no_longer_what_they_were(folder: Path) -> None:
    before = digest("mine_of_a_test.plugin")
    one, other = (folder / "mine_of_a_test" / name for name in ("inner/__init__.py", "sub/scale.py"))
    one.write_text(FILES["mine_of_a_test/sub/scale.py"])
    other.write_text(FILES["mine_of_a_test/inner/__init__.py"])
    assert digest("mine_of_a_test.plugin") != before


@pytest.mark.parametrize("name", ["alone_of_a_test", "broken_of_a_test"])
def test_a_module_that_imports_none_of_its_author_is_its_file(folder: Path, name: str) -> None:
    assert digest(name) == hashlib.sha256((folder / f"{name}.py").read_bytes()).hexdigest()


def test_a_package_without_an_init_file(folder: Path) -> None:
    before = digest("space_of_a_test.inside")
    (folder / "space_of_a_test/other.py").write_text("X = 1\n")
    assert digest("space_of_a_test.inside") != before


def test_another_place_is_the_same_source(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other") / "moved"
    folder.rename(other)
    name = "'mine_of_a_test.plugin'"
    here = f"from leakbench.modules import *; print(source_digest({name}, module_file({name})))"
    said = subprocess.run([sys.executable, "-c", here], cwd=other, capture_output=True, text=True, check=True).stdout
    other.rename(folder)
    assert said.strip() == digest("mine_of_a_test.plugin")


def test_where_an_attribute_is_imported_from_counts(folder: Path) -> None:
    """Also from another package; and all of the package where reading does not show it."""
    (folder / "glue_of_a_test.py").write_text("from mine_of_a_test.unused import Other as Mine\n")
    lazy = (
        "import importlib\n\ndef __getattr__(name):\n    return importlib.import_module('lazy_of_a_test.impl').Mine\n"
    )
    for name, text in (("__init__", lazy), ("impl", "class Mine: ...\n")):
        (folder / "lazy_of_a_test").mkdir(exist_ok=True)
        (folder / "lazy_of_a_test" / f"{name}.py").write_text(text)

    def digests() -> list[str]:
        files = [folder / "glue_of_a_test.py", folder / "lazy_of_a_test" / "__init__.py"]
        targets = ("glue_of_a_test:Mine", "lazy_of_a_test:Mine")
        return [source_digest(target, file) for target, file in zip(targets, files, strict=True)]

    before = digests()
    (folder / "mine_of_a_test/unused.py").write_text("class Other:\n    x = 1\n")
    (folder / "lazy_of_a_test/impl.py").write_text("class Mine:\n    x = 1\n")
    assert all(one != other for one, other in zip(before, digests(), strict=True))


def test_a_compiled_module_goes_before_its_source(folder: Path) -> None:
    compiled = folder / "mine_of_a_test" / f"steps{EXTENSION_SUFFIXES[0]}"
    compiled.write_bytes(b"")
    assert module_file("mine_of_a_test.steps") == compiled


def test_a_module_without_a_spec_has_no_file_to_be_found_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "__main__")
    monkeypatch.setitem(sys.modules, "specless_of_a_test", ModuleType("specless_of_a_test"))
    assert module_file("specless_of_a_test.inner") is None and module_file("__main__") is None
