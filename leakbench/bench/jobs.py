"""The jobs of a run: what cells build on, then the cells, and which waits for which."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass

from leakbench.bench.pipeline import Task
from leakbench.bench.shares import chosen_shares, measured_shares, share_key, text_of
from leakbench.cells import (
    AnchorCell,
    AttackCell,
    BaseCell,
    Cell,
    CheckCell,
    JobCell,
    NullCell,
    PreparationCell,
    ReferenceCell,
    UtilityCell,
)
from leakbench.leakage import leakage_kind
from leakbench.leakage.controls import BLANK, OVERFITTED, UNSEEN


@dataclass(frozen=True)
class Job:
    """A task, what it is of, and the jobs that have to end before it begins."""

    task: Task
    cell: JobCell
    needs: tuple[int, ...] = ()
    """the jobs that it can't be without, smaller numbers than its own"""
    waits: tuple[int, ...] = ()
    """jobs that go ahead, as they make what it would make, too; where they fail, it tries itself"""

    @property
    def after(self) -> tuple[int, ...]:
        """The jobs that end before it begins."""
        return tuple(sorted({*self.needs, *self.waits}))

    @property
    def is_cell(self) -> bool:
        """Whether it is a cell of the grid, and not what cells build on."""
        return self.task == "compute"

    @property
    def title(self) -> str:
        """One line for people."""
        if self.task == "ann":
            number = f" of reference {self.cell.number}" if isinstance(self.cell, ReferenceCell) else ""
            return f"{self.cell.dataset_label} {self.cell.model_label} seed {self.cell.seed}: ANN{number}"
        return self.cell.title

    @property
    def alike(self) -> tuple[Hashable, ...]:
        """What jobs that take about as long have in common, the closest kin first.

        The same with another seed; an attack on another defence at the same T; what an attack at half its effort is a
        half of.
        """
        cell = self.cell
        where = (self.task, cell.dataset, cell.model)
        if self.task == "ann":
            return (where,)
        if isinstance(cell, PreparationCell):
            return ((*where, cell.leakage, cell.part),)
        if isinstance(cell, ReferenceCell):
            return ((*where, cell.defense.label, cell.timesteps), where)
        match cell:
            case AnchorCell():
                return ((*where, cell.anchor, cell.fresh),)
            case AttackCell():
                labels = [cell.attack.label, *([cell.checks] if isinstance(cell, CheckCell) else [])]
                here = (*where, cell.defense.label, cell.timesteps, labels[0])
                return (here, *((*where, "attack", cell.timesteps, label) for label in labels))
            case UtilityCell():
                return ((*where, cell.defense.label, cell.timesteps),)


@dataclass(frozen=True)
class _Node:
    """A job by what is made in it, before jobs have numbers."""

    task: Task
    cell: JobCell
    needs: tuple[Hashable, ...] = ()
    """what it can't be without"""
    makes: tuple[Hashable, ...] = ()
    """what it makes unless that is there: the first job that makes it goes ahead"""


def jobs_of(cells: Sequence[Cell]) -> list[Job]:
    """First networks, evaluation models and reference networks, then the cells in their order; the last of it are the
    cells.

    A defence builds on its network, an attack on the defence, on what its kind of leak needs of the data set and on
    the defence's reference networks, where it uses some. Of jobs that would make the same the first goes ahead, and the
    others wait for it and no lock: rows of one network at several T or in other precisions, plugins with a common
    synthetic set, attacks with public images, which share what they learn from these.
    """
    nodes = [*_prepared(cells), *_references(cells)]
    anchored = {(cell.leakage, cell.dataset) for cell in cells if isinstance(cell, AnchorCell)}
    nodes += [_cell(cell, anchored) for cell in cells]
    first: dict[Hashable, int] = {}
    for number, node in enumerate(nodes):
        for key in node.makes:
            first.setdefault(key, number)
    return [
        Job(
            node.task,
            node.cell,
            tuple(sorted({first[key] for key in node.needs})),
            tuple(sorted({first[key] for key in node.makes} - {number})),
        )
        for number, node in enumerate(nodes)
    ]


