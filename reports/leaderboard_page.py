"""A leaderboard as one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from leakbench.bench.leaderboard.board import Board, Filed, FiledAttack, FiledDefense, Leaderboard, Row
from leakbench.bench.leaderboard.entries import AttackEntry, AttackResult, Measured, Plugin, RunFacts
from leakbench.bench.protocols import PROTOCOLS
from leakbench.metrics.metric import Unit
from leakbench.records import Value
from leakbench.reports.conclusion import p_text
from leakbench.reports.page import fill
from leakbench.reports.ranking import rank_text
from leakbench.reports.verdict import CHIPS, Mark, percent
from leakbench.reports.vocabulary import bounds, number, plain


@dataclass(frozen=True)
class Number:
    """A value as the page has it, and what its column is sorted by."""

    text: str
    bounds: str = ""
    sort: str = ""


@dataclass(frozen=True)
class AttackLine:
    """One attack on a defence."""

    plugin: Plugin
    access: str
    validity: str
    reason: str
    index: Number
    costs: tuple[str, ...]
    """gradient steps, queries, seconds"""
    file: str
    """the attack's own entry; empty where it stands in that of the defence"""
    breaks: bool
    command: str


@dataclass(frozen=True)
class AccessLine:
    """What attackers with so much access get."""

    access: str
    attack: str
    index: Number
    classes: str
    half: str
    area: Number


@dataclass(frozen=True)
class Source:
    """An entry's file and the run behind it."""

    filed: Filed
    what: str
    run: RunFacts
    links: tuple[tuple[str, str], ...]
    keys: tuple[tuple[str, tuple[str, ...]], ...]
    """role -> keys in the store"""


@dataclass(frozen=True)
class RowView:
    """A defence in one line, and what the line opens."""

    row: Row
    rank: str
    rank_sort: str
    order: int
    """of its name among those of the page, by which the column is sorted"""
    attack_order: int
    verdict: str
    p: str
    chip: str
    tone: str
    tag: str
    """that another entry than the shown one says that it leaks; empty where none does"""
    index: Number
    mark: Mark | None
    attack: str
    access: str
    classes: Number
    accuracy: Number
    lost: Number
    energy: Number
    read: Number
    half: Number
    free: bool
    accesses: str
    """of the attacks that were run on it"""
    why: str
    parameters: tuple[tuple[str, str], ...]
    by_access: tuple[AccessLine, ...]
    attacks: tuple[AttackLine, ...]
    files: tuple[tuple[str, str], ...]
    """(a file that the commands name, its sha256)"""
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class BoardView:
    """The table of one protocol."""

    id: str
    board: Board
    settings: str
    ranked: tuple[RowView, ...]
    open: tuple[RowView, ...]


def render(leaderboard: Leaderboard) -> str:
    """The page. Only ``leaderboard`` goes in: no time, no path of a machine."""
    boards = [_board(board) for board in leaderboard.boards]
    rows = [row for one in boards for row in (*one.ranked, *one.open)]
    return fill(
        "leaderboard.html.j2",
        leaderboard,
        also="leaderboard",
        leaderboard=leaderboard,
        boards=boards,
        heading=f"Leaderboard: {_outcome(rows)}",
    )


def _outcome(rows: Sequence[RowView]) -> str:
    """Of how many defences how many resist, as far as is known."""
    if not rows:
        return "no entry yet"
    resisting = sum(row.tone == CHIPS["resists"][1] for row in rows)
    every = f"{len(rows)} defence{'s' if len(rows) > 1 else ''}"
    return f"{resisting or 'none'} of {every} {'resists' if resisting < 2 else 'resist'}"


def _board(board: Board) -> BoardView:
    protocol = PROTOCOLS[board.protocol]
    attacks = ", ".join(f"{name} (version {version})" for name, version in protocol.attacks.items())
    settings = f"{protocol.dataset}, {protocol.model}, T = {protocol.timesteps}, {protocol.seeds} networks, "
    settings += f"{protocol.images_per_class} images of each class; every defence is attacked by {attacks}"
    rows = (*board.ranked, *board.open)
    names = sorted({row.label for row in rows})
    attacked = sorted({row.worst.attack for row in rows if row.worst})
    return BoardView(
        id=f"board-{board.protocol}",
        board=board,
        settings=settings,
        ranked=tuple(_row(row, names, attacked) for row in board.ranked),
        open=tuple(_row(row, names, attacked) for row in board.open),
    )


