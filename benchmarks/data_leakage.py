"""Writes docs/results/data-leakage-DATASET.md: what attacks on members find in the network of every defence.

D=zskd,diehl2015,rueckauer2017,sengupta2019,han2020,han_roy2020,zambrano2019,deng_gu2021,li2021,bu2022,stbp,tdbn,\
lee2020,datafree,privatesnn,dpsgd
A=auto_mia-v2,loss_threshold,attack_p,rmia,lira,bavaria,threshold_membership,synthetic_leak,noise_mia,label_only_mia,\
gradient_mia,trajectory_mia
M="--dataset digits --preset quick --seeds 5"
O="--dataset digits --preset quick --seeds 3"
leakbench run $M -d $D -a $A --out runs/data-leakage-digits-methods
leakbench run $O -d $D -a $A --out runs/data-leakage-digits-attacks
leakbench run $M --model vgg4bn -d knowledge_within -a auto_mia-v2,rmia --out runs/data-leakage-digits-bn
leakbench run $O --model vgg4bn -d knowledge_within -a auto_mia-v2,rmia --out runs/data-leakage-digits-bn-attacks
leakbench run $O -d dpsgd --set dpsgd.epsilon=1,2,4,8,16 -a auto_mia-v2,lira --out runs/data-leakage-digits-epsilon
leakbench run $O -d han2020,bu2022,stbp,tdbn --set stbp.timesteps=none --set tdbn.timesteps=none -T 4,8,16,32 \
-a auto_mia-v2,lira,noise_mia --out runs/data-leakage-digits-T
leakbench run $O -d privatesnn --set privatesnn.od=True,False --set privatesnn.epochs=5,20,80 -a auto_mia-v2,lira \
--out runs/data-leakage-digits-training
leakbench run $O -d han2020,datafree --set han2020.encoder=direct --set datafree.encoder=direct \
--set overfitted.encoder=direct --set han2020.images=16,64,256 -a auto_mia-v2,threshold_membership \
--out runs/data-leakage-digits-images
python benchmarks/data_leakage.py runs/data-leakage-digits-*

And so with --dataset fashion-mnist. All runs of a data set go into one call; runs that vary a parameter are sweeps.
Files in docs/results/records stand for the runs that are kept there: they alone are enough to write the pages.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from statistics import mean

import result_page
from member_controls import Held, negative_controls
from member_grids import (
    ENSEMBLE,
    SHARING,
    Grid,
    against_ann,
    asked,
    attacked,
    beside_ensemble,
    by_seed,
    changes_of,
    grids_of,
)

from leakbench.bench.suites import CONVERSIONS, TRAINED
from leakbench.leakage.controls import ANN, BLANK, UNTRAINED
from leakbench.leakage.membership.verdict import HEADLINE, TAIL, TAIL_RATE
from leakbench.metrics.audit import DELTA, AuditedEpsilon
from leakbench.metrics.intervals import Difference, holm
from leakbench.metrics.membership import found_by_chance
from leakbench.records import RunRecord, Value
from leakbench.reports.curves import CLAIMED_EPSILON, TIMESTEPS, Curve, Point, tick
from leakbench.reports.member_rows import membership_view
from leakbench.reports.summary import Group
from leakbench.reports.tables import markdown
from leakbench.reports.vocabulary import Vocabulary, bounds, number

MEASURED = ("accuracy", HEADLINE, TAIL, AuditedEpsilon.name)
"""of a defence, in the table of all"""
_CHOSEN = "Each point is of the attack that finds most there: its interval does not allow for that choice."
LOST = 0.05
"""of the ANN's accuracy, from which on the page says so"""
_MEANING = (
    "Means over networks with Student's 95 % interval over them, of one network over images, cut to what a share can "
    "be; where all networks have the same number, the mean of their own. What is found at 1 % FPR on one network has "
    "no interval where it was measured before intervals allowed for the threshold. Intervals over networks are about "
    "networks, and "
    "about other images in part at most: each seed draws members from the same training set and non-members from the "
    "same half of the test set, on the digits all of that half each time. {chance} *Against the ANN* is the difference "
    "in AUC, paired over seeds, with the interval of one comparison alone and p of a t test after Holm's correction "
    "over the table; its variance over seeds is at least that of all methods of the run that start from the seed's "
    "ANN, or of all that do not, as few seeds tell little of it. A difference that was not seen is no proof of "
    "equality, and an ANN that reads little above untrained networks leaves little to lose. The *verdict* is over "
    "every attack of the run, by the rules of today, and names the attack that finds most and the seeds on which it "
    "does: a method of which no members can be found is called *leaks* with a probability of at most 1 %, over its "
    "attacks, tests and networks and not over the methods of the table, and over the attacks that are left where some "
    "are left out: the same scores may leak in a run of few attacks and be inconclusive in one of many. "
    "*Inconclusive* claims nothing. Conversions of one ANN, that of their seed, are not independent findings. An "
    "audited epsilon is a lower bound for its network: the lowest and the highest are shown. What `rmia`, `lira` and "
    "`bavaria` found before their version 3 is left out: they had asked the victim and its references under the same "
    "noise. What the numbers mean, and what they do not, is in [data leakage](../data-leakage.md): an AUC near .5 is "
    "no evidence of privacy."
)


