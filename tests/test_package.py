"""What is said of the package in several files is the same everywhere."""

from __future__ import annotations

import re
from importlib.metadata import metadata
from pathlib import Path

import leakbench

ROOT = Path(__file__).parents[1]


def test_its_version_is_one() -> None:
    citation = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert citation and newest
    assert leakbench.__version__ == citation[1] == newest[1] == metadata("leakbench")["Version"]


def test_it_carries_its_licence() -> None:
    assert metadata("leakbench")["License-Expression"] == "Apache-2.0"
    assert metadata("leakbench").get_all("License-File") == ["LICENSE"]
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
