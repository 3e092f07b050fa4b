from __future__ import annotations

import csv
import io

import pytest
from compared_samples import renamed, run
from latex_log import HOSTILE

from leakbench.bench.comparison import compare
from leakbench.reports.comparison_tables import csv_text, latex_text, markdown_text


@pytest.mark.slow
def test_the_csv_has_every_pair() -> None:
    comparison = compare({"a": run(), "b": renamed(run(seeds=2), {"weak": "other"})})
    lines = list(csv.DictReader(io.StringIO(csv_text(comparison), newline="")))
    assert len(lines) == len(comparison.pairs) > 0
    for line, pair in zip(lines, comparison.pairs, strict=True):
        assert line["difference"] == ("" if pair.value is None else repr(pair.value))
        assert (line["relation"], line["paired"], line["basis"]) == (pair.relation, str(pair.paired), pair.basis)


def test_markdown_has_the_ranking_then_the_defences_then_the_differences() -> None:
    text = markdown_text(compare({"a": run()}))
    titles = [line for line in text.splitlines() if line.startswith("#")]
    assert titles[1:] == [
        "## digits",
        "### Ranking",
        "### Side by side, digits (vgg-small)",
        "### Differences: leakage, worst case",
        "### Differences: leakage over the attacker's cost (area under the index)",
        "### Differences: leakage by guess",
        "### Differences: leakage by invert",
        "### Differences: Accuracy",
        "### Differences: E(ANN) / E(SNN), INT32",
    ]
    assert "| 1 | strong | " in text and "| 2–3 | weak | " in text
    assert "| strong leaks less than weak | −" in text
    assert "| weak and weaker are not distinguishable | " in text
    assert "not tested | " not in text.partition("### Differences: E(ANN)")[0]


@pytest.mark.slow
def test_what_is_not_the_same_stands_below_and_what_forbids_above() -> None:
    other = run(seeds=2)
    other = other.model_copy(
        update={"datasets": [info.model_copy(update={"fingerprint": "e" * 64}) for info in other.datasets]}
    )
    comparison = compare({"a": run(), "b": other}, anyway=True)
    text = markdown_text(comparison)
    assert text.index("Not comparable: other data") < text.index("## digits") < text.index("## What is not the same")
    assert "| seeds | a: 0; b: 0, 1 |" in text
    assert "## What is not the same" not in markdown_text(compare({"a": run()}))


def test_an_unranked_defence_says_why() -> None:
    made = run()
    doubt = {"outcome": "inconclusive", "reason": "because", "comparable": False}
    verdicts = [one.model_copy(update=doubt) for one in made.verdicts]
    text = markdown_text(compare({"a": made.model_copy(update={"verdicts": verdicts})}))
    assert "| strong | because |" in text and "| Rank | Defence | Leakage index |" not in text


@pytest.mark.parametrize("name", HOSTILE)
def test_names_of_others_stay_in_their_cell(name: str) -> None:
    comparison = compare({name: renamed(run(), {"strong": name, "invert": f"{name}!"}, dataset=name, model=name)})
    text = markdown_text(comparison)
    assert "<script>" not in text and not any(char in text for char in "\x1b\u202e\x07\r\u2028")
    for block in text.split("\n\n"):
        bare = block.replace("\\\\", "").replace("\\|", "")
        assert len({line.count("|") for line in bare.splitlines() if line.startswith("|")}) <= 1
    assert latex_text(comparison).isascii()
