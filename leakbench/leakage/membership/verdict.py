"""What a grid says of membership: an attack's row is valid or not, and a defence leaks or nothing is concluded.

An attack must find nothing on a network that was never trained (M2), nor on one that was trained on other images (M5),
and its scores must not distinguish members from members (M3). Where it finds nothing, that says something only if it
succeeds on a network that memorises its training images (M1). An attack leaks members where its scores of them are
higher on average, or lower, as of a network that was trained to be less sure of them: whoever knows it turns the sign.
And it does where it finds some images above all or nearly all others: a network may give away a few for certain at an
AUC of .5. Each of these tests of each attack counts as one that was tried. The network must have been trained on the
images that it is asked about (M4). That an average over all images is at chance is no evidence of privacy, so no
verdict here says "resists".
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import NormalDist

from leakbench import registry
from leakbench.contracts import MembershipAttack
from leakbench.leakage.controls import OVERFITTED, ROLES, UNSEEN, UNTRAINED
from leakbench.leakage.kind import Evidence, GateRule, index_line, p_text
from leakbench.leakage.seed_group import Declarations, SeedGroup, distinct, of_shared_images, seed_group
from leakbench.metrics.estimate import CONFIDENCE, Estimate
from leakbench.metrics.worst_case import worst_case
from leakbench.records import AttackRow, CellRecord, Gate, Index, Validity, Verdict

HEADLINE = "membership_auc"
P, LOWER_P = "membership_p", "membership_lower_p"
TAIL, TAIL_P = "membership_tpr_at_1pct_fpr", "membership_tail_p"
"""of single images: the share that is found at a low false positive rate, and its p"""
PLACEBO = "members_against_members_auc"
TAIL_RATE = 0.01
TESTS = 3
"""of an attack: higher or lower on average, and of single images"""
ENSEMBLE = "auto_mia"
"""the recommended attack: all that is tried beside it costs it a factor of two in p"""
PLACEBO_ALPHA = 0.01
"""level of the tests of members against members, over all rows"""
ALPHA = 0.01
"""level of a test, over all attacks that were tried; half of it is the recommended attack's, where others were, too"""
CHANCE = 0.5
_PART = Gate(
    name="M4",
    passed=False,
    reason="it read a part of the training images alone, and its weights are not those of its ANN: it may never have "
    "seen many of the images that were asked about",
)
_FINDINGS = (
    "distinguishes members from non-members",
    "distinguishes members from non-members by lower scores",
    "finds single members",
)
_DECLINED = "can't be attacked by it"
_MOST_NAMES = 3
"""more attacks than this are counted and not named"""
_MOST_SEEDS = 5
"""more seeds than this are counted and not named"""
_STATES = {"failed": "failed", "not-applicable": "not applicable", "no-signal": "no signal"}
INDEX = (
    "twice the AUC less one, cut to 0 to 1; of 1 - AUC where members score significantly lower, of each network by "
    "itself where they score higher on others; the upper limit is that of either sign"
)
GATES = (
    GateRule(
        "M1",
        "The attack must succeed on the overfitted network, a conversion of one that memorises its training images: "
        "the reference for what this attack can find; else it is invalid, unless it finds members.",
        control=OVERFITTED,
    ),
    GateRule(
        "M2",
        "It must find nothing on the untrained network, which has no members; else it is invalid.",
        voids_leaks=True,
        control=UNTRAINED,
    ),
    GateRule(
        "M3",
        "Its scores must not distinguish one random half of the members from the other; else the test is at fault and "
        "it is invalid.",
        voids_leaks=True,
    ),
    GateRule(
        "M4",
        "It must ask about images that the network was trained on. One that read a part of the training images alone, "
        "and whose weights are not those of its ANN, may never have seen many of the images that count as members: "
        "where the attack finds none, it is invalid. Not asked of one that compares with training "
        "images that were not read.",
    ),
    GateRule(
        "M5",
        "It must find nothing on a network that was trained by the same recipe on none of the images that are asked "
        "about: what distinguishes training from test images there is no membership; else it is invalid. Not asked of "
        "one that compares with training images that were not read.",
        voids_leaks=True,
        control=UNSEEN,
    ),
)
_VOIDING = {rule.name for rule in GATES if rule.voids_leaks}