def main() -> None:
    dataset, records = result_page.read_runs(__doc__)
    result_page.keep(records)
    result_page.write(
        f"data-leakage-{dataset}.md",
        f"Data leakage by method: {dataset}",
        f"What attacks find out about who was in the training set, by `{ENSEMBLE}` where no other is named.",
        result_page.of_runs(records, f"python benchmarks/data_leakage.py {' '.join(records)}"),
        _MEANING.format(chance=by_chance(records.values())),
        *page(records.values(), result_page.pictures(f"data-leakage-{dataset}")),
    )


def by_chance(records: Iterable[RunRecord]) -> str:
    """What guessing gives, by the numbers of images that attacks were asked about."""
    numbers = {
        counted[HEADLINE] - counted[TAIL]
        for record in records
        for cell in record.cells
        if {HEADLINE, TAIL} <= (counted := {value.metric: value.n for value in cell.values}).keys()
    }
    alike: dict[str, list[str]] = defaultdict(list)
    for others in sorted(numbers):
        alike[_bare(found_by_chance(others, TAIL_RATE))].append(str(others))
    shares = ", ".join(f"{share} with {_any_of(each)} non-members" for share, each in alike.items())
    found = f", and finds slightly more than .01 of the members at 1 % FPR: {shares}" if shares else ""
    return f"Guessing gives an AUC of .5{found}."


