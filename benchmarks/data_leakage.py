"""Writes docs/results/data-leakage-DATASET.md: what attacks on members find in the network of every defence.

D=zskd,diehl2015,rueckauer2017,sengupta2019,han2020,han_roy2020,zambrano2019,deng_gu2021,li2021,bu2022,stbp,tdbn,\
lee2020,datafree,privatesnn
A=auto_mia,loss_threshold,attack_p,rmia,lira,bavaria,threshold_membership,synthetic_leak,noise_mia,label_only_mia,\
gradient_mia,trajectory_mia
O="--dataset digits --preset quick --seeds 3"
leakbench run $O -d $D -a $A --out runs/data-leakage-digits-methods
leakbench run $O -d dpsgd --set dpsgd.epsilon=1,2,4,8,16 -a auto_mia,lira --out runs/data-leakage-digits-epsilon
leakbench run $O -d han2020,bu2022,stbp,tdbn --set stbp.timesteps=none --set tdbn.timesteps=none -T 4,8,16,32 \
-a auto_mia,lira,noise_mia --out runs/data-leakage-digits-T
leakbench run $O -d privatesnn --set privatesnn.od=True,False --set privatesnn.epochs=5,20,80 -a auto_mia,lira \
--out runs/data-leakage-digits-training
leakbench run $O -d han2020,datafree --set han2020.encoder=direct --set datafree.encoder=direct \
--set overfitted.encoder=direct --set han2020.images=16,64,256 -a auto_mia,threshold_membership \
--out runs/data-leakage-digits-images
python benchmarks/data_leakage.py runs/data-leakage-digits-*

And so with --dataset fashion-mnist. All runs of a data set go into one call; runs that vary a parameter are sweeps.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from statistics import mean

import numpy as np
import result_page

from leakbench.bench.suites import CONVERSIONS, TRAINED
from leakbench.contracts import MembershipAttack
from leakbench.leakage.controls import ANN
from leakbench.leakage.membership.verdict import HEADLINE, TAIL, conclude
from leakbench.metrics.audit import AuditedEpsilon
from leakbench.metrics.intervals import Difference, holm, paired_difference
from leakbench.records import RunRecord, Value
from leakbench.reports.curves import TIMESTEPS, Curve, curves
from leakbench.reports.member_rows import membership_view
from leakbench.reports.summary import Group, groups, members_of
from leakbench.reports.tables import markdown
from leakbench.reports.vocabulary import Vocabulary, bounds, number

ENSEMBLE = "auto_mia-v2"
MEASURED = ("accuracy", HEADLINE, TAIL, AuditedEpsilon.name)
"""of a defence, in the table of all"""
_MEANING = (
    "Means over networks with Student's 95 % interval over them, of one network over images, cut to what a share can "
    "be. AUC .5 and 1 % of the members are chance. *Against the ANN* is the difference in AUC, paired over seeds, with "
    "p of a t test after Holm's correction over the table. A verdict is about one method, wrong with a probability of "
    "1 %: it is not corrected for how many stand in the table, and by the rules of today, whenever the run was. What "
    "the numbers mean, and what they do not, is in [data leakage](../data-leakage.md): an AUC near .5 is no evidence "
    "of privacy."
)


def main() -> None:
    dataset, records = result_page.read_runs(__doc__)
    result_page.keep(records)
    records = {name: concluded(record) for name, record in records.items()}
    result_page.write(
        f"data-leakage-{dataset}.md",
        f"Data leakage by method: {dataset}",
        f"What attacks find out about who was in the training set, by `{ENSEMBLE}` where no other is named.",
        result_page.of_runs(records, f"python benchmarks/data_leakage.py {' '.join(records)}"),
        _MEANING,
        *page(records.values()),
    )


def concluded(record: RunRecord) -> RunRecord:
    """The record with rows and verdicts on members by the present rules, whichever were those of the run."""
    declared = {metric.name: metric for metric in record.metrics}
    found = conclude([cell for cell in record.cells if cell.leakage in ("", MembershipAttack.leakage)], declared)
    rows = [row for row in record.rows if row.leakage != MembershipAttack.leakage]
    verdicts = [verdict for verdict in record.verdicts if verdict.leakage != MembershipAttack.leakage]
    return record.model_copy(update={"rows": [*rows, *found.rows], "verdicts": [*verdicts, *found.verdicts]})


def page(records: Collection[RunRecord]) -> list[str]:
    """The parts of the page: every method, the controls, every attack, the sweeps, and what papers claim."""
    grids = [(record, group) for record in records for group in groups(record)]
    swept = [(group, sweeps_of(record, group)) for record, group in grids]
    parts: list[str] = []
    for (record, group), (_, sweeps) in zip(grids, swept, strict=True):
        members = members_of(record)[group.dataset, group.model]
        if not sweeps:
            parts += _methods(record, group, members)
    for _, sweeps in swept:
        parts += [text for curve in sweeps for text in (f"## {markdown(curve.title)}", _numbers(curve))]
    return [*parts, "## What papers say", *_claims(records)]


def sweeps_of(record: RunRecord, group: Group) -> list[Curve]:
    """Curves of a run that varies something; none of one that only has defences."""
    return curves(group, members_of(record).get((group.dataset, group.model)))


def _methods(record: RunRecord, group: Group, members: Group) -> list[str]:
    labels = [label for label in members.defenses if (label, ENSEMBLE) in members.rows]
    asked = [label for label in labels if label not in members.controls or members.plugin(label) == ANN]
    against = against_ann(members, asked)
    rows = []
    for label in sorted(asked, key=lambda label: _extent(members, label)):
        verdict = members.verdicts.get(label)
        own = _text(group, label, "", "accuracy")
        found = [_text(members, label, ENSEMBLE, metric) for metric in MEASURED[1:]]
        rows.append(
            [f"`{label}`", own, *found, _against(against.get(label)), verdict.outcome if verdict else "control"]
        )
    titles = [group.vocabulary.describe(metric).title for metric in MEASURED]
    heading = ["method", *titles, "against the ANN", "verdict"]
    count = len(members.seeds)
    about = f"{members.title}, preset {record.grid['preset']}, {count} network{'s' if count > 1 else ''} each"
    version = next((f", version {one.version}" for one in record.plugins if one.name == ENSEMBLE), "")
    parts = [
        f"{about}, by `{ENSEMBLE}`{version}:",
        result_page.table(heading, rows),
        _family(against),
        *_unmeasured(record, group, labels),
    ]
    others = [label for label in labels if label not in asked]
    controls = [
        [f"`{label}`", *(_text(members, label, ENSEMBLE, metric) for metric in MEASURED[1:])] for label in others
    ]
    parts += ["Controls:", result_page.table(["network", *titles[1:]], controls)] if controls else []
    view = membership_view(record, group.dataset, group.model)
    if view and len(members.attacks) > 1:
        found_by = {(row.defense, row.attack): row for row in view.rows}
        cells = [
            [
                f"`{label}`",
                *(
                    f"{row.auc.partition(' [')[0]}{'' if row.validity == 'valid' else ' (invalid)'}"
                    if (row := found_by.get((label, attack)))
                    else "–"
                    for attack in members.attacks
                ),
            ]
            for label in labels
        ]
        parts += ["AUC of each attack:", result_page.table(["network", *(f"`{a}`" for a in members.attacks)], cells)]
    return parts


def _unmeasured(record: RunRecord, group: Group, measured: Collection[str]) -> list[str]:
    """A line for each defence of which the ensemble gave no scores on any network, and why."""
    why = Counter(
        (cell.defense, cell.status.replace("-", " "), cell.reason)
        for cell in record.cells
        if (cell.dataset, cell.model) == (group.dataset, group.model)
        and cell.attack == ENSEMBLE
        and not cell.of
        and cell.defense not in measured
    )
    return [
        f"`{label}` is not in the table: {status}{f' ({markdown(reason)})' if reason else ''} on {count} networks."
        for (label, status, reason), count in why.items()
    ]


def against_ann(members: Group, labels: Sequence[str]) -> dict[str, tuple[Difference, float]]:
    """Label -> difference of its AUC to the ANN's, paired over seeds, and p after Holm's correction over all labels.

    Empty where no ANN was attacked. The variance over seeds is at least that of all methods (see
    :func:`~leakbench.metrics.intervals.paired_difference`).
    """
    ann = members.named(ANN)
    scores = {label: _by_seed(members, label) for label in labels}
    if ann not in scores:
        return {}
    seeds = sorted(scores[ann])
    arrays = {label: np.array([[of[seed]] for seed in seeds]) for label, of in scores.items() if of.keys() >= {*seeds}}
    differences = {
        label: paired_difference(one, arrays[ann], [peer for name, peer in arrays.items() if name not in (label, ann)])
        for label, one in arrays.items()
        if label != ann
    }
    adjusted = holm([difference.p for difference in differences.values()])
    return {label: (found, p) for (label, found), p in zip(differences.items(), adjusted, strict=True)}


def _claims(records: Collection[RunRecord]) -> list[str]:
    """What papers on spiking networks say of membership, beside the same question asked here of several networks."""
    trained, converted, over_t = [], [], []
    for record in records:
        for group in groups(record):
            members, sweeps = members_of(record)[group.dataset, group.model], sweeps_of(record, group)
            if not sweeps and len(members.seeds) > 1:
                asked = [label for label in members.defenses if (label, ENSEMBLE) in members.rows]
                differences = {members.plugin(label): one for label, one in against_ann(members, asked).items()}
                trained += [_named(name, differences[name]) for name in TRAINED if name in differences]
                converted += [difference for name in CONVERSIONS if (difference := differences.get(name))]
            for curve in sweeps:
                if (curve.across, curve.metric.name) == (TIMESTEPS, HEADLINE):
                    over_t += [
                        f"`{line.label}` {_bare(line.points[0].value.value)} at T = {line.points[0].x:g}, "
                        f"{_bare(line.points[-1].value.value)} at {line.points[-1].x:g}"
                        for line in curve.series
                    ]
    spread = [one.value for one, _ in converted]
    significant = sum(p < 0.05 for _, p in converted)
    ours = "1 conversion" if len(spread) == 1 else f"{len(spread)} conversions"
    of_conversions = (
        f"AUC less the ANN's, mean over {ours}: {mean(spread):+.3f} (from {min(spread):+.3f} to {max(spread):+.3f}; "
        f"{significant} significant)"
        if spread
        else "–"
    )
    rows = [
        [
            "Moshruba et al., [arXiv 2411.06613](https://arxiv.org/abs/2411.06613)",
            "networks trained with spikes are safer: on CIFAR-10 AUC .59 against an ANN's .82, on CIFAR-100 .58 "
            "against .88",
            f"AUC less the ANN's: {'; '.join(trained)}" if trained else "–",
        ],
        [
            "Li et al., [arXiv 2409.19413](https://arxiv.org/abs/2409.19413)",
            "conversion lowers the attacks' accuracy by up to 11.5 %, that of the network by up to 7.6 %; trained on "
            "neuromorphic data spiking networks leak up to 10 % more than ANNs",
            f"{of_conversions}; no neuromorphic data",
        ],
        [
            "Guan et al., [arXiv 2502.13191](https://arxiv.org/abs/2502.13191)",
            "they resist less the larger T is (their T: 1 to 4), and leak as ANNs do",
            "; ".join(over_t) or "–",
        ],
    ]
    about = (
        "Other data, networks and attacks: a claim that holds in general should be seen here too, its size need not. "
        "Numbers are those of the papers' abstracts."
    )
    return [about, result_page.table(["paper", "says", "here"], rows)]


def _named(name: str, found: tuple[Difference, float]) -> str:
    return f"`{name}` {_against(found)}"


def _against(found: tuple[Difference, float] | None) -> str:
    if found is None:
        return "–"
    difference, p = found
    ends = "" if math.isnan(difference.low) else f" [{difference.low:+.3f}, {difference.high:+.3f}]"
    told = "" if math.isnan(p) else f", p {'< .001' if p < 0.001 else f'= {p:.3f}'.replace('= 0', '= ')}"
    return f"{difference.value:+.3f}{ends}{told}"


def _family(against: Mapping[str, tuple[Difference, float]]) -> str:
    if not against:
        return "No ANN was attacked: nothing to compare with."
    if all(math.isnan(p) for _, p in against.values()):
        return "No test against the ANN: it takes two networks or more."
    apart = [label for label, (_, p) in against.items() if p < 0.05]
    names = ", ".join(f"`{label}`" for label in apart)
    return f"{len(apart)} of {len(against)} differ from the ANN (p below .05){f': {names}' if names else ''}."


def _by_seed(members: Group, label: str) -> dict[int, float]:
    """AUC of the ensemble by seed."""
    reading = members.reading(label, ENSEMBLE, HEADLINE)
    return {seed: value.value for seed, value in reading.values} if reading else {}


def _extent(members: Group, label: str) -> float:
    """The AUC, by whichever sign members are told."""
    area = _mean(members, label) or 0.0
    return 1 - area if members.rows[label, ENSEMBLE].lower_scores else area


def _mean(members: Group, label: str) -> float | None:
    values = _by_seed(members, label).values()
    return mean(values) if values else None


def _text(group: Group, label: str, attack: str, metric: str) -> str:
    experiment = group.experiments.get((label, attack))
    value = experiment.overall(metric) if experiment else None
    return _written(group.vocabulary, metric, value) if value else "–"


def _written(vocabulary: Vocabulary, metric: str, value: Value) -> str:
    if metric == AuditedEpsilon.name:  # a bound itself
        return f"{value.value:.2f}"
    unit = vocabulary.unit(metric)
    return " ".join(part for part in (number(unit, value), bounds(unit, value)) if part)


def _bare(x: float) -> str:
    return f"{x:.3f}".removeprefix("0")


def _numbers(curve: Curve) -> str:
    """A curve's table: a row a value of what is across."""
    table = curve.table
    rows = [[row.label, *(cell.text for cell in row.cells)] for row in table.rows]
    rows += [[row.label, row.cells[0].text, *[""] * (len(table.columns) - 1)] for row in table.anchors]
    heading = [table.corner, *table.columns]
    return result_page.table([markdown(one) for one in heading], [[markdown(one) for one in row] for row in rows])


if __name__ == "__main__":
    main()