def conclude(cells: Sequence[CellRecord], declared: Declarations) -> Evidence:
    """Rows and verdicts of every data set and model."""
    rows: list[AttackRow] = []
    verdicts: list[Verdict] = []
    for dataset, model in dict.fromkeys((cell.dataset, cell.model) for cell in cells):
        here = [cell for cell in cells if (cell.dataset, cell.model) == (dataset, model)]
        group = _Group(here, declared)
        group_rows = group.rows()
        rows += group_rows
        verdicts += [_verdict(dataset, model, label, group, group_rows) for label in group.in_question]
    return Evidence(rows=rows, verdicts=verdicts)


class _Group:
    """The cells of one data set and model, grouped over seeds."""

    def __init__(self, cells: Sequence[CellRecord], declared: Declarations) -> None:
        self._attacked = [cell for cell in cells if cell.attack and not cell.of]
        self._alone = [cell for cell in cells if not cell.attack and not cell.of and cell.status == "ok"]
        self._parts = {cell.defense for cell in cells if cell.trained_on_part and cell.defense_name != OVERFITTED}
        by_place: dict[tuple[str, str], list[CellRecord]] = defaultdict(list)
        one_each = distinct(cells)
        for cell in one_each:
            if cell.attack and not cell.of:
                by_place[cell.defense, cell.attack].append(cell)
        self._groups = {place: seed_group(each, declared) for place, each in by_place.items()}
        kept = {(cell.defense, cell.seed) for cell in one_each}
        self._copies = [cell for cell in self._attacked if (cell.defense, cell.seed) not in kept]
        """attacks on networks that do not count, as another of the same defence has the same weights or ANN"""
        self._declared = declared
        # by plugin and T
        self._labels: dict[str, dict[int | None, dict[str, None]]] = defaultdict(lambda: defaultdict(dict))
        for cell in self._attacked:
            self._labels[cell.defense_name][cell.timesteps][cell.defense] = None

    @property
    def in_question(self) -> list[str]:
        return list(dict.fromkeys(cell.defense for cell in self._attacked if not cell.control))

    def controls(self, plugin: str, attack: str, timesteps: int | None) -> list[SeedGroup]:
        """The attack on the controls that this plugin makes, one for each setting, at this T, else at the next one,
        else (and for a network without T) at the longest; without those where it has no scores."""
        made = self._labels.get(plugin, {})
        lasting = sorted(made, key=lambda steps: steps or 0)
        at = next((steps for steps in lasting if timesteps and (steps or 0) >= timesteps), (lasting or [None])[-1])
        groups = [self.seed_group(label, attack) for label in made.get(at, ())]
        return [group for group in groups if _text(group) is not None]

    def seed_group(self, defense: str, attack: str) -> SeedGroup:
        """The attack on the defence; empty where it was not run."""
        return self._groups.get((defense, attack), SeedGroup())

    def without_scores(self, defense: str) -> str:
        """Why attacks on a defence none of which gave scores did not."""
        why = dict.fromkeys((cell.status, cell.reason) for cell in self._attacked if cell.defense == defense)
        said = (f"{_STATES.get(status, status)}{f' ({reason})' if reason else ''}" for status, reason in why)
        return "; ".join(said)

    def failures(self, defense: str) -> str:
        """The attacks on a defence that failed or had no signal, or that were not applicable to some of its networks,
        each with the number of networks."""
        here = [cell for cell in self._attacked if cell.defense == defense and cell.status != "ok"]
        why = Counter(
            (cell.attack, cell.status)
            for cell in here
            if cell.status != "not-applicable" or self.seed_group(defense, cell.attack)
        )
        return ", ".join(f"{attack} ({_STATES[status]}, {count})" for (attack, status), count in why.items())

    def hidden(self, defense: str, attacks: Sequence[str]) -> list[str]:
        """The attack that would have found members if none but it had been tried, in words; empty where none would."""
        least = {}
        for attack in attacks:
            seeds = self.seed_group(defense, attack)
            steps = seeds.cells[0].timesteps
            silent = [one for plugin in (UNTRAINED, UNSEEN) for one in self.controls(plugin, attack, steps)]
            # else M2 or M5 would have failed
            if _found(seeds, TESTS) and not any(_found(control, TESTS) for control in silent):
                least[attack] = min(p for by_seed in _p_values(seeds) if (p := _together(by_seed)) is not None)
        if not least:
            return []
        attack = min(least, key=lambda one: least[one])
        return [f"Alone {attack} would have found some ({p_text(least[attack])}), not among so many tests"]

    def copies_found(self, defense: str) -> tuple[str, float]:
        """In words, on which networks that do not count attacks find members, empty where on none; and the highest
        index of these. Each is tested at a level that allows for their number."""
        copies = [cell for cell in self._copies if cell.defense == defense]
        networks = len({cell.seed for cell in copies})
        found: dict[int, list[str]] = defaultdict(list)
        most = 0.0
        for cell in copies:
            alone = seed_group([cell], self._declared)
            area, tail = alone.estimate(HEADLINE), alone.estimate(TAIL)
            what = _found(alone, networks * self.tests(defense, cell.attack))
            if not what or area is None or any(gate.passed is False for gate in self._voiding_gates(alone)):
                continue
            found[cell.seed].append(f"{cell.attack} {' and '.join(what)}, AUC {area.value:.3f}")
            shown = tail_index_of(tail).value if tail else None
            most = max(most, abs(2 * area.value - 1), shown or 0.0)
        seeds = (f"seed {seed} ({'; '.join(texts)})" for seed, texts in sorted(found.items()))
        which = "Networks of other seeds, with the same ANN or weights, leak by themselves"
        return f"{which}: {', '.join(seeds)}" if found else "", most

    def rows(self) -> list[AttackRow]:
        rows = (self._row(*place) for place in self._groups)
        return [row for row in rows if row is not None]

    def tests(self, defense: str, attack: str) -> int:
        """By how many tests the level of one of this attack on the defence is divided, see :func:`tests_of`."""
        scored = [*self._copies, *(cell for group in self._groups.values() for cell in group.cells)]
        names = {
            cell.attack: cell.attack_name
            for cell in scored
            if cell.defense == defense and any(value.metric == HEADLINE for value in cell.values)
        }
        return tests_of(list(names.values()), names[attack]) if attack in names else TESTS

    def _silent(self, gate: str, plugin: str, seeds: SeedGroup) -> Gate:
        """What the attack finds on a control without members is a flaw of it.

        Found is what would be on the defence as well, on which there may be fewer tests.
        """
        (defense, attack), where = (seeds.cells[0].defense, seeds.cells[0].attack), ROLES[plugin]
        controls = self.controls(plugin, attack, seeds.cells[0].timesteps)
        article = "an" if where[0] in "aeiou" else "a"
        if not controls:
            why = f"{article} {where} {_DECLINED}" if self._declined(plugin, attack) else f"no {where} was attacked"
            return Gate(name=gate, passed=None, reason=why)
        least = self.tests(defense, attack)
        flawed = [one for one in controls if _found(one, min(least, self.tests(one.cells[0].defense, attack)))]
        useful = [one for one in controls if plugin != UNSEEN or not self._useless(one)]
        control = next(iter(flawed or useful or controls))
        if not flawed and not useful:
            return Gate(name=gate, passed=None, reason=f"the {where} {self._useless(control)}")
        reason = f"{_text(control)} on {article} {where}{_named(control)}"
        return Gate(name=gate, passed=not flawed, reason=reason)

    def _voiding_gates(self, seeds: SeedGroup) -> list[Gate]:
        """M2, M3, and M5 where it is asked."""
        rows = sum(group.estimate(HEADLINE) is not None for group in self._groups.values())
        unseen = [] if _asked_of_conversion(seeds) else [self._silent("M5", UNSEEN, seeds)]
        return [self._silent("M2", UNTRAINED, seeds), _placebo(seeds, rows), *unseen]

    def _declined(self, plugin: str, attack: str) -> bool:
        """Whether the attack is not applicable to the control."""
        states = {one.status for one in self._attacked if (one.defense_name, one.attack) == (plugin, attack)}
        return states == {"not-applicable"}

    def _useless(self, control: SeedGroup) -> str:
        """What keeps a trained control from showing anything, in words; empty where it works.

        It is right less than half as often as its ANN, for certain, or that less than half as often as the others.
        """
        label = control.cells[0].defense
        own, others = ([one for one in self._alone if (one.defense == label) == mine] for mine in (True, False))
        network, ann, usual = _highest("accuracy", own), _highest("ann_accuracy", own), _highest("ann_accuracy", others)
        if ann is not None and usual is not None and ann.high < usual.low / 2:
            return f"learnt too little: its ANN is right on {ann.value:.2f} of test images, others on {usual.value:.2f}"
        if network is not None and ann is not None and network.high < ann.low / 2:
            return f"does not work: it is right on {network.value:.2f} of test images, its ANN on {ann.value:.2f}"
        return ""

    def _row(self, defense: str, attack: str) -> AttackRow | None:
        seeds = self._groups[defense, attack]
        area = seeds.estimate(HEADLINE)
        if area is None:
            return None
        timesteps = seeds.cells[0].timesteps
        part = [_PART] if defense in self._parts and not _asked_of_conversion(seeds) else []
        works = _works(self.controls(OVERFITTED, attack, timesteps), timesteps)
        gates = sorted([works, *self._voiding_gates(seeds), *part], key=lambda gate: gate.name)
        tests = self.tests(defense, attack)
        found = _found(seeds, tests)
        needed = _VOIDING if found else {rule.name for rule in GATES}
        failed = [gate for gate in gates if gate.passed is False and gate.name in needed]
        leaks = bool(found) and not failed
        validity: Validity = "invalid" if failed else "valid"
        reason = "; ".join(f"{gate.name}: {gate.reason}" for gate in failed)
        tail = seeds.estimate(TAIL)
        p, turned = _together(_p_by_seed(seeds, P)), False
        if leaks and _lower(seeds, tests):
            mixed, lower_p = _mixed(seeds, tests), _together(_lower_p_by_seed(seeds))
            turned, area = not mixed, of_shared_images(list(_as_told(seeds, tests).values()))
            p = min(one for one in (p, lower_p) if one is not None) if mixed else lower_p
        return AttackRow(
            leakage=MembershipAttack.leakage,
            dataset=seeds.cells[0].dataset,
            model=seeds.cells[0].model,
            defense=defense,
            attack=attack,
            control=seeds.cells[0].control,
            validity=validity,
            reason=reason or " and ".join(found) or "fails no gate; not significant",
            leaks=leaks,
            lower_scores=turned,
            p=p,
            gates=gates,
            indices=[index_of(area), *([tail_index_of(tail)] if tail else _no_tail_index(seeds, tests))],
            queries=seeds.mean("queries") or 0.0,
            gradient_steps=seeds.mean("gradient_steps") or 0.0,
            seconds=seeds.mean("seconds") or 0.0,
        )