def _any_of(words: Sequence[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def page(records: Iterable[RunRecord], picture: Callable[[Curve], str]) -> list[str]:
    """The parts of the page: every method, the controls, every attack, the sweeps, and what papers claim.

    ``picture`` draws a sweep and gives the Markdown that shows it.
    """
    grids = grids_of(records)
    parts = [text for grid in grids if not grid.sweeps for text in _methods(grid)]
    parts += _changes(grids)
    for grid in grids:
        for curve in grid.sweeps:
            chosen = [_CHOSEN] if curve.worst else []
            parts += [f"## {markdown(curve.title)}", picture(curve), *chosen, _numbers(curve), _versions(grid.record)]
        parts += _verdicts(grid) if grid.sweeps else []
        parts += _beside(grid)
    return [*parts, *_negative(grid.record for grid in grids), "## What papers say", *_claims(grids)]


def _methods(grid: Grid) -> list[str]:
    record, group, members = grid.record, grid.group, grid.members
    labels, compared = attacked(members), asked(members)
    against = against_ann(members, compared)
    rows = []
    for label in sorted(compared, key=lambda label: _extent(members, label)):
        own = _text(group, label, "", "accuracy")
        found = [_text(members, label, ENSEMBLE, metric) for metric in MEASURED[1:]]
        found[-1] += _claimed(group, label)
        rows.append([f"`{label}`", own, *found, _against(against.get(label)), _outcome(members, label)])
    titles = [group.vocabulary.describe(metric).title for metric in MEASURED]
    heading = ["method", *titles, "against the ANN", "verdict"]
    count = len(members.seeds)
    about = f"{members.title}, preset {record.grid['preset']}, {count} network{'s' if count > 1 else ''} each"
    version = next((f", version {one.version}" for one in record.plugins if one.name == ENSEMBLE), "")
    parts = [
        f"{about}, by `{ENSEMBLE}`{version}:",
        result_page.table(heading, rows),
        *one_ann(members, compared),
        _family(against),
        *_untrained(members),
        *_poor(group, members, compared),
        *_unmeasured(record, group, labels),
    ]
    others = [label for label in labels if label not in compared]
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
        parts.append(
            "AUC of each attack; *invalid*: a gate failed, mostly as it finds no members of the overfitted control at "
            "p < .01 over its three tests on each network (`threshold_membership` is for constant input); –: not "
            "applicable."
        )
        parts += [result_page.table(["network", *(f"`{a}`" for a in members.attacks)], cells)]
        parts += _beside_ensemble(members, compared)
    return parts


def _untrained(members: Group) -> list[str]:
    """What networks without members read beside the ANN: below it, a method may have as many to find as the ANN."""
    label = members.named(UNTRAINED)
    if label is None or (found := against_ann(members, [label, members.named(ANN) or ""]).get(label)) is None:
        return []
    value = members.experiments[label, ENSEMBLE].overall(HEADLINE)
    beside = value is not None and value.low is not None and value.high is not None
    off = beside and not value.low <= 0.5 <= value.high
    remark = " Their interval over networks has no .5 in it either, and they have no members." if off else ""
    test = "" if math.isnan(found[1]) else ", p of this test alone"
    return [f"Untrained networks less the ANN{test}: {_against(found)}.{remark}"]


def _verdicts(grid: Grid) -> list[str]:
    """Which points of a run's sweeps leak."""
    outcomes = {label: _outcome(grid.members, label) for label in asked(grid.members)}
    leaking = [f"`{label}` {outcome}" for label, outcome in outcomes.items() if outcome.startswith("leaks")]
    rest = "of the others nothing is claimed" if leaking else "no point leaks for certain"
    return [f"Verdicts over the attacks of the run: {'; '.join([*leaking, rest])}."]


def _versions(record: RunRecord) -> str:
    """Which attacks and defences a sweep is of: another version may give other numbers than the tables above."""
    every = (f"`{one.name}` {one.version}" for one in record.plugins if one.name not in (ANN, *BLANK))
    return f"Versions: {', '.join(every)}."


def _beside_ensemble(members: Group, labels: Sequence[str]) -> list[str]:
    texts = [
        f"`{one.attack}` {one.value:+.3f} ({one.error:.3f}; {one.seeds} seeds, {one.networks} networks)"
        for one in beside_ensemble(members, labels)
    ]
    about = (
        f"AUC less that of `{ENSEMBLE}` where valid, mean over the networks of a seed and then over seeds (standard "
        "error over seeds, as networks of one seed share images and mostly an ANN)"
    )
    return [f"{about}: {'; '.join(texts)}."] if texts else []


def one_ann(members: Group, labels: Sequence[str]) -> list[str]:
    """A line for methods that start from one ANN and of which the same is found on the same seeds."""
    alike: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        if (found := _outcome(members, label)).startswith("leaks") and members.plugin(label) in SHARING:
            alike[found].append(f"`{label}`")
    return [
        f"{', '.join(names)} start from the same ANN and leak by the same attack on the same seeds: one finding, not "
        f"{len(names)}."
        for names in alike.values()
        if len(names) > 1
    ]


def _claimed(group: Group, label: str) -> str:
    """The epsilon that a method claims of itself at the audit's delta or a smaller one, beside the audited one."""
    cells = group.experiments[label, ""].cells if (label, "") in group.experiments else ()
    found = [{one.name: one.value for one in cell.findings} for cell in cells]
    claims = [one[CLAIMED_EPSILON] for one in found if CLAIMED_EPSILON in one and one.get("delta", 1.0) <= DELTA]
    return f" (claimed: {_ends(claims)})" if claims else ""


def _ends(values: Sequence[float]) -> str:
    """The lowest and the highest, as in "0.00 to 0.12"; one number where they read the same."""
    return " to ".join(dict.fromkeys(f"{end:.2f}" for end in (min(values), max(values))))


def _poor(group: Group, members: Group, labels: Sequence[str]) -> list[str]:
    """A line of those that lost much of the ANN's accuracy, which may lower what leaks."""
    own = {label: value.value for label in labels if (value := group.experiments[label, ""].overall("accuracy"))}
    ann = own.get(members.named(ANN) or "", 0.0)
    names = ", ".join(f"`{label}`" for label in labels if own.get(label, ann) < ann - LOST)
    return (
        [f"Accuracy at least {LOST:.2f} below the ANN's, which may by itself lower what can be found: {names}."]
        if names
        else []
    )


def _outcome(members: Group, label: str) -> str:
    """The verdict, and of a leak which attack finds it on how many networks."""
    if (verdict := members.verdicts.get(label)) is None:
        return "control"
    if verdict.outcome != "leaks":
        return verdict.outcome
    return f"leaks: `{verdict.attack}` {markdown(members.rows[label, verdict.attack].reason)}"


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


def _changes(grids: Sequence[Grid]) -> list[str]:
    """Whether parts of a method, or the ends of a sweep, change what is found: paired over seeds, Holm over all."""
    changes = [change for grid in grids for change in changes_of(grid)]
    if not changes:
        return []
    adjusted = holm([change.found.p for change in changes])
    rows = [
        [change.what, f"`{change.attack}`", str(change.networks), _against((change.found, p))]
        for change, p in zip(changes, adjusted, strict=True)
    ]
    significant = sum(p < 0.05 for p in adjusted)
    about = (
        "By how much the AUC differs, paired over the networks' seeds, with the interval of one comparison alone; p of "
        f"a t test after Holm's correction over this table. {significant} of {len(rows)} were seen to differ (p "
        "below .05). So few networks can't show less than what the intervals span."
    )
    return ["## What changes it", about, result_page.table(["what", "attack", "networks", "difference in AUC"], rows)]


def _beside(grid: Grid) -> list[str]:
    """What was attacked in a run that varies something and is on none of its lines."""
    members = grid.members
    drawn = {point.defense for curve in grid.sweeps for line in curve.series for point in line.points}
    beside = [label for label in asked(members) if label not in drawn and members.plugin(label) != ANN]
    if not grid.sweeps or not beside:
        return []
    rows = [
        [f"`{label}`", *(_text(members, label, attack, HEADLINE) for attack in members.attacks)] for label in beside
    ]
    return [
        "In the same run, membership AUC:",
        result_page.table(["method", *(f"`{a}`" for a in members.attacks)], rows),
    ]


def _negative(records: Iterable[RunRecord]) -> list[str]:
    """The table of the negative controls, with what they come to together."""
    found = {name: by_attack for name, by_attack in negative_controls(records).items() if by_attack}
    if not found:
        return []
    sums = []
    for name, by_attack in found.items():
        every = by_attack.values()
        total = Held(sum(one.held for one in every), sum(one.intervals for one in every))
        fewest, least = min(by_attack.items(), key=lambda one: one[1].held / max(1, one[1].intervals))
        sums.append(f"of {name} {total}{f', the smallest share by `{fewest}` ({least})' if len(by_attack) > 1 else ''}")
    about = (
        "How many 95 % intervals of an AUC hold .5 where nothing is to be found, on all networks of this page: "
        f"{'; '.join(sums)}. An attack passes with 35 of 40 or more; fewer than 40 can't tell. Networks of one seed "
        "share images and attacks share networks, so that these intervals depend on each other."
    )
    attacks = dict.fromkeys(attack for by_attack in found.values() for attack in by_attack)
    rows = [[f"`{one}`", *(str(by_attack.get(one, Held())) for by_attack in found.values())] for one in attacks]
    return ["## Where nothing is to be found", about, result_page.table(["attack", *found], rows)]


def _claims(grids: Sequence[Grid]) -> list[str]:
    """What papers on spiking networks say of membership, beside the same question asked here of several networks."""
    found: dict[str, tuple[Difference, float]] = {}
    over_t = []
    # of a method in several runs, which share seeds, that with the most networks
    for grid in sorted(grids, key=lambda grid: len(grid.members.seeds)):
        members = grid.members
        if not grid.sweeps and len(members.seeds) > 1:
            found |= {members.plugin(label): one for label, one in against_ann(members, asked(members)).items()}
        over_t += [
            f"`{line.label}` {_at(grid, line.points[0])}, {_at(grid, line.points[-1])}"
            for curve in grid.sweeps
            if (curve.across, curve.metric.name) == (TIMESTEPS, HEADLINE)
            for line in curve.series
        ]
    trained = [_named(name, found[name]) for name in TRAINED if name in found]
    converted = [found[name] for name in CONVERSIONS if name in found]
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
            "conversion lowers the attacks' accuracy by 11.5 % at most, there with a loss of 7.6 % of the network's; "
            "trained on neuromorphic data spiking networks leak up to 10 % more than ANNs",
            f"{of_conversions}; no neuromorphic data",
        ],
        [
            "Guan et al., [arXiv 2502.13191](https://arxiv.org/abs/2502.13191)",
            "they resist less the larger T is (their T: 1 to 4), and leak as ANNs do",
            "; ".join(over_t) or "–",
        ],
    ]
    about = (
        "Other data, networks and attacks; the papers' numbers are those of their abstracts, p is corrected over the "
        "methods of the same run. With as little to find in "
        "the ANN as here, an effect of their size could not show."
    )
    return [about, result_page.table(["paper", "says", "here"], rows)]


