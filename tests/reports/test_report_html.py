from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_samples import (
    anchor,
    by_class,
    calibration,
    cell,
    environment,
    index,
    judged,
    plain,
    realistic,
    record,
    row,
    scale,
    share,
    small,
    verdict,
    write,
)

from leakbench.errors import StoreError, UsageError
from leakbench.metrics.energy import LayerOperations
from leakbench.metrics.motion import LayerMotion
from leakbench.records import (
    PARTIAL as POORER,
)
from leakbench.records import (
    CellRecord,
    ClassScore,
    DatasetInfo,
    Gate,
    JudgeInfo,
    Picture,
    PluginInfo,
    RunRecord,
    SyntheticSet,
    Value,
)
from leakbench.reports import write_report
from leakbench.reports.html import render

VOID = {"meta", "link", "img", "br", "line", "circle", "path", "use", "wbr"}


class Page(HTMLParser):
    """What a browser would find: tags with attributes, raw text of style and script, balanced or not."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.raw: dict[str, list[str]] = {"style": [], "script": []}
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in self.raw:
            self.raw[self.open[-1]].append(data)
        else:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page(made: RunRecord, run: Path) -> Page:
    found = Page(render(made, run))
    assert found.open == []
    return found


HOSTILE = '<script>alert("x")</script>\'"><img src=x onerror=alert(1)>&amp;$x_$ {{ 7*7 }} \x00\x1b\u2028'


def hostile() -> RunRecord:
    """Every text that comes from others is an attack on the page."""
    h = HOSTILE
    here = {"dataset": h, "model": h}
    evil = {**here, "defense_name": h}
    evil_pictures = [Picture(path=h, target=0, named=0, confidence=0.5)]
    return record(
        [
            cell(
                h,
                values=[share("accuracy", 90), plain(h, 1.0), plain("energy_ratio_int32", 5)],
                energy=[LayerOperations(h, 10, 5, 2.0, False)],
                motion=[LayerMotion(h, 1.0, 0.0)],
                artifacts={h: h},
                warnings=[h],
                defense_params={h: h},
                **evil,
            ),
            cell(
                h,
                h,
                values=judged(70, 60.0),
                pictures=evil_pictures,
                classes=[
                    ClassScore(metric="judge_accuracy", target=0, value=0.5, n=2),
                    ClassScore(metric="judge_accuracy", target=-1, value=1.0, n=2),
                    ClassScore(metric=h, target=0, value=1.0, n=2),
                ],
                attack_params={h: [h]},
                attack_source=h,
                preset=h,
                public=h,
                **evil,
            ),
            cell(h, "x", status="failed", reason=h, traceback=h, **evil),
            anchor(
                h,
                dataset=h,
                model=h,
                values=judged(1, 2.0),
                classes=[ClassScore(metric="judge_accuracy", target=0, value=0.0, n=2)],
            ),
            cell(h, h, of=h, values=judged(1, 2.0), warnings=[h], **evil),
        ],
        rows=[
            row(
                h,
                h,
                by_class(0.5, None, null=h),
                index(0.4, metric=h),
                index(0.1, 0.01, metric="kes"),
                index(None, metric=f"{h}2", reason=h),
                validity="invalid",
                reason=h,
                control=False,
                gates=[Gate(name="G1", passed=False, reason=h), Gate(name="G5", passed=None, reason=h)],
                **here,
            ),
            row(h, "x", index(None, reason=h), reason=h, gates=[Gate(name="G2", passed=False, reason=h)], **here),
            row("ann", h, index(0.9, null=h), **here),
        ],
        verdicts=[verdict(h, attack=h, reason=h, **here), verdict(f"{h}3", "inconclusive", h, index=None, **here)],
        scales=[scale(h, fresh_noise=index(0.5, metric=h), **here)],
        leakbench=h,
        created=h,
        command=h,
        environment={h: h},
        environments=[environment(processor=h, torch=h), environment(device=h)],
        grid={h: [h]},
        datasets=[
            DatasetInfo(
                name=h,
                classes=[h],
                train_images=1,
                test_images=1,
                channels=1,
                height=1,
                width=1,
                source=h,
                fingerprint=h,
            )
        ],
        judges=[JudgeInfo(name=h, dataset=h, summary=h, accuracy=share("accuracy", 1), corrupted=share("accuracy", 1))],
        plugins=[PluginInfo(kind="attack", name=h, version=1, summary=h, cites=h, needs=h, origin=h)],
        synthetic=[
            SyntheticSet(
                key=h,
                dataset=h,
                model=h,
                seed=0,
                params={h: h},
                count=1,
                teacher_agreement=1.0,
                pictures=evil_pictures,
            )
        ],
    )


def test_nothing_from_a_record_becomes_markup(tmp_path: Path) -> None:
    text = render(hostile(), tmp_path)
    found = Page(text)
    assert found.open == []
    assert [tag for tag, _ in found.tags].count("script") == 2
    assert not [tag for tag, _ in found.tags if tag == "img"]
    assert "onerror" not in {key for _, attributes in found.tags for key in attributes}
    assert "$x_$ {{ 7*7 }}" in found.text and "$x_$ 49" not in found.text
    assert "<img" not in text.replace("&lt;img", "") and "alert(1)>" not in text
    # the only place where the text stands unescaped for HTML is the JSON, and there no < is left
    assert "<" not in found.raw["script"][0]


def test_the_records_are_inside_as_json(tmp_path: Path) -> None:
    made = realistic(tmp_path)
    found = page(made, tmp_path)
    data = [a for tag, a in found.tags if tag == "script" and a.get("type") == "application/json"]
    assert data == [{"type": "application/json", "id": "records"}]
    assert RunRecord.model_validate_json(found.raw["script"][0]) == made


def test_a_script_end_in_a_record_does_not_end_the_json(tmp_path: Path) -> None:
    made = record([cell("d", "a", status="failed", traceback="</script><!--<script>")])
    found = page(made, tmp_path)
    assert json.loads(found.raw["script"][0])["cells"][0]["traceback"] == "</script><!--<script>"


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


def test_the_policy_has_nothing_to_block(tmp_path: Path) -> None:
    found = page(realistic(tmp_path), tmp_path)
    for tag, attributes in found.tags:
        assert "style" not in attributes and not any(key.startswith("on") for key in attributes), (
            tag,
            attributes,
        )
    assert len(found.raw["style"]) == 1


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


def test_every_picture_has_words_and_every_table_headings(tmp_path: Path) -> None:
    found = page(realistic(tmp_path), tmp_path)
    images = [a for tag, a in found.tags if tag == "img"]
    assert len(images) == 230 and all(a["alt"] for a in images)
    assert any(a["alt"].startswith("inversion on privatesnn, class 3, the judges say ") for a in images)
    assert all(a.get("scope") for tag, a in found.tags if tag == "th")
    levels = [int(tag[1]) for tag, _ in found.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert ("html", {"lang": "en"}) in found.tags
    (figure,) = [a for tag, a in found.tags if tag == "svg" and a.get("role") == "img"]
    assert figure["aria-labelledby"] and figure["aria-describedby"]


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


def test_the_page_is_small(tmp_path: Path) -> None:
    made = realistic(tmp_path)
    # 23 cells of 10 pictures of 8 x 8; the bound is the one for 15 cells of 10 pictures of common data sets
    assert len(render(made, tmp_path).encode()) < 1_500_000


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
    assert text.count("<img") == 150 and len(text.encode()) < 1_500_000


@pytest.mark.slow
def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    made = realistic(tmp_path)
    first = render(made, tmp_path)
    assert render(made, tmp_path) == first
    write(tmp_path, made)
    code = (
        "import sys; from pathlib import Path; from leakbench.reports import write_report;"
        "sys.stdout.write(str(write_report(Path(sys.argv[1]))))"
    )
    # another process has another hash seed
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
    assert Path(done.stdout).read_bytes() == first.encode()


def test_where_a_run_lies_is_not_on_its_page(tmp_path: Path) -> None:
    made = realistic(tmp_path)
    assert str(tmp_path) not in render(made, tmp_path)


def two_hundred(run: Path) -> RunRecord:
    realistic(run)  # draws the picture
    pictures = [Picture(path="images/real/0.png", target=t) for t in range(200)]
    return record([cell("d", "a", values=judged(70, 60.0), pictures=pictures), *calibration()])


def odd_numbers(_: Path) -> RunRecord:
    nan, inf = float("nan"), float("inf")
    values = [
        Value(metric="judge_accuracy", value=nan, low=nan, high=nan, n=5),
        Value(metric="fid", value=inf, low=0, high=inf, n=5),
        Value(metric="kid", value=1e-12, n=5),
        Value(metric="seconds", value=1e12),
    ]
    return record(
        [
            cell(
                "d",
                values=[Value(metric="accuracy", value=nan), Value(metric="energy_ratio_int32", value=inf)],
            ),
            cell("d", "a", values=values),
            cell("d", "b", values=[share("judge_accuracy", 40)]),
            cell("ann", values=[Value(metric="accuracy", value=0.5)]),
            anchor("noise", values=values),
            anchor("real", values=values),
        ]
    )


PARTIAL: dict[str, Callable[[Path], RunRecord]] = {
    "no cells": lambda _: record([]),
    "no cells, interrupted": lambda _: record([], complete=False),
    "anchors alone": lambda _: record(calibration()),
    "no anchors": lambda _: record([cell("d", "a", values=judged(70, 60.0))]),
    "all failed": lambda _: record([cell(d, a, status="failed", reason="x") for d in "de" for a in ("", "a", "b")]),
    "defences alone": lambda _: record([cell("d", values=[share("accuracy", 90)])]),
    "controls alone": lambda _: record([cell("ann", "a", values=judged(70, 60.0), control=True), *calibration()]),
    "no judge accuracy": lambda _: record([cell("d", "a", values=[plain("queries", 3)])]),
    "rows alone": lambda _: record([], rows=small().rows, verdicts=small().verdicts, scales=small().scales),
    "inconclusive": lambda _: record(
        small().cells,
        rows=[row("privatesnn", "inversion", validity="invalid", gates=[], p=None)],
        verdicts=[verdict("privatesnn", "inconclusive", attack="", index=None)],
    ),
    "nothing has a scale": lambda _: record(
        small().cells,
        rows=[row("privatesnn", "inversion", index(None), by_class(None, None, metric="kes"))],
        verdicts=[verdict("privatesnn", index=index(None))],
        scales=[scale(fresh_noise=index(None), fresh_real=index(None))],
    ),
    "two hundred classes": two_hundred,
    "hostile": lambda _: hostile(),
    "odd numbers": odd_numbers,
    "several seeds": lambda _: record(
        [c.model_copy(update={"seed": seed}) for c in small().cells for seed in (0, 1, 2)]
    ),
    "several data sets": lambda _: record(
        [c.model_copy(update={"dataset": name}) for c in small().cells for name in ("x", "y")]
    ),
    "forty defences": lambda _: record(
        [
            c
            for number in range(40)
            for c in (
                cell(f"d{number}", values=[share("accuracy", 50 + number)]),
                cell(f"d{number}", "a", values=judged(70, 60.0)),
            )
        ]
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PARTIAL)
def test_every_record_has_a_whole_page_and_tables(tmp_path: Path, name: str) -> None:
    made = PARTIAL[name](tmp_path)
    page(made, tmp_path)
    if name == "odd numbers":  # JSON has no NaN
        return
    written = write_report(write(tmp_path, made))
    assert written == tmp_path / "report.html"
    assert (tmp_path / "results.csv").read_text(encoding="utf-8").startswith("dataset,model,")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_an_old_report_is_replaced_and_not_mixed(tmp_path: Path) -> None:
    write(tmp_path, small())
    (tmp_path / "report.html").write_text("old " * 100_000)
    assert "old old" not in write_report(tmp_path).read_text(encoding="utf-8")


def test_a_poorer_record_has_a_page_and_tables_of_its_own_that_say_so(tmp_path: Path) -> None:
    write_report(write(tmp_path, small()))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / POORER.record).write_text(small().model_copy(update={"complete": False}).model_dump_json())
    assert write_report(tmp_path, POORER) == tmp_path / "report.partial.html"
    assert {path: path.read_bytes() for path in before} == before
    names = {"results.partial.csv", "results.partial.md", "results.partial.tex"}
    assert {path.name for path in tmp_path.iterdir() if path not in before} == {POORER.record, POORER.page, *names}
    found = Page((tmp_path / POORER.page).read_text(encoding="utf-8"))
    assert "A poorer record" in found.text and all(name in found.text for name in names)
    assert "A poorer record" not in Page((tmp_path / "report.html").read_text(encoding="utf-8")).text


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


def test_a_failing_write_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, small())
    (tmp_path / "results.csv").write_text("old")

    def full(_self: Path, _target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StoreError, match="No space left"):
        write_report(tmp_path)
    assert (tmp_path / "results.csv").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.csv", "results.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "can't be read"),
        ("", "no record of a run"),
        ("{", "no record of a run"),
        ("[]", "no record of a run"),
        ('{"schema_version": 1}', "no record of a run"),
        (json.dumps({"cells": [], "schema_version": 1, "leakbench": "0.0.9"}), "schema version 1, .*0.0.9"),
        (small().model_copy(update={"schema_version": 99}).model_dump_json(), "schema version 99"),
    ],
)
def test_what_is_no_record_is_refused_in_one_line(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "results.json").write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        write_report(tmp_path)
    assert "\n" not in str(caught.value)


def test_importing_the_package_draws_nothing(tmp_path: Path) -> None:
    code = "import leakbench.reports, sys; sys.exit('matplotlib' in sys.modules or 'jinja2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=tmp_path).returncode == 0


def test_a_figure_label_is_no_formula(tmp_path: Path) -> None:
    label = r"d[x=$\frac{$]"
    cells: list[CellRecord] = [
        cell(label, values=[share("accuracy", 90)]),
        cell(label, "a", values=judged(70, 60.0)),
    ]
    found = page(record([*cells, *calibration()], verdicts=[verdict(label, index=index(0.5))]), tmp_path)
    assert any(tag == "svg" and a.get("class") == "figure" for tag, a in found.tags)
    assert found.text.count(label) > 3