def _highest(metric: str, cells: Sequence[CellRecord]) -> Estimate | None:
    """The highest value of a metric over networks; None where it was not measured with an interval."""
    values = [
        value.estimate for cell in cells for value in cell.values if value.metric == metric and value.low is not None
    ]
    return max(values, key=lambda one: one.value, default=None)


def _asked_of_conversion(seeds: SeedGroup) -> bool:
    """Whether on every network who was read is asked; of an older record the attack's name says it."""
    asked = (cell.question == "conversion" if cell.question else None for cell in seeds.cells)
    return all(asks_of_conversion(seeds.cells[0].attack_name) if one is None else one for one in asked)


def asks_of_conversion(attack: str) -> bool:
    """Whether a built-in attack of that name asks who was read by the conversion; False of a third party's."""
    if not registry.is_built_in("attack", attack):
        return False
    asks: bool = getattr(registry.load("attack", attack), "asks_of", "") == "conversion"
    return asks


def tests_of(tried: Sequence[str], attack: str) -> int:
    """By how many tests the level is divided for an attack of this name, ``tried`` being those on the same network.

    One half of the level is the recommended attack's and one half that of all others: however many they are, they cost
    it a factor of two.
    """
    recommended = recommended_of(tried)
    same = sum((name == recommended) == (attack == recommended) for name in tried)
    return TESTS * same * (2 if same < len(tried) else 1)


