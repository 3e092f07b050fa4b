from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
from pathlib import Path

import pytest
from realistic_samples import realistic
from report_page import Page, hostile, page
from report_samples import (
    calibration,
    cell,
    environment,
    index,
    judged,
    record,
    share,
    verdict,
)

from leakbench.records import (
    CellRecord,
    Picture,
    RunRecord,
)
from leakbench.reports.html import render


@pytest.mark.slow
def test_nothing_from_a_record_becomes_markup(tmp_path: Path) -> None:
    text = render(hostile(), tmp_path)
    found = Page(text)
    assert found.open == []
    assert [tag for tag, _ in found.tags].count("script") == 2
    assert not [tag for tag, _ in found.tags if tag == "img"]
    assert "onerror" not in {key for _, attributes in found.tags for key in attributes}
    assert "$x_$ {{ 7*7 }}" in found.text and "$x_$ 49" not in found.text
    assert "<img" not in text.replace("&lt;img", "") and "alert(1)>" not in text
    # the only place where the text stands unescaped for HTML is the JSON, and that is packed
    assert re.fullmatch("[A-Za-z0-9+/=]+", found.raw["script"][0])


@pytest.mark.slow
def test_the_records_are_inside_as_json(tmp_path: Path) -> None:
    made = realistic(tmp_path)
    found = page(made, tmp_path)
    data = [a for tag, a in found.tags if tag == "script" and "type" in a]
    assert data == [{"type": "application/gzip", "data-encoding": "base64", "id": "records"}]
    inside = RunRecord.model_validate_json(found.record)
    assert any(cell.pictures for cell in made.cells)
    assert inside == made.model_copy(
        update={"cells": [cell.model_copy(update={"pictures": []}) for cell in made.cells]}
    )


def test_a_script_end_in_a_record_does_not_end_the_json(tmp_path: Path) -> None:
    made = record([cell("d", "a", status="failed", traceback="</script><!--<script>")])
    found = page(made, tmp_path)
    assert json.loads(found.record)["cells"][0]["traceback"] == "</script><!--<script>"


