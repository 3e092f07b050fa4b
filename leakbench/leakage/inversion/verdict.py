"""What a grid says: an attack's row is valid or not, and a defence leaks, resists these attacks, or is inconclusive.

Evidence for a leak needs a null that nothing can beat by luck: one test of all attacks and classes together. Evidence
against one needs all of :mod:`leakbench.leakage.inversion.resistance`; whatever of it is missing makes the verdict
inconclusive, and the verdict says what it is and what would settle it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from leakbench.contracts import Access, Attack
from leakbench.leakage.controls import ANN, UNPROTECTED, UNTRAINED
from leakbench.leakage.inversion import gates
from leakbench.leakage.inversion.budget import Anchors, AreaScores, area_scores, threat_models
from leakbench.leakage.inversion.class_evidence import (
    ACCEPTED,
    FORCED,
    OPEN_SET,
    ClassEvidence,
    accepted_share,
    class_evidence,
    known_classes,
    quoted_attacks,
)
from leakbench.leakage.inversion.index import estimate_of, has_index, index_of, indices
from leakbench.leakage.inversion.resistance import (
    REJECTED_TEXT,
    Missing,
    is_rejected,
    knows_classes,
    missing_for_resistance,
    nothing_known,
)
from leakbench.leakage.inversion.verdict_text import (
    decoys_of,
    headline,
    headline_of,
    reason_of,
    settle,
    worst_of,
)
from leakbench.leakage.kind import Evidence
from leakbench.leakage.scaled_scores import ScaledScores
from leakbench.leakage.seed_group import Declarations, SeedGroup, distinct, seed_group
from leakbench.metrics.class_votes import DRAWN, SIGNIFICANT, smallest_detectable_leak
from leakbench.metrics.estimate import Estimate
from leakbench.metrics.worst_case import worst_case
from leakbench.records import (
    AttackRow,
    CellRecord,
    Gate,
    Index,
    Scale,
    Validity,
    Value,
    Verdict,
    VerdictOutcome,
    fields,
)

POSITIVE = (UNPROTECTED, ANN)
"""plugins whose rows attacks must succeed on, the best first: the conversion that protects nothing, then the ANN"""


def conclude(cells: Sequence[CellRecord], needs: Mapping[str, str], declared: Declarations) -> Evidence:
    """Scales, rows and verdicts of every data set and model; ``needs``: attack's plugin name -> its access."""
    scales: list[Scale] = []
    rows: list[AttackRow] = []
    verdicts: list[Verdict] = []
    for dataset, model in dict.fromkeys((cell.dataset, cell.model) for cell in cells):
        group = GridGroup([cell for cell in cells if (cell.dataset, cell.model) == (dataset, model)], needs, declared)
        scales += group.scales()
        group_rows = group.rows()
        rows += group_rows
        verdicts += [group.verdict(label, group_rows) for label in group.defenses if group.in_question(label)]
    return Evidence(scales, rows, verdicts)