def recommended_of(tried: Sequence[str]) -> str:
    """Of the attacks that were tried the newest version of the recommended one; "" where none of them was.

    So the level of a kept record stays what it was when there is a newer version.
    """
    versions = [name for name in tried if name.startswith(f"{ENSEMBLE}-v") and registry.is_built_in("attack", name)]
    return max(versions, key=lambda name: int(name.rpartition("v")[2]), default="")


def index_of(area: Estimate) -> Index:
    """From an area under the ROC curve to an index: 0 at chance, 1 where every member scores above every other.

    Its upper limit is that of either sign, as an attacker may turn it, whatever is significant.
    """
    value, low, high = (_clipped(2 * x - 1) for x in (area.value, area.low, max(area.high, 1 - area.low)))
    return Index(metric=HEADLINE, value=value, low=low, high=high, n=area.n, null="chance")


def tail_index_of(found: Estimate) -> Index:
    """From the share of members that is found at a false positive rate of 1 % to an index: 0 at that rate, 1 at all."""
    value, low, high = (_clipped((x - TAIL_RATE) / (1 - TAIL_RATE)) for x in (found.value, found.low, found.high))
    return Index(metric=TAIL, value=value, low=low, high=high, n=found.n, null="chance")


def _no_tail_index(seeds: SeedGroup, tried: int) -> list[Index]:
    """Of single members that are found among too few others for a share at 1 %: how many is not known."""
    if not _significant(_p_by_seed(seeds, TAIL_P), tried):
        return []
    return [Index(metric=TAIL, n=0, null="chance", reason="there are fewer than 100 others")]


