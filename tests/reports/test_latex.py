from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from latex_log import CLASSES, HOSTILE, complaints, needs_latex

from leakbench.reports.latex import HEAD, Column, escaped, label, shortened, table


def unbroken(text: str) -> str:
    return re.sub(r"\\(allowbreak|penalty500)\{\}", "", text)


def test_what_would_be_a_command_is_escaped() -> None:
    text = unbroken(escaped("a_b%$#{}~^\\input{x}&"))
    assert text == r"a\_b\%\$\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}input\{x\}\&"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1–3", r"1\textendash{}3"),
        ("✓ ✗ 2×", r"$\surd$ $\times$ 2$\times$"),
        ("é ñ ş Å", r"\'{e} \~{n} \c{s} \r{A}"),
        ("Großø", r"Gro\ss{}\o{}"),
        ("漢", r"\textbackslash{}u6f22"),
        ("\u202e\x1b", r"\textbackslash{}u202e\textbackslash{}x1b"),
        ("two\nlines", "two lines"),
        ("a--b", "a-{}-b"),
        ('"`', r"{\char34}{\char96}"),
        ("[x]", "{[}x]"),
        ("", ""),
    ],
)
def test_a_character_that_fonts_lack_stays_legible(text: str, wanted: str) -> None:
    assert unbroken(escaped(text)) == wanted


def test_a_long_word_may_break_at_punctuation_and_a_number_may_not() -> None:
    pieces = ["sengupta2019", "[T=", "8,", "sigma=", "-0.5]"]
    assert escaped("".join(pieces)).removesuffix(r"\allowbreak{}").split(r"\allowbreak{}") == pieces
    assert escaped("privatesnn") == "privatesnn"
    assert max(map(len, escaped("x" * 300).split(r"\penalty500{}"))) == 3


@pytest.mark.slow
@given(st.text())
def test_any_text_is_one_line_of_ascii_with_its_braces_closed(text: str) -> None:
    made = escaped(text)
    assert made.isascii() and "\n" not in made and "\r" not in made
    bare = re.sub(r"\\[{}]", "", made)
    depth = 0
    for char in bare:
        depth += (char == "{") - (char == "}")
        assert depth >= 0
    assert depth == 0
    assert not re.search(r"(?<!\\)[%#&_]", made)


def test_labels_are_harmless_and_unlike() -> None:
    labels = [label(name, other) for name in HOSTILE for other in ("", "x")]
    assert all(re.fullmatch(r"tab:leakbench(-[a-z0-9]+)+", one) for one in labels)
    assert len(set(labels)) == len(labels)


@needs_latex
@pytest.mark.parametrize("head", CLASSES)
def test_hostile_texts_compile_and_stay_in_their_column(head: str, tmp_path: Path) -> None:
    columns = [Column(escaped(name), share) for name, share in (("Defence", 0.2), ("W" * 40, 0.12), ("c", 0.12))]
    rows = [[escaped(text)] * 3 for text in HOSTILE]
    floats = [
        table(escaped(shortened(text)), escaped(text), label(text), columns, [[row], []])
        for text, row in zip(HOSTILE, rows, strict=True)
    ]
    assert complaints("\n\n".join([HEAD, *floats]), tmp_path, head) == []
