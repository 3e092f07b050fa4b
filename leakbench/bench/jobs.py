"""The jobs of a run: what cells build on, then the cells, and which waits for which."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from leakbench.bench.pipeline import Task
from leakbench.cells import AnchorCell, AttackCell, Cell, CheckCell, NullCell, ReferenceCell, UtilityCell


@dataclass(frozen=True)
class Job:
    """A task, what it is of, and the jobs that have to end before it begins."""

    task: Task
    cell: Cell
    after: tuple[int, ...]

    @property
    def supports(self) -> bool:
        """Whether what comes after it can't be without it: not so of an attack that merely goes ahead."""
        return not (self.is_cell and isinstance(self.cell, AttackCell))

    @property
    def is_cell(self) -> bool:
        """Whether it is a cell of the grid, and not what cells build on."""
        return self.task == "compute"

    @property
    def title(self) -> str:
        """One line for people."""
        if self.task == "ann":
            return f"{self.cell.dataset_label} {self.cell.model_label} seed {self.cell.seed}: ANN"
        return f"{self.cell.dataset_label} evaluation models" if self.task == "prepare" else self.cell.title

    @property
    def alike(self) -> tuple[Hashable, ...]:
        """What jobs that take about as long have in common, the closest kin first.

        The same with another seed; an attack on another defence at the same T; what an attack at half its effort is a
        half of.
        """
        cell = self.cell
        where = (self.task, cell.dataset, cell.model)
        if isinstance(cell, ReferenceCell):
            return ((*where, cell.defense.label, cell.timesteps), where)
        if not self.is_cell:
            return (where,)
        match cell:
            case AnchorCell():
                return ((*where, cell.anchor, cell.fresh),)
            case AttackCell():
                labels = [cell.attack.label, *([cell.checks] if isinstance(cell, CheckCell) else [])]
                here = (*where, cell.defense.label, cell.timesteps, labels[0])
                return (here, *((*where, "attack", cell.timesteps, label) for label in labels))
            case UtilityCell():
                return ((*where, cell.defense.label, cell.timesteps),)


def jobs_of(cells: Sequence[Cell]) -> list[Job]:
    """First networks and evaluation models, then the cells in their order; the last of it are the cells.

    A defence builds on its network, an attack on the defence, on what its kind of leak needs of the data set and on
    the defence's reference networks, where it uses some.
    Attacks with public images share what they learn from these: one goes ahead, the others wait for it and no lock.
    """
    jobs: list[Job] = []
    networks: dict[tuple[Any, ...], int] = {}
    prepared: dict[tuple[str, str], int] = {}
    for cell in cells:
        if isinstance(cell, UtilityCell) and cell.network not in networks:
            networks[cell.network] = len(jobs)
            jobs.append(Job("ann", cell, ()))
        if isinstance(cell, AnchorCell | AttackCell) and (cell.leakage, cell.dataset) not in prepared:
            prepared[cell.leakage, cell.dataset] = len(jobs)
            jobs.append(Job("prepare", cell, ()))
    references: dict[tuple[Any, ...], list[int]] = {}
    for cell in cells:
        if isinstance(cell, AttackCell) and cell.references and cell.row not in references:
            made = [ReferenceCell.beside(cell, number) for number in range(cell.references)]
            references[cell.row] = list(range(len(jobs), len(jobs) + len(made)))
            jobs += [Job("reference", reference, (networks[cell.network],)) for reference in made]
    first = len(jobs)
    alone = {cell.row: first + index for index, cell in enumerate(cells) if type(cell) is UtilityCell}
    ahead: dict[tuple[Any, ...], int] = {}
    for index, cell in enumerate(cells):
        after: list[int] = []
        if isinstance(cell, AnchorCell | AttackCell):
            after.append(prepared[cell.leakage, cell.dataset])
        if isinstance(cell, UtilityCell):
            after.append(networks[cell.network])
        if isinstance(cell, NullCell):
            # the first attack on such a network builds it
            leader = ahead.setdefault(cell.row, first + index)
            after += [leader] if leader != first + index else []
        elif isinstance(cell, AttackCell):
            after.append(alone[cell.row])
        if isinstance(cell, AttackCell) and cell.public:
            leader = ahead.setdefault((cell.dataset, cell.seed, cell.public), first + index)
            after += [leader] if leader != first + index else []
        if isinstance(cell, AttackCell) and cell.references:
            after += references[cell.row]
        jobs.append(Job("compute", cell, tuple(after)))
    return jobs