def _p_by_seed(seeds: SeedGroup, metric: str) -> dict[int, float]:
    return {cell.seed: value.value for cell in seeds.cells for value in cell.values if value.metric == metric}


def _lower_p_by_seed(seeds: SeedGroup) -> dict[int, float]:
    """Of each network the p of members scoring lower, 1 where they do not.

    Records from before it was measured have what the test that they score higher leaves of 1: less, by the chance of
    these very ranks, which matters of few images alone.
    """
    measured = {cell.seed: {value.metric: value.value for value in cell.values} for cell in seeds.cells}
    return {
        seed: one.get(LOWER_P, 1 - one[P]) if one.get(HEADLINE, CHANCE) < CHANCE else 1.0
        for seed, one in measured.items()
        if P in one
    }


def _together(by_seed: Mapping[int, float]) -> float | None:
    """The p-values of several networks together, by Bonferroni; None where no network has one.

    The networks are asked about partly the same images, on a small test set about the same others, so that their tests
    depend on each other: Fisher's method, which takes them as independent, finds members in 3 of 100 grids at a level
    of 1 % where there are none and an image's score is a matter of the image alone.
    """
    return min(1.0, len(by_seed) * min(by_seed.values())) if by_seed else None


def _p_values(seeds: SeedGroup) -> list[dict[int, float]]:
    """Of each network the p of the three tests, in the order of _FINDINGS."""
    return [_p_by_seed(seeds, P), _lower_p_by_seed(seeds), _p_by_seed(seeds, TAIL_P)]


