"""The page of a comparison: what it says, where its marks stand, and that it is one harmless file."""

from __future__ import annotations

import html
import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from comparison_samples import OBSTACLES, attacked, comparison, defense, forced, measured, pair, run, three
from report_page import Page
from report_samples import index, share

from leakbench.bench.comparison import Comparison, Setting, compare
from leakbench.bench.comparison.records import ComparedLeakage
from leakbench.errors import StoreError
from leakbench.records import Value
from leakbench.reports import write_comparison
from leakbench.reports.comparison_page import FEW, render

HOSTILE = (
    '<script>alert("x")</script>\'"><img src=x onerror=alert(1)>&amp; {{ 7*7 }} \u202egnorw\x1b[31m\x00\r\n' + "n" * 300
)


def hostile() -> Comparison:
    """Every text that comes from others is an attack on the page."""
    h = HOSTILE
    here: dict[str, Any] = {"dataset": h, "model": h, "plugin": h, "params": {h: h}, "source": h, "preset": h}
    here |= {"runs": [h], "reason": h, "values": [Value(metric=h, value=1.0), share("accuracy", 90)]}
    worst = attacked(h, access=h, index=index(0.5, null=h))
    failed = attacked(f"{h}2", status="failed", reason=h, validity=None, index=None)
    bad = attacked(f"{h}3", validity="invalid", reason=h, index=index(None, reason=h))
    return comparison(
        [
            defense(h, (1, 2), attack=h, attacks=[worst, failed, bad], **here),
            defense(f"{h}b", (1, 2), attack=h, attacks=[worst], **here),
            defense(f"{h}c", None, unranked=h, **here),
        ],
        [pair(h, f"{h}b", "less", marks=[h], basis=h, dataset=h), pair(h, f"{h}b", attack=h, dataset=h)],
        runs=[run(h, created=h, leakbench=h, command=h, complete=False)],
        differs=[Setting(name=h, values={h: h})],
        attacks={h: {"preset": h, "version": 1, "source": h, f"x.{h}": h}, f"{h}2": {}, f"{h}3": {}},
        obstacles=[h],
        leakbench=h,
        created=h,
    )


def rows(text: str) -> list[str]:
    """The text of each row of each table."""
    found = re.findall(r"<tr\b.*?</tr>", text, re.DOTALL)
    return [" ".join(html.unescape(re.sub(r"<[^>]*>", " ", row)).split()) for row in found]


def page(made: Comparison) -> Page:
    found = Page(render(made))
    assert found.open == []
    return found


# --- what it says ----------------------------------------------------------------------------------------------------


def test_the_answer_stands_first() -> None:
    text = page(three()).text
    answer = text.index("low leaks least: significantly less than each of the others.")
    assert answer < text.index("Side by side", text.index("Which leaks less"))
    assert re.search(r"1 low leaks .* 2–3 mid leaks .* 2–3 high leaks .* Without a rank – open inconclusive", text)


def test_pairs_that_differ_are_said_so_and_come_first() -> None:
    made = three()
    late = made.model_copy(update={"pairs": [made.pairs[2], *made.pairs[:2], *made.pairs[3:]]})
    found = [row for row in rows(render(late)) if "; inversion" in row]
    assert found == [
        "low leaks less than mid −.40 [−.50, −.30] .020 paired over 1 seed and 10 classes; inversion",
        "low leaks less than high −.50 [−.60, −.40] .020 paired over 1 seed and 10 classes; inversion",
        "mid and high are not distinguishable −.02 [−.12, +.08] 1.000 paired over 1 seed and 10 classes; inversion",
    ]
    assert "low is more accurate than mid" in page(late).text
    assert render(late).count('<tr class="apart"') == 3


def test_the_middle_of_the_axis_is_no_difference() -> None:
    made = comparison([defense("a"), defense("b")], [pair("a", "b", value=0.0, low=-0.2, high=0.2)])
    text = render(made)
    assert '<circle cx="50.00%"' in text and 'x1="1.00%" x2="99.00%"' in text  # the widest interval takes it all


def test_of_many_pairs_those_that_do_not_differ_fold() -> None:
    names = [f"d{number}" for number in range(7)]
    pairs = [pair(a, b) for a, b in itertools.combinations(names, 2)]
    assert len(pairs) > FEW
    found = page(comparison([defense(name, (1, 7)) for name in names], [pair("d0", "d1", "less"), *pairs[1:]]))
    assert "The other 20: not distinguishable, or not tested" in found.text
    assert ("details", {"class": "prints"}) in found.tags


def test_costs_are_those_of_the_worst_attack() -> None:
    attacks = [attacked("x", 0.2, queries=11.0), attacked("y", 0.7, queries=22.0, gradient_steps=33.0, seconds=4.5)]
    values = [
        share("accuracy", 341, 360),
        Value(metric="seconds", value=61.0),
        Value(metric="weight_cosine", value=0.5),
    ]
    made = comparison([defense("d", value=0.7, attack="y", attacks=attacks, values=values)])
    (beside,) = [row for row in rows(render(made)) if row.startswith("d leaks .70")]
    assert beside == "d leaks .70 [.60, .80] n=10 y .95 [.92, .97] 33 22 4.50 61.0"
    assert "d .5000" in rows(render(made))  # the other values


