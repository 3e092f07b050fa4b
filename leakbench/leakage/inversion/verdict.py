"""What a grid says: an attack's row is valid or not, and a defence leaks, resists these attacks, or is inconclusive.

Evidence for a leak needs a null that nothing can beat by luck; evidence against one needs an attack that is known to
work. So an attack that fails a gate can never show protection, and no valid attack is "inconclusive", never "robust".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from leakbench.contracts import Access, Attack
from leakbench.leakage.controls import ANN, UNPROTECTED, UNTRAINED
from leakbench.leakage.inversion import gates
from leakbench.leakage.inversion.index import (
    HEADLINE,
    has_index,
    index_of,
    indices,
)
from leakbench.leakage.kind import Evidence, index_line
from leakbench.leakage.scaled_scores import ScaledScores
from leakbench.leakage.seed_group import Declarations, SeedGroup, seed_group
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
        self._declared = declared
        self._needs = needs
        self.defenses = list(dict.fromkeys(cell.defense for cell in cells if cell.defense))
        self._noise, self._real = self._seed_group("", "noise"), self._seed_group("", "real")

    def _seed_group(self, defense: str, attack: str, checked_attack: str = "") -> SeedGroup:
        """A cell of the grid, or the check of ``checked_attack``."""
        cells = (c for c in self._cells if c.defense == defense and c.of == checked_attack)
        return seed_group((c for c in cells if checked_attack or c.attack == attack), self._declared)

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

    def _untrained(self, defense: str, attack: str) -> SeedGroup:
        """The same attack on the untrained network; empty where it was not run."""
        untrained = self._named(UNTRAINED, defense)
        return self._seed_group(untrained, attack) if untrained else SeedGroup()

    def _null(self, defense: str, attack: str) -> SeedGroup:
        """The same as what the index is measured from: nothing is its own null."""
        return SeedGroup() if defense == self._named(UNTRAINED, defense) else self._untrained(defense, attack)

    def scores(self, defense: str, attack: str) -> ScaledScores:
        """What an attack got out of a defence, by seed and class, on the scale of the index."""
        groups = self._seed_group(defense, attack), self._noise, self._real, self._null(defense, attack)
        return ScaledScores(*groups, HEADLINE)

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
        judged = sum(group.p is not None for _, group in groups.values())
        for name, (access, group) in groups.items():
            if group:
                yield self._row(defense, name, group, access, groups, judged)

    def _row(
        self,
        defense: str,
        attack: str,
        group: SeedGroup,
        access: Access,
        groups: Mapping[str, tuple[Access, SeedGroup]],
        judged: int,
    ) -> AttackRow:
        control, unprotected = self._control(defense, attack)
        random = self._untrained(defense, attack)
        half = self._seed_group(defense, "", checked_attack=attack)
        row_indices = indices(group, self._noise, self._real, self._null(defense, attack))
        checks = [
            gates.works_unprotected(group, unprotected, control),
            gates.draws_nothing_untrained(random),
            gates.reached_target(group),
            gates.more_is_not_worse(group, half, half.cells[0].attack if half else ""),
            gates.access_helps(access, groups),
        ]
        first = next((index for index in row_indices if index.metric == HEADLINE), None)
        # the more attacks are tried, the more often one looks good by luck: each must be that much surer
        sure = gates.tells_classes(group, judged)
        # the interval of the index says how much, over classes as a sample; the exact test says whether
        above = first is None or first.value is None or first.value > 0
        leaks = sure and above and not gates.failed(checks, "G2")
        validity, reason = _validity(leaks, checks)
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
            p=group.p,
            gates=checks,
            indices=row_indices,
            queries=group.mean("queries") or 0.0,
            gradient_steps=group.mean("gradient_steps") or 0.0,
            seconds=group.mean("seconds") or 0.0,
        )

    def verdict(self, defense: str, all_rows: Sequence[AttackRow]) -> Verdict:
        """The worst case over the valid attacks on a defence (gate G6)."""
        rows = [row for row in all_rows if row.defense == defense]
        outcome, worst, reason = self._judge(rows, all_rows, self._silence(defense))
        return Verdict(
            leakage=Attack.leakage,
            dataset=self._cells[0].dataset,
            model=self._cells[0].model,
            defense=defense,
            outcome=outcome,
            attack=worst.attack if worst else "",
            index=headline(worst) if worst else None,
            reason=reason,
        )

    def _silence(self, defense: str) -> str:
        """To which attacks the defence gives no signal, and why; empty where there is none."""
        attacks: dict[str, list[str]] = {}
        for cell in self._cells:
            if cell.defense == defense and cell.attack and not cell.of and cell.status == "no-signal":
                attacks.setdefault(cell.reason, []).append(cell.attack)
        reasons = ((", ".join(dict.fromkeys(names)), reason) for reason, names in attacks.items())
        return "; ".join(f"gives {names} no signal: {reason}" for names, reason in reasons)

    def _judge(
        self, rows: Sequence[AttackRow], all_rows: Sequence[AttackRow], silence: str
    ) -> tuple[VerdictOutcome, AttackRow | None, str]:
        leaking = [row for row in rows if row.leaks]
        if weak := gates.weak_models(self._real) if self._real else "":
            return "inconclusive", _worst(leaking) if leaking else None, weak
        if leaking:
            worst = _worst(leaking)
            return "leaks", worst, _leak_text(worst, len(leaking), len(rows))
        valid = [row for row in rows if row.validity == "valid"]
        if silence:
            # an attack that finds no gradient has tested nothing, whatever the others found
            return "inconclusive", _worst(valid) if valid else None, silence
        if not rows:
            return "inconclusive", None, "no attack on it gave images that could be judged"
        if not valid:
            why = "; ".join(f"{row.attack}: {row.validity} ({row.reason})" for row in rows)
            return "inconclusive", None, f"no valid attack: {why}"
        masked = [row for row in rows if row.validity == "gradient masking suspected"]
        if masked:
            why = "; ".join(f"{row.attack} ({row.reason})" for row in masked)
            return "inconclusive", _worst(valid), f"gradient masking is suspected: {why}"
        unclear = [row for row in valid if headline(row).low != 0 or not self._clearly_less(row, all_rows)]
        if unclear:
            why = "; ".join(f"{row.attack} {index_line(headline(row))}" for row in unclear)
            text = f"neither above the null nor clearly below the unprotected network (more images or seeds?): {why}"
            return "inconclusive", _worst(valid), text
        return "resists", _worst(valid), _resist_text(valid)

    def _clearly_less(self, row: AttackRow, all_rows: Sequence[AttackRow]) -> bool:
        """Whether the same attack gets clearly more out of the unprotected network."""
        label, _ = self._control(row.defense, row.attack)
        controls = [o for o in all_rows if (o.defense, o.attack) == (label, row.attack) and o.leaks and o is not row]
        upper_limit, other = headline(row).high, headline(controls[0]).low if controls else None
        return upper_limit is not None and other is not None and other > upper_limit


def _validity(leaks: bool, checks: Sequence[Gate]) -> tuple[Validity, str]:
    """A row that leaks is evidence whatever its optimiser thinks of itself; one that does not needs every gate."""
    order: tuple[tuple[tuple[str, ...], Validity], ...] = (
        (("G2",), "invalid"),
        (("G1",), "invalid"),
        (("G3",), "optimisation failure"),
        (("G4", "G5"), "gradient masking suspected"),
    )
    for names, validity in order:
        bad = gates.failed(checks, *names)
        if bad and (names == ("G2",) or not leaks):
            return validity, "; ".join(f"{gate.name}: {gate.reason}" for gate in bad)
    return "valid", "recognised above its null" if leaks else "fails no gate; not significant"


def _worst(rows: Sequence[AttackRow]) -> AttackRow:
    return max(rows, key=lambda row: headline(row).value or 0.0)


def _leak_text(worst: AttackRow, leaking: int, tried: int) -> str:
    return (
        f"{worst.attack} reconstructs its classes: index {index_line(headline(worst))}, {_p(worst)}; "
        f"{leaking} of {tried} attacks do. It took {_cost(worst)}. Another attack may reconstruct more."
    )


def _resist_text(valid: Sequence[AttackRow]) -> str:
    each = "; ".join(f"{row.attack} {index_line(headline(row))} at {_cost(row)}" for row in valid)
    return f"clearly less than from the unprotected network, and not above the null: {each}. Others may do better."


def _cost(row: AttackRow) -> str:
    return f"{row.gradient_steps:,.0f} gradient steps, {row.queries:,.0f} queries and {row.seconds:.1f} s"


def _p(row: AttackRow) -> str:
    return "p unknown" if row.p is None else gates.p_text(row.p)


def headline(row: AttackRow) -> Index:
    """The index that carries the verdict."""
    return next((index for index in row.indices if index.metric == HEADLINE), Index(metric=HEADLINE))