def _found(seeds: SeedGroup, tried: int) -> list[str]:
    """What is significant at ALPHA among so many tests, in words; nothing where nothing is.

    Bonferroni and not a joint permutation, which would need the scores of all attacks.
    """
    tests = zip(_FINDINGS, _p_values(seeds), strict=True)
    return [f"{what}{_on(by_seed, tried)}" for what, by_seed in tests if _significant(by_seed, tried)]


def _networks_found(seeds: SeedGroup, tried: int) -> list[CellRecord]:
    """The networks on which the attack finds members by itself, on average or single ones."""
    found = {seed for by_seed in _p_values(seeds) for seed in _seeds_found(by_seed, tried)}
    return [cell for cell in seeds.cells if cell.seed in found]


def _lower(seeds: SeedGroup, tried: int) -> bool:
    """Whether members score significantly lower than others on average, among so many tests."""
    return _significant(_lower_p_by_seed(seeds), tried)


def _significant(by_seed: Mapping[int, float], tried: int) -> bool:
    p = _together(by_seed)
    return p is not None and p * tried < ALPHA


def _on(by_seed: Mapping[int, float], tried: int) -> str:
    """On which networks a p-value is significant by itself, where not on all of them: the same seed's networks of
    several defences may be conversions of one ANN, and no findings of their own."""
    found = _seeds_found(by_seed, tried)
    if len(found) == len(by_seed):
        return ""
    named = f" (seed{'s' if len(found) > 1 else ''} {', '.join(map(str, found))})" if len(found) <= _MOST_SEEDS else ""
    return f" on {len(found)} of {len(by_seed)} networks{named}"


def _seeds_found(by_seed: Mapping[int, float], tried: int) -> list[int]:
    return [seed for seed, p in by_seed.items() if len(by_seed) * p * tried < ALPHA]


def _mixed(seeds: SeedGroup, tried: int) -> bool:
    """Whether members score significantly lower on some networks and higher on others, significantly or on average."""
    higher = _significant(_p_by_seed(seeds, P), tried) or (seeds.mean(HEADLINE) or 0.0) >= CHANCE
    return _lower(seeds, tried) and higher


def _areas(seeds: SeedGroup) -> dict[int, Estimate]:
    """Of each network that has one, by its seed."""
    return {cell.seed: one.estimate for cell in seeds.cells for one in cell.values if one.metric == HEADLINE}


def _as_told(seeds: SeedGroup, tried: int) -> dict[int, Estimate]:
    """The areas of an attack that finds members: with the sign turned where they score lower, of all networks or, where
    they score higher on others, of those where they do."""
    areas = _areas(seeds)
    if not _lower(seeds, tried):
        return areas
    turned = _seeds_found(_lower_p_by_seed(seeds), tried) if _mixed(seeds, tried) else list(areas)
    return {seed: _turned(one) if seed in turned else one for seed, one in areas.items()}


def _turned(area: Estimate) -> Estimate:
    """Of scores whose sign is turned."""
    return Estimate(1 - area.value, 1 - area.high, 1 - area.low, area.n)


def _clipped(x: float) -> float | None:
    return None if math.isnan(x) else min(1.0, max(0.0, x))