@pytest.mark.slow
def test_the_policy_allows_exactly_the_pages_own_sheet_and_script(tmp_path: Path) -> None:
    found = page(realistic(tmp_path), tmp_path)
    (policy,) = [a["content"] for tag, a in found.tags if a.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))

    def digest(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
    assert [rules["style-src"]] == [digest(text) for text in found.raw["style"]]
    assert rules["script-src"] == digest(found.raw["script"][1])
    assert "unsafe" not in policy


@pytest.mark.slow
def test_the_policy_has_nothing_to_block(tmp_path: Path) -> None:
    found = page(realistic(tmp_path), tmp_path)
    for tag, attributes in found.tags:
        assert "style" not in attributes and not any(key.startswith("on") for key in attributes), (
            tag,
            attributes,
        )
    assert len(found.raw["style"]) == 1


@pytest.mark.slow
def test_nothing_is_fetched_from_anywhere(tmp_path: Path) -> None:
    found = page(realistic(tmp_path), tmp_path)
    for tag, attributes in found.tags:
        for key in ("src", "href", "xlink:href", "srcset", "action", "data", "poster", "content"):
            value = attributes.get(key, "")
            assert value.startswith(("#", "data:")) or "//" not in value, (tag, key, value)
        assert not attributes.get("src") or attributes["src"].startswith("data:image/png;base64,")
    assert not re.search(r"url\((?!#)|@import", found.raw["style"][0])
    assert tag_count(found, "link") == 1  # the empty icon: without it a browser asks for favicon.ico


def tag_count(found: Page, name: str) -> int:
    return sum(tag == name for tag, _ in found.tags)


@pytest.mark.slow
def test_ids_are_unique_and_every_anchor_leads_somewhere(tmp_path: Path) -> None:
    made = realistic(tmp_path)
    twice = made.model_copy(
        update={"cells": [*made.cells, *(c.model_copy(update={"model": "other"}) for c in made.cells)]}
    )
    found = page(twice, tmp_path)
    ids = [a["id"] for _, a in found.tags if "id" in a]
    assert len(ids) == len(set(ids))
    uses = [a["href"].removeprefix("#") for _, a in found.tags if a.get("href", "").startswith("#")]
    uses += [
        part
        for _, a in found.tags
        for key in ("aria-labelledby", "aria-describedby")
        for part in a.get(key, "").split()
    ]
    uses += [m for _, a in found.tags for m in re.findall(r"url\(#([^)]+)\)", " ".join(a.values()))]
    assert set(uses) <= set(ids)


@pytest.mark.slow
def test_every_picture_has_words_and_every_table_headings(tmp_path: Path) -> None:
    found = page(realistic(tmp_path), tmp_path)
    images = [a for tag, a in found.tags if tag == "img"]
    assert len(images) == 302 and all(a["alt"] for a in images)
    assert any(a["alt"].startswith("inversion on privatesnn, class 3, predicted ") for a in images)
    assert all(a.get("scope") for tag, a in found.tags if tag == "th")
    levels = [int(tag[1]) for tag, _ in found.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert ("html", {"lang": "en"}) in found.tags
    (figure,) = [a for tag, a in found.tags if tag == "svg" and a.get("role") == "img"]
    assert figure["aria-labelledby"] and figure["aria-describedby"]


@pytest.mark.slow
def test_the_numbers_are_on_the_page(tmp_path: Path) -> None:
    text = page(realistic(tmp_path), tmp_path).text
    for part in (
        ".71 [.61, .79] n=100",
        "bn-inversion on sengupta2019, bn-inversion on datafree",
        "NumericalError: direct made images with NaN or infinity",
        "1 cell failed",
        "1 cell without a signal",
        "bn-inversion on random : constant network: it gives every image the same answer",
        "1 failed, 6 not applicable, 1 no signal",
        "5.90×",
        ".98 [.96, .99] n=360",
        "learning_rate 0.05",
        "leakbench run --defense privatesnn --attack all",
        "3f9c" * 16,
        "scikit-learn, load_digits",
        ".70 [.59, .81] n=10",
        ".59 [.55, .63] n=360",
        "mean of the above over shifts by one pixel",
        "clipped to [0, 1]",
    ):
        assert part in text, part


@pytest.mark.slow
def test_the_page_is_small(tmp_path: Path) -> None:
    made = realistic(tmp_path)
    # 23 cells of 10 pictures of 8 x 8; the bound is the one for 15 cells of 10 pictures of common data sets
    assert len(render(made, tmp_path).encode()) < 1_500_000


@pytest.mark.slow
def test_fifteen_cells_of_coloured_pictures_stay_below_the_bound(tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(1)
    cells = []
    for number in range(15):
        pictures = []
        for target in range(10):
            path = Path("images") / f"{number}-{target}.png"
            (tmp_path / path).parent.mkdir(exist_ok=True)
            # incompressible, as the worst attack's images are
            Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(tmp_path / path)
            pictures.append(Picture(path=path.as_posix(), target=target))
        cells.append(cell(f"d{number // 3}", f"a{number % 3}", values=judged(70, 60.0), pictures=pictures))
    text = render(record([*cells, *calibration()]), tmp_path)
    assert text.count("<img") == 180 and len(text.encode()) < 1_500_000


def test_the_page_lists_with_what_each_row_was_made_and_where(tmp_path: Path) -> None:
    source = "0123456789abcdef" * 4
    made = cell(
        "noisy[sigma=0.05]", values=[share("accuracy", 9)], timesteps=32, preset="quick", defense_version=7,
        defense_source=source, defense_params={"sigma": 0.05, "images": 512},
    )  # fmt: skip
    found = page(record([made], environments=[environment(processor="one", artifacts=1234)]), tmp_path)
    assert "noisy[sigma=0.05] defence 32 quick 7 0123456789ab sigma 0.05 images 512" in found.text
    assert ("code", {"title": source}) in found.tags
    assert "one cpu 2 3.11.7 0.1.0 2.4.1 2.1.0 0.61.0 1,234" in found.text


def test_a_figure_label_is_no_formula(tmp_path: Path) -> None:
    label = r"d[x=$\frac{$]"
    cells: list[CellRecord] = [
        cell(label, values=[share("accuracy", 90)]),
        cell(label, "a", values=judged(70, 60.0)),
    ]
    found = page(record([*cells, *calibration()], verdicts=[verdict(label, index=index(0.5))]), tmp_path)
    assert any(tag == "svg" and a.get("class") == "figure" for tag, a in found.tags)
    assert found.text.count(label) > 3