def _row(row: Row, names: Sequence[str], attacked: Sequence[str]) -> RowView:
    """``names``, ``attacked``: labels of the defences and the worst attacks of the board, in their order."""
    entry, worst = row.shown.entry, row.worst
    worst_path = worst.path if worst else ""
    tag = _tag(row)
    outcome = entry.verdict.outcome
    # what resists can be compared: where the row has no rank all the same, another entry says why
    chip, tone = CHIPS["leaks" if tag else "inconclusive" if row.why and outcome == "resists" else outcome]
    first, last = row.rank or (0, 0)
    half = [one.cost_to_half.value for one in entry.access if one.cost_to_half]
    read = entry.training_images_read
    attacks = [one.access for one in (*entry.attacks, *(one.entry.attack for one in row.attacks)) if one.index]
    filed: list[FiledDefense | FiledAttack] = [row.shown, *row.others, *row.attacks]
    lines = [_attack(one, "", False, "") for one in entry.attacks]
    lines += [_attack(one.entry.attack, one.path, one.path == worst_path, one.entry.command) for one in row.attacks]
    return RowView(
        row=row,
        rank=rank_text(row.rank),
        rank_sort=f"{first} {last}",
        order=names.index(row.label),
        attack_order=attacked.index(worst.attack) if worst else -1,
        verdict=CHIPS[outcome][0],
        p="" if entry.verdict.p is None else p_text(entry.verdict.p),
        chip=chip,
        tone=tone,
        tag=tag,
        index=number_of("share", worst.index if worst else None),
        mark=_mark(worst.index) if worst else None,
        attack=worst.attack if worst else "–",
        access=worst.access.lower() if worst else "",
        classes=Number(f"{len(entry.verdict.named)} of {entry.verdict.classes}", "", str(len(entry.verdict.named))),
        accuracy=number_of("share", entry.accuracy),
        lost=number_of("share", entry.accuracy_drop),
        energy=number_of("ratio", entry.energy_ratio),
        read=number_of("count", read),
        half=Number(plain("count", round(min(half))), "", repr(min(half))) if half else Number("never"),
        free=read is not None and read.value == 0,
        accesses=" ".join(dict.fromkeys(attacks)),
        why=row.why,
        parameters=tuple((name, str(value)) for name, value in entry.defense.params.items()),
        by_access=tuple(
            AccessLine(
                access=one.access.lower(),
                attack=one.attack or "none was run",
                index=number_of("share", one.index),
                classes=str(one.classes) if one.index else "–",
                half=number_of("count", one.cost_to_half).text if one.cost_to_half else "never" if one.index else "–",
                area=number_of("share", one.area),
            )
            for one in entry.access
        ),
        attacks=tuple(lines),
        files=_files([entry.defense, *(one.plugin for one in lines)]),
        sources=tuple(map(_source, filed)),
    )


def _tag(row: Row) -> str:
    """Where the verdict of the shown entry is not all that is known: it is of the attacks before."""
    if row.worst and row.worst.path in {one.path for one in row.attacks}:
        return "broken"
    by_others = row.attacks or any(one.entry.verdict.outcome == "leaks" for one in row.others)
    return "by another entry" if by_others and row.shown.entry.verdict.outcome != "leaks" else ""


def _attack(result: AttackResult, file: str, breaks: bool, command: str) -> AttackLine:
    costs: tuple[tuple[Unit, float | None], ...] = (
        ("count", result.gradient_steps),
        ("count", result.queries),
        ("seconds", result.seconds),
    )
    return AttackLine(
        plugin=result.plugin,
        access=result.access.lower(),
        validity=result.validity or result.status,
        reason=result.reason,
        index=number_of("share", result.index),
        costs=tuple("–" if x is None else plain(unit, x) for unit, x in costs),
        file=file,
        breaks=breaks,
        command=command,
    )


def _files(plugins: Sequence[Plugin]) -> tuple[tuple[str, str], ...]:
    pairs = ((one.origin.partition(":")[0], one.source) for one in plugins if ".py:" in one.origin)
    return tuple(dict.fromkeys(pairs))


def _source(filed: FiledDefense | FiledAttack) -> Source:
    entry = filed.entry
    kept = entry.artifacts
    keys = [("trained ANNs", kept.anns), ("deployed networks", kept.victims)]
    keys += [(f"images of {attack}", images) for attack, images in kept.images.items()]
    return Source(
        filed=filed,
        what=f"entry of {entry.attack.plugin.label}" if isinstance(entry, AttackEntry) else "entry of the defence",
        run=entry.run,
        links=tuple(entry.links.items()),
        keys=tuple((role, tuple(of_role)) for role, of_role in keys if of_role),
    )


def number_of(unit: Unit, measured: Measured | None) -> Number:
    """The value with its interval; a dash for none."""
    if measured is None:
        return Number("–")
    value = Value(metric="", value=measured.value, low=measured.low, high=measured.high, n=measured.n)
    return Number(number(unit, value), bounds(unit, value), repr(measured.value))


def _mark(index: Measured) -> Mark:
    low, high = (index.value if end is None else end for end in (index.low, index.high))
    return Mark(percent(index.value), percent(low), percent(high))