def _works(controls: Sequence[SeedGroup], timesteps: int | None) -> Gate:
    """M1: members of a network that memorises them are found, or the attack's failures mean nothing.

    ``timesteps`` is T of the network in question, which the controls' may exceed; of several settings one is enough.
    """
    if not controls:
        return Gate(name="M1", passed=None, reason="the overfitted network was not attacked")
    control = next((one for one in controls if _found(one, TESTS)), controls[0])
    own = control.cells[0].timesteps
    longer = f" at T = {own}" if timesteps is not None and own != timesteps else ""
    where = f"an overfitted network{longer}{_named(control)}"
    return Gate(name="M1", passed=bool(_found(control, TESTS)), reason=f"{_text(control)} on {where}")


def _named(control: SeedGroup) -> str:
    """A control's label where it is another than usual."""
    label, plugin = control.cells[0].defense, control.cells[0].defense_name
    return f" ({label})" if label != plugin else ""


def _placebo(seeds: SeedGroup, all_rows: int) -> Gate:
    """M3: members are like members. The halves are random, so that of ``all_rows`` rows some differ by chance."""
    halves = [value for value in seeds.values(PLACEBO) if value.n > 1]
    if not halves:
        return Gate(name="M3", passed=None, reason="members were not compared with members")
    mean = sum(value.value for value in halves) / len(halves)
    # that of an area of .5: one at the area found is too small where members are few
    error = math.sqrt(sum(_variance_by_chance(value.n) for value in halves)) / len(halves)
    errors = NormalDist().inv_cdf(1 - PLACEBO_ALPHA / (2 * all_rows))
    return Gate(
        name="M3",
        passed=abs(mean - CHANCE) <= errors * error,
        reason=f"AUC {mean:.3f} of members against members",
    )


def _variance_by_chance(members: int) -> float:
    """Of the area of one half of so many images against the other, whatever their scores are; of ties it is less."""
    one = members // 2
    return (members + 1) / (12 * one * (members - one))


def _text(seeds: SeedGroup) -> str | None:
    """An attack's AUC and p, and the members that it finds at 1 % FPR where that was measured; None without an AUC."""
    area, p = seeds.estimate(HEADLINE), _together(_p_by_seed(seeds, P))
    if area is None or p is None:
        return None
    tail = seeds.estimate(TAIL)
    more = f", {100 * tail.value:.1f} % found at 1 % FPR" if tail is not None else ""
    return f"AUC {area.value:.3f}, {p_text(p)}{more}"


def _extent(row: AttackRow) -> tuple[float, float]:
    """By which the worst case is chosen: the index of the average, and among equals that of single images."""
    values = [index.value or 0.0 for index in row.indices]
    return values[0], values[-1]


def _unchecked(rows: Sequence[AttackRow]) -> list[str]:
    """The gates that could not be checked on one of the rows, but for controls to which an attack is not applicable."""
    gates = (gate for row in rows for gate in row.gates if gate.passed is None and not gate.reason.endswith(_DECLINED))
    return sorted({gate.name for gate in gates})


def _most_single(worst: AttackRow, leaking: Sequence[AttackRow]) -> str:
    """Which attack finds more single members than the worst case on average does, in words; empty where none."""

    def share(row: AttackRow) -> float:
        index = next((one.value for one in row.indices if one.metric == TAIL), None) or 0.0
        return TAIL_RATE + index * (1 - TAIL_RATE)

    most = max(leaking, key=share)
    if share(most) <= share(worst):
        return ""
    return f", {most.attack} {100 * share(most):.1f} % of them at 1 % FPR"


def _worst_index(worst: AttackRow, valid: Sequence[AttackRow], group: _Group) -> Index:
    """The index of the worst case, with an interval that allows for its choice among the valid attacks."""

    def area_of(row: AttackRow) -> Callable[[float], Estimate]:
        seeds = group.seed_group(row.defense, row.attack)
        areas = _as_told(seeds, group.tests(row.defense, row.attack)) if row.leaks else _areas(seeds)
        return partial(of_shared_images, list(areas.values()))

    areas = {row.attack: area_of(row) for row in valid}
    case, area = worst_case(areas).estimate, areas[worst.attack](CONFIDENCE)
    # of either sign, see index_of
    highest = max(case.high, *(1 - one(CONFIDENCE).low for one in areas.values()))
    # an attack may be higher on average that finds no members
    return index_of(Estimate(area.value, min(case.low, area.value), max(highest, area.value), area.n))


