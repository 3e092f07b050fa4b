"""Texts and tables in LaTeX that any engine can set: plain ASCII, and no text wider than its column."""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

HEAD = r"""% Tables of LeakBench. They need \usepackage{booktabs,array}, and are as wide as a line: in text of two
% columns write table* for table."""
_KNOWN = {
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    '"': r"{\char34}", "`": r"{\char96}",  # active or half of a ligature elsewhere
    "×": r"$\times$", "·": r"$\cdot$", "✓": r"$\surd$", "✗": r"$\times$", "−": "$-$", "±": r"$\pm$",
    "–": r"\textendash{}", "—": r"\textemdash{}", "’": "'", "‘": r"{\char96}", "…": r"\dots{}",
    "“": r"\textquotedblleft{}", "”": r"\textquotedblright{}",
    "ß": r"\ss{}", "ø": r"\o{}", "Ø": r"\O{}", "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}", "Œ": r"\OE{}",
    "ł": r"\l{}", "Ł": r"\L{}", "ı": r"\i{}", "†": r"$\dagger$", "‡": r"$\ddagger$", "§": r"\S{}",
}  # fmt: skip
_ACCENTS = dict(
    zip("\u0300\u0301\u0302\u0303\u0308\u030c\u0304\u0306\u0307\u030a\u030b\u0327", "`'^~\"v=u.rHc", strict=True)
)
_AFTER, _BEFORE, _OF_NUMBERS = frozenset("_-=,;:/+*&@|)]}"), frozenset("[({"), frozenset("-,+")
"""a line may break after these, before these, and not within a number"""
_LIGATURES = frozenset("-',")
_WIDE = frozenset("mwMW@%")


def escaped(text: str, longest: int = 13) -> str:
    r"""``text`` as it reads, on one line of LaTeX.

    What LaTeX would act on is escaped, accented Latin letters are set with their accents, and any other character
    beyond ASCII, control characters too, stands as its escape, as in \u4e2d: fonts don't have all of them. Words of
    more than ``longest`` letters of mean width have places where a line may break: at punctuation, else anywhere.
    """
    parts = " ".join(_word(word, longest) for word in text.split())
    # a row that starts with one of these would be read as an argument of the row end above it
    return f"{{{parts[0]}}}{parts[1:]}" if parts.startswith(("[", "*")) else parts


def _word(word: str, longest: int) -> str:
    units = [unit for char in word for unit in _units(char)]
    pieces: list[list[str]] = [[]]
    for (shown, char), (_, following) in zip(units, [*units[1:], ("", "")], strict=True):
        pieces[-1].append(f"{shown}{{}}" if char == following and char in _LIGATURES else shown)
        if following in _BEFORE or (char in _AFTER and not (char in _OF_NUMBERS and following.isdigit())):
            pieces.append([])
    if _width([shown for shown, _ in units]) <= longest:
        return "".join(shown for piece in pieces for shown in piece)
    return r"\allowbreak{}".join(
        "".join(piece) if _width(piece) <= longest else _broken(piece) for piece in pieces if piece
    )


def _width(shown: Sequence[str]) -> float:
    return sum(1.6 if one in _WIDE or one.isupper() or len(one) > 1 else 1 for one in shown)


def _broken(piece: Sequence[str]) -> str:
    return r"\penalty500{}".join("".join(piece[position : position + 3]) for position in range(0, len(piece), 3))


def shortened(text: str, most: int = 24) -> str:
    """``text``, cut where it is wider than ``most`` letters of mean width as :func:`escaped` shows it."""
    room = float(most)
    for position, char in enumerate(text):
        room -= breadth(char)
        if room < 0:
            return f"{text[:position]}…"
    return text


def breadth(text: str) -> float:
    """Of ``text`` as :func:`escaped` shows it, in letters of mean width."""
    return _width([shown for char in text for shown, _ in _units(char)])


def _units(char: str) -> list[tuple[str, str]]:
    """(LaTeX, the character that it shows) for each that is not to be broken."""
    if char in _KNOWN:
        return [(_KNOWN[char], char)]
    if " " <= char <= "~":
        return [(char, char)]
    parts = unicodedata.normalize("NFD", char)
    letter, mark = parts[0], parts[1:]
    if letter.isascii() and letter.isalpha() and mark in _ACCENTS:
        return [(f"\\{_ACCENTS[mark]}{{{letter}}}", letter)]
    return [(_KNOWN.get(one, one), "x") for one in char.encode("unicode_escape").decode("ascii")]


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    heading: str
    """LaTeX"""
    share: float
    """of the line, relative to the other columns"""


def label(*parts: str) -> str:
    """``tab:leakbench-<words>-<digest>``: harmless in a document, and another one for other parts."""
    words = re.sub(r"[^a-z0-9]+", "-", parts[0].lower()).strip("-")[:24].strip("-")
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "backslashreplace")).hexdigest()[:8]
    return "-".join(part for part in ("tab:leakbench", words, digest) if part)


def table(
    short: str,
    caption: str,
    key: str,
    columns: Sequence[Column],
    blocks: Sequence[Sequence[Sequence[str]]],
    over: str = "",
) -> str:
    r"""A float as wide as a line. All texts are LaTeX.

    ``short``: what a list of tables says; ``key``: its label; ``blocks``: rows of cells, a rule between two blocks;
    ``over``: a row above the columns' headings.
    """
    total = sum(column.share for column in columns)
    layout = "\n".join(rf"  >{{\raggedright\arraybackslash}}p{{{width(column.share / total)}}}" for column in columns)
    rows = "\n\\midrule\n".join("\n".join(map(_row, block)) for block in blocks if block)
    lines = [
        r"\begin{table}[tbp]",
        r"\sloppy\hyphenpenalty=10000\footnotesize\setlength{\tabcolsep}{2pt}\setlength{\belowcaptionskip}{4pt}",
        rf"\caption[{{{short}}}]{{{caption}}}",
        rf"\label{{{key}}}",
        f"\\begin{{tabular}}{{\n{layout}\n}}",
        r"\toprule",
        over,
        _row([rf"\scriptsize {column.heading}" for column in columns]),
        r"\midrule",
        rows,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(line for line in lines if line)


def width(share: float) -> str:
    """Of text in a column or in several that take this share of the line."""
    # rounded down: all together they must not be wider than the line
    return rf"\dimexpr{math.floor(1e4 * share) / 1e4}\linewidth-2\tabcolsep\relax"


def _row(cells: Sequence[str]) -> str:
    return f"{' & '.join(cells)} \\tabularnewline"
