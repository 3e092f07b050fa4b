"""Writes docs/results/ranking-DATASET.md: every method in the order of what it leaks, and at what cost.

M=zskd,diehl2015,rueckauer2017,sengupta2019,han2020,han_roy2020,zambrano2019,deng_gu2021,li2021,bu2022,stbp,tdbn,\
lee2020,datafree,privatesnn
leakbench run --protocol leakbench-v2-digits -d $M --set privatesnn.od=True,False --out runs/ranking-digits
leakbench run --protocol leakbench-v2-digits -d knowledge_within,han2020 --model vgg4bn --out runs/ranking-digits-bn
python benchmarks/method_ranking.py runs/ranking-digits runs/ranking-digits-bn

And so for the second data set, with --dataset fashion-mnist --preset quick --timesteps 64 -a auto --seeds 2 in place of
the protocol, --model vgg5bn, runs/ranking-fashion-mnist and runs/ranking-fashion-mnist-bn. All runs of a data set go
into one call; one that was made later, as of a further method, may be among them.
"""

from __future__ import annotations

import re
from statistics import median

import numpy as np
import result_page
from scipy.stats import t

from leakbench.bench.comparison import Comparison, Pair, compare
from leakbench.records import RunRecord, Value
from leakbench.reports.conclusion import brief
from leakbench.reports.ranking import apart_text, difference_text, rank_text, sentence, value_text
from leakbench.reports.threats import cost_text
from leakbench.reports.vocabulary import Vocabulary, bounds, index_text, number

SHOWN = 12
"""pairs that differ most, of each data set"""


def main() -> None:
    dataset, records = result_page.read_runs(__doc__)
    result_page.keep(records)
    made = result_page.of_runs(records, f"python benchmarks/method_ranking.py {' '.join(records)}")
    result_page.write(
        f"ranking-{dataset}.md",
        f"Every method, ranked: {dataset}",
        "By the recommended ensemble (`auto`) alone. [Every method](../conversions.md) says what each of them is.",
        made,
        _MEANING,
        *_section(records, compare(records)),
    )


_MEANING = (
    "The *leakage index* says how much the attack gets in the end, the *area* under it over log cost also how soon: 0 "
    "where it never gets anything, 1 where its first step shows all. Both have ranks from all pairs (Student's t by "
    "seed and class, Holm over the pairs of a data set): 3–18 means that only two methods leak significantly less. "
    "Differences are of the scores behind the index, before it is cut to 0 to 1. A method with a smaller area is no "
    "better protection where its index is as high: it makes attackers work longer. "
    "What the order means: a conversion hands over the ANN's weights up to a scale, and an attacker who has them gets "
    "as much from one as from another. Only what trains other weights can differ."
)


def _section(records: dict[str, RunRecord], found: Comparison) -> list[str]:
    vocabulary = Vocabulary(found.metrics)
    seeds = sorted({len(one.seeds) for one in found.defenses})
    half = {
        (run, verdict.model, verdict.defense): verdict.threats[-1].cost_to_half
        for run, record in records.items()
        for verdict in record.verdicts
        if verdict.threats
    }
    ordered = sorted(found.defenses, key=lambda one: one.area.value if one.area else 2.0)
    rows = [
        [
            f"`{one.label}`", one.model, value_text(one.value("accuracy"), vocabulary), one.outcome or "–",
            index_text(one.index), rank_text(one.rank), _cost(half.get((one.runs[0], one.model, one.defense))),
            _share(one.area), rank_text(one.area_rank),
        ]
        for one in ordered
    ]  # fmt: skip
    heading = ["method", "network", "accuracy", "verdict", "index", "rank", "cost to half", "area", "rank by area"]
    parts = [f"{seeds[0]} networks each:", result_page.table(heading, rows)]
    for quantity, title in (("leakage", "By the index"), ("area", "By the area")):
        family = [pair for pair in found.pairs if pair.quantity == quantity and not pair.attack]
        summary = f"{title}, {apart_text(family)} (p below .05 after correction)."
        parts.append(" ".join(text for text in (summary, _largest(family), _power(family)) if text))
    without = [f"`{one.label}`: {brief(one.unranked)}" for one in found.defenses if one.unranked]
    return parts + ([f"Without a rank: {'; '.join(without)}."] if without else [])


def _power(family: list[Pair]) -> str:
    """How large a difference would have been found, and how large the pairs' are."""
    tested = [pair for pair in family if pair.p and pair.value and pair.high is not None and pair.p < 1]
    if not tested:
        return ""
    found = [_detected(pair, 0.05 / len(family)) for pair in tested]
    sizes = [abs(pair.value) for pair in family if pair.value is not None]
    return (
        f"Of the {len(tested)} pairs that differ at all, half would show a difference of {median(found):.2f} with 80 % "
        f"probability after correction (two-sided t at .05 / {len(family)}, Holm's first step); the median "
        f"difference of all {len(sizes)} is {median(sizes):.2f}, the largest {max(sizes):.2f}."
    )


def _detected(pair: Pair, level: float) -> float:
    """The difference that a pair with this one's standard error and degrees of freedom shows in 80 % of cases."""
    size, half = abs(pair.value or 0.0), (pair.high or 0.0) - (pair.value or 0.0)

    def missed(df: float) -> float:
        return float(2 * t.sf(size / half * t.ppf(0.975, df), df)) - (pair.p or 0.0)

    # p and interval are of the same standard error: one number of degrees of freedom fits both
    grid = np.geomspace(1.01, 1e4, 400)
    df = float(grid[np.argmin([abs(missed(one)) for one in grid])])
    error = half / t.ppf(0.975, df)
    return float((t.ppf(1 - level / 2, df) + t.ppf(0.8, df)) * error)


def _largest(family: list[Pair]) -> str:
    """The pairs that differ most, in words."""
    apart = [pair for pair in family if pair.relation in ("less", "more")]
    apart.sort(key=lambda pair: -abs(pair.value or 0.0))
    texts = [f"{_code(sentence(pair))} ({difference_text(pair, 'share')})" for pair in apart[:SHOWN]]
    more = f"; and {len(apart) - SHOWN} more" if len(apart) > SHOWN else ""
    return f"{'; '.join(texts)}{more}." if texts else ""


def _code(text: str) -> str:
    """Names with brackets are no links."""
    return re.sub(r"\[", r"\\[", text)


def _cost(cost: Value | None) -> str:
    if cost is None:
        return "not reached"
    low, high = (cost_text(end) if end is not None else "–" for end in (cost.low, cost.high))
    return f"{cost_text(cost.value)} [{low}, {high}]"


def _share(area: Value | None) -> str:
    return f"{number('share', area)} {bounds('share', area)}".rstrip() if area else "–"


if __name__ == "__main__":
    main()