def _prepared(cells: Sequence[Cell]) -> Iterator[_Node]:
    """ANNs, and what kinds of leak need of data sets."""
    seen: set[Hashable] = set()
    for cell in cells:
        if isinstance(cell, UtilityCell) and (ann := ("ann", *cell.network)) not in seen:
            seen.add(ann)
            yield _Node("ann", cell, makes=(ann,))
        if isinstance(cell, AnchorCell | AttackCell) and (models := _models(cell)) not in seen:
            seen.add(models)
            parts = leakage_kind(cell.leakage).parts
            shared = {name: getattr(cell, name) for name in BaseCell.model_fields if name != "metrics"}
            for part, builds_on in parts.items():
                of_part = PreparationCell(**shared, leakage=cell.leakage, part=part)
                yield _Node("prepare", of_part, tuple((*models, one) for one in builds_on), ((*models, part),))
            rest = PreparationCell(**shared, leakage=cell.leakage)
            yield _Node("prepare", rest, tuple((*models, part) for part in parts), (models,))


def _references(cells: Sequence[Cell]) -> Iterator[_Node]:
    """The networks that attacks compare a victim with, and the ANNs that those of several defences share."""
    anns: dict[Hashable, _Node] = {}
    networks: list[_Node] = []
    seen: set[Hashable] = set()
    for attack in cells:
        if not isinstance(attack, AttackCell) or not attack.references or attack.row in seen:
            continue
        seen.add(attack.row)
        for number in range(attack.references):
            cell = ReferenceCell.beside(attack, number)
            needs: list[Hashable] = [("ann", *cell.network)]
            makes: list[Hashable] = [("reference", *cell.row, number), *_builds(cell, number)]
            if cell.defense.name not in BLANK:
                ann = ("reference ann", cell.leakage, *cell.network, number)
                anns.setdefault(ann, _Node("ann", cell, makes=(ann,)))
                needs.append(ann)
            elif cell.defense.name == OVERFITTED:  # trained on what the victim read: the first builds that, too
                makes.append(("victim", *cell.row))
            networks.append(_Node("reference", cell, tuple(needs), tuple(makes)))
    yield from anns.values()
    yield from networks


def _cell(cell: Cell, anchored: Collection[tuple[str, str]]) -> _Node:
    """A cell of the grid; ``anchored`` are the (leakage, data set) that have anchors."""
    needs: list[Hashable] = []
    makes: list[Hashable] = []
    if isinstance(cell, AnchorCell | AttackCell):
        needs.append(_models(cell))
        if (cell.leakage, cell.dataset) in anchored:  # features of training images, which the first metric makes
            makes.append(("features", cell.leakage, cell.dataset))
    if isinstance(cell, UtilityCell):
        needs.append(("ann", *cell.network))
    if isinstance(cell, NullCell):
        makes.append(("victim", *cell.row))  # the first attack on such a network builds it
    elif isinstance(cell, AttackCell):
        needs.append(("cell", *cell.row))
    elif isinstance(cell, UtilityCell):
        makes += [("cell", *cell.row), ("victim", *cell.row), *_builds(cell, None)]
        if cell.defense.name == UNSEEN:  # the first at several T trains its ANN
            makes.append(("control ann", *cell.network))
    if isinstance(cell, AttackCell) and cell.public:
        makes.append(("public", cell.dataset, cell.seed, cell.public))
    if isinstance(cell, AttackCell):
        needs += [("reference", *cell.row, number) for number in range(cell.references)]
    return _Node("compute", cell, tuple(needs), tuple(makes))


def _models(cell: AnchorCell | AttackCell) -> tuple[Hashable, ...]:
    return "models", cell.leakage, cell.dataset


def _builds(cell: UtilityCell, reference: int | None) -> Iterator[Hashable]:
    """What rows of one ANN, that of the victim or of a reference, may have in common."""
    ann, variant = (*cell.network, reference), cell.defense
    protected = "protected", *ann, variant.target, text_of(variant.params)
    if cell.all_timesteps:  # one network and one simulation serve all T
        yield from (protected, (*protected, variant.quantize))
    else:
        yield (*protected, cell.timesteps)
    for name, chosen in chosen_shares(variant, measured_shares()).items():
        yield share_key(name, ann, chosen)