def _verdict(dataset: str, model: str, defense: str, group: _Group, rows: Sequence[AttackRow]) -> Verdict:
    """The worst case over the valid attacks on a defence."""
    tried = [row for row in rows if row.defense == defense]
    valid = [row for row in tried if row.validity == "valid"]
    leaking = [row for row in valid if row.leaks]
    worst = max(leaking or valid, key=_extent, default=None)
    index = _worst_index(worst, valid, group) if worst is not None else None
    if worst is not None and index is not None and leaking:
        seeds = group.seed_group(defense, worst.attack)
        # what it found on some networks is not told by a mean over all of them
        tests = group.tests(defense, worst.attack)
        there = seed_group(_networks_found(seeds, tests) or seeds.cells, seeds.declared)
        mixed, told = _mixed(seeds, tests), _as_told(seeds, tests)
        turned = [told[seed] for seed in _areas(there)]
        area = of_shared_images(turned) if mixed and turned else there.estimate(HEADLINE)
        tail, mean = there.estimate(TAIL), seeds.estimate(HEADLINE)
        reason = f"{worst.attack} {worst.reason}"
        if area and mean:
            every = len(seeds.cells)
            rest = f"; {mean.value:.3f} on average over all {every}" if len(there.cells) < every else ""
            sign = ", the sign turned where members score lower" if mixed else ""
            reason += f": AUC {area.value:.3f} ({CHANCE:g} is chance{sign}{rest})"
        if tail and not worst.lower_scores:
            reason += f", {100 * tail.value:.1f} % of members at 1 % FPR"
        reason += f", index {index_line(index)}; {len(leaking)} of {len(tried)} attacks find members"
        reason += _most_single(worst, leaking) + "."
    elif worst is not None:
        few = len(valid) <= _MOST_NAMES
        several = f"the {len(valid)} valid of {len(tried)}" if len(valid) < len(tried) else f"all {len(tried)}"
        which = ", ".join(row.attack for row in valid) if few else f"{several} attacks"
        reason = (
            f"{which}: no membership leak found, on average or of single images. That is no evidence of privacy: "
            "better attacks may find some"
        )
        reason += "".join(f". {one}" for one in group.hidden(defense, [row.attack for row in valid]))
        if invalid := [row for row in tried if row.validity == "invalid"]:
            named = "; ".join(f"{row.attack} ({row.reason})" for row in invalid[:_MOST_NAMES])
            more = f" and {len(invalid) - _MOST_NAMES} more" if len(invalid) > _MOST_NAMES else ""
            reason += f". Invalid: {named}{more}"
        if failures := group.failures(defense):
            reason += f". Without scores: {failures}"
    else:
        reason = "no valid attack: " + "; ".join(f"{row.attack}: {row.validity} ({row.reason})" for row in tried)
        reason = reason if tried else f"no attack on it gave scores: {group.without_scores(defense)}"
    if unchecked := _unchecked(leaking or valid):
        reason = f"{reason.removesuffix('.')}. Not checked: {', '.join(unchecked)}"
    copies, most = group.copies_found(defense)
    if copies:
        reason = f"{reason.removesuffix('.')}. {copies}"
    return Verdict(
        leakage=MembershipAttack.leakage,
        dataset=dataset,
        model=model,
        defense=defense,
        outcome="leaks" if leaking else "inconclusive",
        attack=worst.attack if worst else "",
        index=index,
        reason=reason,
        comparable=not copies or (index is not None and most <= (index.value or 0.0)),
    )