def _at(grid: Grid, point: Point) -> str:
    """What the ensemble finds at a point of a sweep over T."""
    own = _text(grid.group, point.defense, "", "accuracy").partition(" ")[0]
    return f"{_text(grid.members, point.defense, ENSEMBLE, HEADLINE)} at T = {tick(point.x)} (accuracy {own})"


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
    seen = f"{len(apart)} of {len(against)} were seen to differ from the ANN (p below .05)"
    return f"{seen}{f': {names}' if names else ''}."


def _extent(members: Group, label: str) -> float:
    """The AUC, by whichever sign members are told."""
    area = _mean(members, label) or 0.0
    return 1 - area if members.rows[label, ENSEMBLE].lower_scores else area


def _mean(members: Group, label: str) -> float | None:
    values = by_seed(members, label).values()
    return mean(values) if values else None


def _text(group: Group, label: str, attack: str, metric: str) -> str:
    experiment = group.experiments.get((label, attack))
    value = experiment.overall(metric) if experiment else None
    return _written(group.vocabulary, metric, value) if value else "–"


def _written(vocabulary: Vocabulary, metric: str, value: Value) -> str:
    if metric == AuditedEpsilon.name:  # a bound itself: the lowest and the highest
        return _ends([value.value if value.low is None else value.low, value.value])
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