def test_members_stand_beside_the_classes_that_are_compared() -> None:
    known = ComparedLeakage(leakage="membership", outcome="leaks", reason="", attacks=[])
    made = comparison([defense("d", other_leakage=[known]), defense("e")])
    shown = rows(render(made))
    (at,) = [number for number, row in enumerate(shown) if "By the attack Verdict, members Accuracy" in row]
    assert " inversion leaks .90" in shown[at + 1] and " inversion – .90" in shown[at + 2]
    assert "Verdict, members" not in render(comparison([defense("d")]))


def test_an_attack_without_a_value_says_why() -> None:
    attacks = [
        attacked("good", 0.6),
        attacked("hit", status="failed", reason="ran out of memory", validity=None, index=None),
        attacked("blind", status="no-signal", reason="constant network", validity=None, index=None),
        attacked("lame", 0.9, validity="optimisation failure", reason="G1: at chance"),
    ]
    found = page(comparison([defense("d", attack="good", attacks=attacks), defense("e")]))
    (row,) = [
        r for r in rows(render(comparison([defense("d", attack="good", attacks=attacks)]))) if "not optimised" in r
    ]
    assert row.startswith("d .60 [.50, .70] n=10") and "failed (ran out of memory) no signal (constant network)" in row
    assert "hit on d : ran out of memory" in found.text
    assert "lame on d : optimisation failure: G1: at chance" in found.text
    # what is not valid is not outlined as the worst
    worst = re.findall(
        r'<td[^>]*class="[^"]*\bworst\b[^"]*".*?</td>', render(comparison([defense("d", attacks=attacks)]))
    )
    assert worst == []


def test_runs_and_what_differs_are_listed() -> None:
    made = comparison(
        [defense("a"), defense("b", runs=["two"], seeds=[0, 1])],
        runs=[run("one", command="leakbench run -d a"), run("two", seeds=[0, 1], complete=False)],
        differs=[
            Setting(name="torch", values={"one": "2.5.0", "two": "2.6.0"}),
            Setting(name="threads", values={"one": "", "two": "4"}),
        ],
    )
    found = rows(render(made))
    assert "one 2026-01-02T03:04:05+00:00 0.2.0 0 yes leakbench run -d a" in found
    assert any(row.startswith("two") and "0, 1 no leakbench run --out runs/two" in row for row in found)
    assert "torch 2.5.0 one 2.6.0 two" in found and "threads none one 4 two" in found
    assert "Incomplete runs" in page(made).text
    assert "Nothing: settings, versions and machines are the same everywhere." in page(three()).text


def test_full_parameters_of_defences_and_attacks() -> None:
    made = comparison([defense("a", params={"sigma": 0.5, "mode": "sound"}, version=7, source="0123456789abcdef")])
    found = rows(render(made))
    assert "a defence one 16 standard 7 0123456789ab sigma 0.5 mode sound" in found
    assert "inversion attack one – standard 2 – iterations 300" in found


def test_what_nothing_attacked_is_named() -> None:
    spared = defense("spared", None, attacks=[], outcome=None, index=None)
    assert "No attack on classes was run on spared." in page(comparison([defense("a"), spared])).text


# --- marks -----------------------------------------------------------------------------------------------------------


def test_every_line_that_should_not_be_compared_is_marked() -> None:
    text = render(forced())
    shown = rows(text[: text.index('id="flags"')])
    lines = {name: [row for row in shown if re.match(rf"(1–2 )?{name} ", row) and "and" not in row] for name in "abc"}
    for name, found in lines.items():
        assert len(found) == 3, name  # in the ranking, side by side and by attack
        assert all("not comparable: 1" in row and "2" in row for row in found)


def test_pairs_between_the_runs_are_marked_and_others_are_not() -> None:
    found = {row[:7]: row for row in rows(render(forced())) if "are not distinguishable" in row}
    assert set(found) == {"a and b", "a and c", "b and c"}
    for name, row in found.items():
        assert ("not comparable: 1 not comparable: 2" in row) == (name != "a and c")


def test_each_obstacle_is_told_at_the_top() -> None:
    found = page(forced())
    for number, why in enumerate(OBSTACLES, start=1):
        at = found.text.index(f"Not comparable: {number}. {why}.")
        assert at < found.text.index("Rank Defence")
        assert ("div", {"class": "flag serious", "id": f"obstacle-{number}"}) in found.tags
    assert "not comparable" not in page(three()).text.lower()


# --- one harmless file -----------------------------------------------------------------------------------------------


