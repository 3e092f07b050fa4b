"""A real LaTeX, where there is one."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

needs_latex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here (TeX Live's latex package)")
CLASSES = (r"\documentclass{article}", r"\documentclass[twocolumn]{article}")
HOSTILE = (
    "<script>alert(1)</script>", 'a "b" \'c\' `d`', "two\nlines\rand\u2028more", "W" * 300, "x-" * 150, "\u202erevo",
    "\x1b[2J\x07", "=cmd|' /C calc'!A0", "＝cmd", r"\input{/etc/passwd} \write18{x} $x_$ %&#^~{}", "漢字 🙂 عربى",
    "Größe ł ñ é ş", "[T=8]", "*", "^^M", "a--b ,, ''", "folder:/a/very/long/path_to/some-data.set/v1.2.3",
)  # fmt: skip
"""names that others may choose"""


def complaints(text: str, folder: Path, head: str = CLASSES[0]) -> list[str]:
    """What LaTeX finds wrong with the tables in an article of that class: errors, and lines that are too wide."""
    if "twocolumn" in head:
        text = text.replace("{table}", "{table*}")
    packages = r"\usepackage{booktabs,array}"
    document = f"{head}\n{packages}\n\\begin{{document}}\n\\listoftables\n{text}\n\\ref{{x}}\\end{{document}}\n"
    (folder / "paper.tex").write_text(document, encoding="ascii")
    command = ["pdflatex", "-no-shell-escape", "-interaction=nonstopmode", "paper.tex"]
    for _ in range(2):  # the list of tables is read the second time
        subprocess.run(command, cwd=folder, capture_output=True, check=False)
    log = (folder / "paper.log").read_text(encoding="latin-1")
    assert (folder / "paper.pdf").exists(), log[-2000:]
    wrong = re.findall(r"^(?:!.*|Overfull \\hbox.*|.*multiply defined.*|.*Float too large.*)", log, re.M)
    return [line for line in wrong if "undefined references" not in line]