class GridGroup:
    """The cells of one data set and model, grouped over seeds."""

    def __init__(self, cells: Sequence[CellRecord], needs: Mapping[str, str], declared: Declarations) -> None:
        self._cells = cells
        self._distinct = distinct(cells)
        kept = {(cell.defense, cell.seed) for cell in self._distinct}
        self._copies: dict[str, dict[int, list[CellRecord]]] = defaultdict(lambda: defaultdict(list))
        """defence -> seeds whose networks do not count, as another's has the same weights or ANN -> their cells"""
        for cell in cells:
            if cell.defense and (cell.defense, cell.seed) not in kept:
                self._copies[cell.defense][cell.seed].append(cell)
        self._places: dict[tuple[str, str, str], list[CellRecord]] = defaultdict(list)
        for cell in self._distinct:
            self._places[cell.defense, "" if cell.of else cell.attack, cell.of].append(cell)
        self._declared = declared
        self._needs = needs
        self._nulls = [cell for cell in cells if cell.defense and cell.of and cell.control]
        ours = (cell for cell in cells if cell.defense and not (cell.of and cell.control))
        self.defenses = list(dict.fromkeys(cell.defense for cell in ours))
        self._noise, self._real = self._seed_group("", "noise"), self._seed_group("", "real")
        unprotected = [cell for cell in cells if cell.defense_name in POSITIVE and cell.attack and not cell.of]
        self.open_set = (accepted_share(unprotected) or 0.0) >= ACCEPTED
        self.headline = OPEN_SET if self.open_set else FORCED

    def _seed_group(self, defense: str, attack: str, checked_attack: str = "") -> SeedGroup:
        """A cell of the grid, or the check of ``checked_attack``."""
        place = defense, "" if checked_attack else attack, checked_attack
        return seed_group(self._places.get(place, ()), self._declared)

    def _named(self, plugin: str, like: str = "") -> str:
        """Label of the plugin's row, at ``like``'s time steps where there are several; empty where there is none."""
        rows = {c.defense: c.timesteps for c in self._cells if c.defense and c.defense_name == plugin and not c.attack}
        steps = {c.timesteps for c in self._cells if c.defense == like and not c.attack}
        return next((label for label, timesteps in rows.items() if timesteps in steps), next(iter(rows), ""))

    def _control(self, defense: str, attack: str) -> tuple[str, SeedGroup]:
        """The row that the attack must succeed on, and what it did there; the first that was judged, if any was."""
        labels = [label for plugin in POSITIVE if (label := self._named(plugin, defense))]
        groups = [(label, self._seed_group(label, attack)) for label in labels]
        judged = [(label, group) for label, group in groups if group.p is not None]
        return next(iter(judged or groups), ("", SeedGroup()))

    def _unprotected(self, defense: str) -> list[CellRecord]:
        """The cells of the networks that protect nothing, beside a defence that is none of them."""
        labels = {label for plugin in POSITIVE if (label := self._named(plugin, defense))} - {defense}
        return [cell for cell in self._distinct if cell.defense in labels]

    def _untrained(self, defense: str, attack: str) -> SeedGroup:
        """The same attack on the untrained network; empty where it was not run, or the network knows the classes.

        Of a network that was handed in only weights are drawn anew, and its constants may hold what it learnt.
        """
        untrained = self._named(UNTRAINED, defense)
        group = self._seed_group(untrained, attack) if untrained else SeedGroup()
        own = [cell for cell in self._cells if cell.defense == untrained]
        handed_in = any("sha256" in cell.defense_params for cell in own)
        return SeedGroup() if handed_in and knows_classes(own, known_classes(group.cells) or 1) else group

    def _no_decoys(self, defense: str, control: str) -> str:
        """Why a defence shows no decoys, by the attack to be quoted that draws from a student; empty where unknown."""
        cells = (c for c in self._cells if c.defense == defense and c.attack_name in quoted_attacks() and not c.of)
        attack = next((c.attack for c in cells if any(one.metric == gates.AGREEMENT for one in c.values)), "")
        if not attack or not control:
            return ""
        return gates.decoys_excluded(self._seed_group(defense, attack), self._seed_group(control, attack))

    def _null(self, defense: str, attack: str, own: SeedGroup | None = None) -> SeedGroup:
        """The same as what the index is measured from: nothing is its own null. Where it gave nothing, and the attack
        did, noise images of that seed stand in its place, so that no network of the defence is left out. ``own``: what
        is measured, where that is not the attack on the networks that count."""
        random = SeedGroup() if defense == self._named(UNTRAINED, defense) else self._untrained(defense, attack)
        own = self._seed_group(defense, attack) if own is None else own
        lacking = {cell.seed for cell in own.cells} - {cell.seed for cell in random.cells}
        others = [cell for cell in self._noise.cells if random and cell.seed in lacking]
        return seed_group([*random.cells, *others], self._declared)

    def scores(self, defense: str, attack: str) -> ScaledScores:
        """What an attack got out of a defence, by seed and class, on the scale of the index."""
        groups = self._seed_group(defense, attack), self._noise, self._real, self._null(defense, attack)
        return ScaledScores(*groups, self.headline)

    def area(self, attacks: Mapping[str, ScaledScores]) -> AreaScores | None:
        """Under the index over the attacker's cost, of the worst case over ``attacks``; None where none has a scale."""
        return area_scores(attacks)

    def is_control(self, label: str) -> bool:
        return all(cell.control for cell in self._cells if cell.defense == label)

    def in_question(self, label: str) -> bool:
        """Whether there is anything to say of a defence: something attacked it, and it is no control."""
        return not self.is_control(label) and any(cell.attack for cell in self._cells if cell.defense == label)

    def scales(self) -> list[Scale]:
        first = self._cells[0]
        fresh = {name: self._seed_group("", "", checked_attack=name) for name in ("noise", "real")}
        scales = []
        for metric in self._noise.metrics:
            low, high = self._noise.estimate(metric), self._real.estimate(metric)
            if not has_index(self._declared, metric) or low is None or high is None:
                continue
            checks = {
                f"fresh_{name}": index_of(metric, group, self._noise, self._real, SeedGroup())
                for name, group in fresh.items()
            }
            ends = {
                "noise": Value(metric=metric, **fields(low)),
                "real": Value(metric=metric, **fields(high)),
            }
            scales.append(Scale(dataset=first.dataset, model=first.model, metric=metric, **ends, **checks))
        return scales

    def rows(self) -> list[AttackRow]:
        return [row for label in self.defenses for row in self._rows(label)]

    def _rows(self, defense: str) -> Iterable[AttackRow]:
        grid = [c for c in self._cells if c.defense == defense and c.attack and not c.of]
        attacks = {cell.attack: self._needs.get(cell.attack_name, "WEIGHTS") for cell in grid}
        groups = {name: (Access[access], self._seed_group(defense, name)) for name, access in attacks.items()}
        for name, (access, group) in groups.items():
            if group:
                yield self._row(defense, name, group, access, groups)

    def _row(
        self,
        defense: str,
        attack: str,
        group: SeedGroup,
        access: Access,
        groups: Mapping[str, tuple[Access, SeedGroup]],
    ) -> AttackRow:
        control, unprotected = self._control(defense, attack)
        random = self._untrained(defense, attack)
        half = self._seed_group(defense, "", checked_attack=attack)
        row_indices = indices(group, self._noise, self._real, self._null(defense, attack), self.headline)
        elsewhere = unprotected if control != defense else SeedGroup()
        cleared = self._no_decoys(defense, control)
        checks = [
            gates.works_unprotected(group, unprotected, control),
            gates.draws_nothing_untrained(random),
            gates.reached_target(group),
            gates.more_is_not_worse(group, half, half.cells[0].attack if half else ""),
            gates.access_helps(access, groups),
            gates.sees_what_the_victim_sees(group, elsewhere, self.headline, cleared),
        ]
        own = self._places.get((defense, attack, ""), [])
        evidence = class_evidence(own, self._nulls, [attack], self.open_set)
        shown = self._beyond_nulls(own, {attack: headline_of(row_indices)}, evidence)
        every = [cell for cell in self._distinct if cell.defense == defense]
        untold = (self._blind() or nothing_known(every, shown.among)) if shown else None
        leaks = shown is not None and untold is None and not gates.failed(checks, "G2")
        validity, reason = _validity(leaks, checks)
        if untold and validity == "valid":
            reason = untold.reason
        return AttackRow(
            leakage=Attack.leakage,
            dataset=group.cells[0].dataset,
            model=group.cells[0].model,
            defense=defense,
            attack=attack,
            control=self.is_control(defense),
            validity=validity,
            reason=reason,
            leaks=leaks,
            p=evidence.leaks.p if evidence else None,
            gates=checks,
            indices=row_indices,
            queries=group.mean("queries") or 0.0,
            gradient_steps=group.mean("gradient_steps") or 0.0,
            seconds=group.mean("seconds") or 0.0,
        )

    def verdict(self, defense: str, all_rows: Sequence[AttackRow]) -> Verdict:
        """All attacks on a defence together (gate G6)."""
        rows = [row for row in all_rows if row.defense == defense]
        # what draws classes out of networks that know none says nothing of this one
        sound = [row for row in rows if not gates.failed(row.gates, "G2")]
        own = [cell for cell in self._distinct if cell.defense == defense]
        attacks = [row.attack for row in sound]
        evidence = class_evidence(own, self._nulls, attacks, self.open_set, self._unprotected(defense))
        ignorant = nothing_known(own, evidence.among) if evidence else None

        def shown_by(names: Sequence[str]) -> ClassEvidence | None:
            """What these attacks show that networks which know nothing don't."""
            every = len(names) == len(sound)
            found = evidence if every else class_evidence(own, self._nulls, names, self.open_set)
            of_these = {row.attack: headline(row) for row in sound if row.attack in names}
            return self._beyond_nulls(own, of_these, found)

        shown = shown_by(attacks)
        outcome, missing = self._judge(defense, rows, evidence, shown is not None, self._blind(), ignorant)
        # an attack that works nowhere says nothing of how much there is to get
        telling = [row for row in sound if row.validity != "invalid"]
        worst = worst_of(telling) if telling else None
        leaks = evidence.leaks if evidence else None
        larger = self._why_larger(defense, rows, worst) if outcome == "leaks" else []
        return Verdict(
            leakage=Attack.leakage,
            dataset=self._cells[0].dataset,
            model=self._cells[0].model,
            defense=defense,
            outcome=outcome,
            attack=worst.attack if worst else "",
            index=self._worst_index(worst, telling) if worst else None,
            reason=reason_of(outcome, missing, evidence, shown, rows, larger),
            p=leaks.p if leaks else None,
            networks=evidence.networks if evidence else 0,
            classes=list(evidence.classes) if evidence else [],
            among=evidence.among if evidence and evidence.not_attacked else None,
            named=shown.named if shown and outcome == "leaks" else [],
            doubtful=shown.doubtful if shown and outcome == "leaks" else [],
            undecided=evidence.open if evidence else [],
            detectable=_detectable(evidence) if evidence else None,
            missing=[one.reason for one in missing],
            settle=settle(missing, evidence),
            comparable=all(one.more for one in missing) and not decoys_of(rows) and not larger,
            notes=list(evidence.leaks.notes) if evidence else [],
            threats=threat_models(
                {row.attack: (self._seed_group(defense, row.attack), self._null(defense, row.attack)) for row in sound},
                [row.attack for row in telling],
                self._needs,
                Anchors(self._noise, self._real, self.headline),
                lambda names: (shown if len(names) == len(sound) else shown_by(names)) if outcome == "leaks" else None,
            ),
        )

    def _beyond_nulls(
        self, own: Sequence[CellRecord], attacks: Mapping[str, Index], evidence: ClassEvidence | None
    ) -> ClassEvidence | None:
        """What of the evidence of a leak is not what attacks show of networks that know nothing as well; None: nothing.

        ``attacks``: the index of each on the cells ``own``; ``evidence``: of all of them. It is all where null networks
        show a named class less often: the mean over all classes may be no higher, where the others' images are made to
        look like something else. Else it is that of the attacks which get more out of the network than out of their
        null, without those that by themselves name nothing but what null networks show as often.
        """
        if evidence is None or not evidence.leaks.leaks:
            return None
        if evidence.own:
            return evidence

        def of(names: Sequence[str]) -> ClassEvidence | None:
            every = len(names) == len(attacks)
            found = evidence if every else class_evidence(own, self._nulls, names, self.open_set)
            return found if found is not None and found.leaks.leaks else None

        above = [attack for attack, index in attacks.items() if index.value is not None and index.value > 1e-9]
        beyond = of(above)
        if beyond is not None and beyond.named and not beyond.own:
            alone = {attack: of([attack]) for attack in above}
            beyond = of([attack for attack, one in alone.items() if one is None or one.own or not one.named])
        return beyond if beyond is not None and (beyond.own or not beyond.named) else None

    def _leaking_copies(self, defense: str, rows: Sequence[AttackRow]) -> list[int]:
        """The seeds whose networks do not count beside another of the same ANN, and leak by themselves: each is tested
        at a level that allows for their number."""
        sound = [row.attack for row in rows if not gates.failed(row.gates, "G2")]
        found = []
        for seed, cells in sorted(self._copies[defense].items()):
            evidence = class_evidence(cells, self._nulls, sound, self.open_set)
            if evidence is None or evidence.leaks.p * len(self._copies[defense]) > SIGNIFICANT:
                continue
            of_seed = {
                attack: seed_group([one for one in cells if one.attack == attack and not one.of], self._declared)
                for attack in sound
            }
            index = {
                attack: index_of(self.headline, group, self._noise, self._real, self._null(defense, attack, group))
                for attack, group in of_seed.items()
                if group
            }
            if self._beyond_nulls(cells, index, evidence):
                found.append(seed)
        return found

    def _why_larger(self, defense: str, rows: Sequence[AttackRow], worst: AttackRow | None) -> list[str]:
        """Why a leak may be larger than what is shown of it, decoys aside: recommended attacks that say nothing.

        One that found no signal says so wherever it was; one that is not valid, or was not judged on all networks that
        any was, where it shows clearly more of the unprotected network than the worst case shows. A worst case of an
        attack that is not valid says so where valid ones show clearly less. Of a worst case below half of the most that
        any of them shows on the unprotected network, it must be known that no decoys hide the rest; without such a
        network, below half of what real images show.
        """
        own = [cell for cell in self._cells if cell.defense == defense and not cell.of]
        quoted = self._quoted(defense)
        silent = {cell.attack for cell in own if cell.status == "no-signal"}
        why = [f"{attack} found no signal" for attack in quoted if attack in silent]
        seen = self._shown(self._seed_group(defense, worst.attack)) if worst else None
        if worst is None or seen is None:
            return why
        valid = [row for row in rows if row.validity == "valid"]
        if rejected := [row.attack for row in valid if is_rejected(row)]:
            why.append(f"images of {', '.join(rejected)} are {REJECTED_TEXT}")
        sound = [row.attack for row in rows if not gates.failed(row.gates, "G2")]
        for seed, cells in sorted(self._copies[defense].items()):
            shown = {
                attack: self._shown(
                    seed_group([one for one in cells if one.attack == attack and not one.of], self._declared)
                )
                for attack in sound
            }
            most = max(shown, key=lambda attack: shown[attack] or 0.0)
            if seen < gates.BLIND * (shown[most] or 0.0):
                why.append(f"{most} shows {shown[most]:.2f} of the network of seed {seed}, of the same ANN")
        controls = {attack: self._control(defense, attack) for attack in dict.fromkeys([*quoted, worst.attack])}
        there = {
            attack: self._shown(group) or 0.0 for attack, (_, group) in controls.items() if gates.tells_classes(group)
        }
        networks = set[int]().union(*(self._judged(defense, row.attack) for row in rows))
        states = {row.attack: str(row.validity) for row in rows}
        for attack in quoted:
            if (judged := self._judged(defense, attack)) < networks:
                states[attack] = (
                    f"judged on {len(judged)} of {len(networks)} networks" if judged else "nothing to judge"
                )
        why += [
            f"{attack}: {states[attack]}"
            for attack in quoted
            if attack not in silent and states[attack] not in ("valid", "decoys suspected")
            if seen < gates.NEARLY * there.get(attack, 0.0)
        ]
        surest = headline(worst_of(valid)).value if valid else None
        if worst.validity != "valid" and (surest or 0.0) < gates.NEARLY * (headline(worst).value or 0.0):
            why.append(f"{worst.attack}, which shows most: {worst.validity}")
        most = max(there, key=lambda attack: there[attack], default="")
        if most and seen < gates.BLIND * there[most] and not self._no_decoys(defense, controls[most][0]):
            why.append(
                f"no student excludes decoys: {worst.attack} shows {seen:.2f}, {most} {there[most]:.2f} on the "
                f"unprotected network{'' if self.open_set else ', above chance'}"
            )
        if not there and seen < gates.BLIND * (self._shown(self._real) or 0.0):
            names = sorted({name for name, _ in controls.values() if name})
            why.append(f"no attack shows anything of the unprotected {' or '.join(names) or 'network'}")
        return why

    def _judged(self, defense: str, attack: str) -> set[int]:
        """The seeds at whose networks the attack's images were judged; of the same networks one."""
        return {cell.seed for cell in self._places.get((defense, attack, ""), ()) if cell.votes is not None}

    def _shown(self, group: SeedGroup) -> float | None:
        """What evaluation models see in images by the headline, above chance, if anything."""
        mean = group.mean(self.headline)
        return None if mean is None else max(0.0, mean - gates.by_chance(self.headline, group))

    def _worst_index(self, worst: AttackRow, rows: Sequence[AttackRow]) -> Index:
        """The highest index of the attacks, its interval corrected for having been picked."""
        groups = {row.attack: self._seed_group(row.defense, row.attack) for row in rows}

        def of(attack: str) -> Callable[[float], Estimate]:
            ends = groups[attack], self._noise, self._real, self._null(worst.defense, attack)
            return lambda confidence: estimate_of(self.headline, *ends, confidence)

        scaled = {row.attack: of(row.attack) for row in rows if headline(row).value is not None}
        if not scaled:
            return headline(worst)
        case = worst_case(scaled).estimate
        return headline(worst).model_copy(update=fields(case) | {"value": headline(worst).value})

    def _blind(self) -> Missing | None:
        """Why nobody knows what the evaluation models' answers are worth, where that is so."""
        if not self._real:
            return Missing("no real images were measured, which say what evaluation models can see")
        weak = gates.weak_models(self._real, gates.classes_among(self._cells))
        return Missing(weak) if weak else None

    def _judge(
        self,
        defense: str,
        rows: Sequence[AttackRow],
        evidence: ClassEvidence | None,
        shown: bool,
        blind: Missing | None,
        ignorant: Missing | None,
    ) -> tuple[VerdictOutcome, list[Missing]]:
        """The outcome, and of one that is inconclusive what is missing for another. ``shown``: whether the attacks show
        classes that networks which know nothing don't."""
        if blind:
            return "inconclusive", [blind]
        if shown and not ignorant:
            return "leaks", []
        leaks = evidence is not None and evidence.leaks.leaks
        own = [cell for cell in self._cells if cell.defense == defense]
        telling = self._telling(defense, rows)
        missing = missing_for_resistance(own, rows, evidence, telling)
        if copies := self._leaking_copies(defense, rows):
            seeds = ", ".join(map(str, copies))
            missing.append(Missing(f"its networks of other seeds and the same ANN leak by themselves: seed {seeds}"))
        if alone := [row.attack for row in rows if row.leaks]:
            missing.append(Missing(f"{', '.join(alone)}: a leak by it alone, none by all attacks together", more=True))
        if leaks:
            known = [headline(row) for row in rows if not gates.failed(row.gates, "G2")]
            no_better = "no better than an untrained network's"
            if all(index.value is None for index in known):
                no_better = f"whether better than an untrained network's is not known: {known[0].reason}"
            missing.insert(0, ignorant or Missing(f"its classes are recognised, but {no_better}"))
        return ("inconclusive" if missing else "resists"), missing

    def _quoted(self, defense: str) -> list[str]:
        """Labels of the recommended attacks that were run on it."""
        names = quoted_attacks()
        own = (cell for cell in self._cells if cell.defense == defense and not cell.of)
        return list(dict.fromkeys(cell.attack for cell in own if cell.attack_name in names))

    def _telling(self, defense: str, rows: Sequence[AttackRow]) -> list[str]:
        """The attacks whose images are recognised, corrected for how many were tried; the recommended for their own
        number, so that nobody hides what they found behind others."""
        quoted = [row.attack for row in rows if row.attack in self._quoted(defense)]
        tried = {row.attack: len(quoted) if row.attack in quoted else len(rows) for row in rows}
        groups = {attack: self._seed_group(defense, attack) for attack in tried}
        return [attack for attack, group in groups.items() if gates.tells_classes(group, tried[attack])]


def _validity(leaks: bool, checks: Sequence[Gate]) -> tuple[Validity, str]:
    """A row that leaks is evidence whatever its optimiser thinks of itself; one that does not needs every gate."""
    order: tuple[tuple[tuple[str, ...], Validity], ...] = (
        (("G2",), "invalid"),
        (("G1",), "invalid"),
        (("G3",), "optimisation failure"),
        (("G4", "G5"), "gradient masking suspected"),
        (("G7",), "decoys suspected"),
    )
    for names, validity in order:
        bad = gates.failed(checks, *names)
        if bad and (names == ("G2",) or not leaks):
            return validity, "; ".join(f"{gate.name}: {gate.reason}" for gate in bad)
    return "valid", "its classes are recognised" if leaks else "fails no gate; not significant"


def _detectable(evidence: ClassEvidence) -> int | None:
    """The fewest classes, each drawn from 80 % of networks, that so many networks would show."""
    return smallest_detectable_leak(evidence.networks, len(evidence.classes), DRAWN)