def test_nothing_from_others_becomes_markup() -> None:
    text = render(hostile())
    found = Page(text)
    assert found.open == []
    tags = [tag for tag, _ in found.tags]
    assert tags.count("script") == 2 and "img" not in tags
    assert "onerror" not in {key for _, attributes in found.tags for key in attributes}
    assert "{{ 7*7 }}" in found.text and " 49 " not in found.text
    assert re.fullmatch("[A-Za-z0-9+/=]+", found.raw["script"][0])


def test_control_characters_are_shown_and_not_obeyed() -> None:
    text = render(hostile())
    assert not [char for char in "\u202e\x1b\x00\r" if char in text]
    assert "\\u202egnorw\\x1b[31m\\x00\\r" in Page(text).text


def test_the_comparison_is_inside_as_json() -> None:
    for made in (three(), forced(), hostile()):
        assert Comparison.model_validate_json(page(made).record) == made


@pytest.mark.parametrize(
    "made", [three(), forced(), hostile(), comparison([])], ids=["three", "forced", "hostile", "none"]
)
def test_the_page_asks_nothing_of_any_network(made: Comparison) -> None:
    found = page(made)
    (policy,) = [a["content"] for tag, a in found.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "http" not in policy
    for tag, attributes in found.tags:
        assert "src" not in attributes and "style" not in attributes, (tag, attributes)
        assert attributes.get("href", "#").startswith(("#", "data:"))
        assert not any(key.startswith("on") for key in attributes)


@pytest.mark.parametrize(
    "made", [three(), forced(), hostile(), comparison([])], ids=["three", "forced", "hostile", "none"]
)
def test_ids_are_unique_and_every_link_leads_somewhere(made: Comparison) -> None:
    found = page(made)
    ids = [a["id"] for _, a in found.tags if "id" in a]
    assert len(ids) == len(set(ids))
    used = [a["href"].removeprefix("#") for _, a in found.tags if a.get("href", "").startswith("#")]
    used += [a["aria-labelledby"] for _, a in found.tags if "aria-labelledby" in a]
    assert set(used) <= set(ids)


def test_headings_do_not_skip_and_cells_can_be_sorted() -> None:
    two_sets = comparison([defense("a on digits"), defense("a on mnist", dataset="mnist")])
    for made in (three(), two_sets):
        found = page(made)
        levels = [int(tag[1]) for tag, _ in found.tags if re.fullmatch("h[1-6]", tag)]
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
        assert all(a.get("scope") for tag, a in found.tags if tag == "th")
        tables = re.findall(r'<table class="sortable.*?</table>', render(made), re.DOTALL)
        assert tables
        for table in tables:
            body = table[table.index("<tbody") :]
            keys = re.findall(r'<td[^>]*data-sort="([^"]*)"', body)
            assert len(keys) == body.count("<td") and all(not key or float(key) is not None for key in keys)


def test_data_sets_have_tables_of_their_own() -> None:
    found = page(comparison([defense("a on digits"), defense("a on mnist", dataset="mnist")]))
    labels = [a["aria-label"] for _, a in found.tags if "aria-label" in a]
    assert {"Side by side, digits", "Side by side, mnist", "Ranking on digits", "Ranking on mnist"} <= set(labels)


@pytest.mark.long
@pytest.mark.slow
def test_the_same_comparison_gives_the_same_bytes(tmp_path: Path) -> None:
    written = write_comparison(compare({"one": measured({"a": [9] * 10, "b": [2] * 10})}), tmp_path / "out" / "deep")
    assert written == tmp_path / "out" / "deep" / "comparison.html"
    code = (
        "import sys; from pathlib import Path; from leakbench.bench.comparison import Comparison;"
        "from leakbench.reports import write_comparison;"
        "made = Comparison.model_validate_json((Path(sys.argv[1]) / 'comparison.json').read_bytes());"
        "write_comparison(made, Path(sys.argv[2]))"
    )
    # another process has another hash seed
    subprocess.run([sys.executable, "-c", code, str(written.parent), str(tmp_path / "again")], check=True, cwd=tmp_path)
    for name in ("comparison.html", "comparison.json"):
        assert (tmp_path / "again" / name).read_bytes() == (written.parent / name).read_bytes()
    assert str(tmp_path) not in written.read_text(encoding="utf-8")


def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError) as caught:
        write_comparison(three(), tmp_path / "file")
    assert "\n" not in str(caught.value) and "file" in str(caught.value)


@pytest.mark.long
@pytest.mark.slow
def test_a_page_of_a_comparison_draws_no_figure(tmp_path: Path) -> None:
    (tmp_path / "made.json").write_text(three().model_dump_json())
    code = (
        "import sys; from pathlib import Path; from leakbench.bench.comparison import Comparison;"
        "from leakbench.reports import write_comparison;"
        "write_comparison(Comparison.model_validate_json(Path('made.json').read_bytes()), Path('out'));"
        "sys.exit('matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=tmp_path).returncode == 0
