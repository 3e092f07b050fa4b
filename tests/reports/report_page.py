"""A page as a browser would find it, and a record whose every text is an attack on it."""

from __future__ import annotations

import base64
import gzip
from html.parser import HTMLParser
from pathlib import Path

from report_samples import (
    anchor,
    by_class,
    cell,
    environment,
    index,
    judged,
    plain,
    record,
    row,
    scale,
    share,
    verdict,
)

from leakbench.metrics.energy import LayerOperations
from leakbench.metrics.motion import LayerMotion
from leakbench.records import (
    ClassScore,
    DatasetInfo,
    Gate,
    JudgeInfo,
    Picture,
    PluginInfo,
    RunRecord,
    SyntheticSet,
)
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
    def record(self) -> bytes:
        """The JSON that it is made from."""
        return gzip.decompress(base64.b64decode(self.raw["script"][0], validate=True))

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
