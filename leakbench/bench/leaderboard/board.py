"""The leaderboard of entries: a table for each protocol, a row for each defence, worst known value and rank.

A defence is its plugin's source with its parameters under a protocol. Of all that is known of it the worst value
counts: of every entry of it and of every entry of an attack that breaks one of these.
"""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field

import leakbench
from leakbench.bench.leaderboard.entries import (
    BUILT_IN,
    Access,
    AttackEntry,
    DefenseEntry,
    Entry,
    Share,
    version_numbers,
)
from leakbench.bench.leaderboard.files import EntryFile
from leakbench.bench.protocols import PROTOCOLS
from leakbench.metrics.accuracy import MOST_LOST, lost_too_much
from leakbench.records import Record

BOARD_SCHEMA = 1


class Filed(Record):
    """A file and the entry in it."""

    path: str = Field(description="relative to the folder of entries")
    digest: str = Field(description="sha256 of the file")


class FiledDefense(Filed):
    entry: DefenseEntry


class FiledAttack(Filed):
    entry: AttackEntry


class WorstKnown(Record):
    """The highest index of a defence that any entry has."""

    index: Share = Field(description="its interval: the highest lower to the highest upper limit of all entries")
    attack: str
    access: Access
    path: str = Field(description="the entry that has it")


class Row(Record):
    """A defence under a protocol."""

    label: str = Field("", description="with digits of its source's sha256 where rows of other sources have its label")
    rank: tuple[int, int] | None = Field(description="first and last that it may have, 1 leaks least; None: open")
    shown: FiledDefense = Field(
        description="of its entries the one whose own worst case is highest, one that leaks before any that does not"
    )
    others: list[FiledDefense] = Field(description="its other entries")
    attacks: list[FiledAttack] = Field(description="attacks on it, the highest index first")
    worst: WorstKnown | None = Field(description="None where no entry has an index")
    unreliable: list[str] = Field(description="why its numbers are to be doubted, a few words each")
    why: str = Field(description="why it has no rank; empty where it has one")


class Board(Record):
    """The defences of a protocol."""

    protocol: str
    summary: str
    ranked: list[Row] = Field(description="those that leak least first")
    open: list[Row] = Field(description="those that may not be compared")


class Leaderboard(Record):
    """All protocols, as written to leaderboard.json."""

    schema_version: int = BOARD_SCHEMA
    leakbench: str
    boards: list[Board]


def leaderboard(files: Sequence[EntryFile]) -> tuple[Leaderboard, list[str]]:
    """The tables of these entries, and which of them are left out and why, a line each."""
    by_digest = {file.digest: file.entry for file in files if isinstance(file.entry, DefenseEntry)}
    files, left_out = _once(files)
    held = _held([file for file in files if isinstance(file.entry, DefenseEntry)])
    defenses: dict[tuple[str, ...], list[FiledDefense]] = {}
    attacks: dict[tuple[str, ...], list[FiledAttack]] = {}
    for file in files:
        if other := held.protocol_of(file.entry):
            left_out.append(f"{file.path}: its ANNs are those of entries of {other}: no other protocol has the same")
        elif isinstance(file.entry, DefenseEntry):
            filed = FiledDefense(path=file.path, digest=file.digest, entry=file.entry)
            defenses.setdefault(file.entry.key, []).append(filed)
        elif why := _why_left_out(file.entry, by_digest.get(file.entry.breaks.entry)):
            left_out.append(f"{file.path}: {why}")
        else:
            attack = FiledAttack(path=file.path, digest=file.digest, entry=file.entry)
            attacks.setdefault(file.entry.key, []).append(attack)
    rows = [_row(entries, attacks.get(key, []), _on_variants(key, attacks), held) for key, entries in defenses.items()]
    boards = [_board(name, [row for row in rows if row.shown.entry.protocol == name]) for name in PROTOCOLS]
    filled = [board for board in boards if board.ranked or board.open]
    return Leaderboard(leakbench=leakbench.__version__, boards=filled), left_out


def _once(files: Sequence[EntryFile]) -> tuple[list[EntryFile], list[str]]:
    """The files without those that hold the very entry of another, and a line for each of these."""
    first: dict[str, EntryFile] = {}
    copies = []
    for file in files:
        content = json.dumps(file.entry.model_dump(mode="json"), sort_keys=True)
        if first.setdefault(content, file) is not file:
            copies.append(f"{file.path}: is a copy of {first[content].path}, which counts once: leave one of them out")
    return list(first.values()), copies


def _why_left_out(attack: AttackEntry, broken: DefenseEntry | None) -> str:
    """Why it is not shown to break ``broken``, the entry whose sha256 it has; empty where it is."""
    breaks = attack.breaks
    if broken is None or broken.key != attack.key:
        return f"no file here is the entry that it breaks, of {attack.defense.label}, sha256 {breaks.entry[:12]}..."
    if (breaks.attack, breaks.index) != (broken.attack, broken.index):
        return "the entry that it breaks has another worst case than it says"
    networks, theirs = len(attack.artifacts.victims), len(broken.artifacts.victims)
    if networks != theirs:
        return f"it is of {networks} networks, the entry that it breaks of {theirs}"
    return ""


def _on_variants(key: tuple[str, ...], attacks: Mapping[tuple[str, ...], list[FiledAttack]]) -> list[FiledAttack]:
    """Attacks that break a plugin of the same protocol and name with another source, version or parameters."""
    return [one for other, of_it in attacks.items() if other != key and other[:2] == key[:2] for one in of_it]


def _labelled(rows: Sequence[Row]) -> list[Row]:
    """With as many digits of the source as tell them apart where several sources have one label."""
    sources: dict[str, set[str]] = {}
    for row in rows:
        sources.setdefault(row.shown.entry.defense.label, set()).add(row.shown.entry.defense.source)
    labelled = []
    for row in rows:
        label, source = row.shown.entry.defense.label, row.shown.entry.defense.source
        several = sources[label]
        digits = next(n for n in range(8, 65) if len({one[:n] for one in several}) == len(several))
        full = label if len(several) == 1 else f"{label} ({source[:digits]})"
        labelled.append(row.model_copy(update={"label": full}))
    return labelled


def _board(protocol: str, rows: Sequence[Row]) -> Board:
    rows = _labelled(rows)
    ranked = [row for row in rows if not row.why]
    indices = [row.worst.index for row in ranked if row.worst]
    placed = [
        row.model_copy(update={"rank": rank_of(row.worst.index, indices)}) for row in ranked if row.worst is not None
    ]
    placed.sort(key=lambda row: (row.worst.index.value if row.worst else 0.0, row.label))
    without = sorted((row for row in rows if row.why), key=lambda row: row.label)
    return Board(protocol=protocol, summary=PROTOCOLS[protocol].summary, ranked=placed, open=without)


def rank_of(index: Share, indices: Iterable[Share]) -> tuple[int, int]:
    """First and last rank among ``indices``, its own among them: 1 more than the number whose whole interval lies
    below its own, to as many as there are less the number whose whole interval lies above it.

    Entries of different people share no networks: no paired test can tell more. Where an end of an interval is not
    known, nothing lies beyond it.
    """
    every = list(indices)
    below = sum(one.high is not None and index.low is not None and one.high < index.low for one in every)
    above = sum(one.low is not None and index.high is not None and one.low > index.high for one in every)
    return 1 + below, len(every) - above


def _row(
    entries: Sequence[FiledDefense], attacks: Sequence[FiledAttack], on_variants: Sequence[FiledAttack], held: _Held
) -> Row:
    comparable = [one for one in entries if one.entry.comparable]
    shown = max(comparable or entries, key=lambda one: (_leaks(one), _value(one.entry.index)))
    by_index = sorted(attacks, key=lambda one: -_value(one.entry.attack.index))
    others = [one for one in entries if one is not shown]
    unranked = _unranked(others, shown)
    every = [_worst_of_defense(one) for one in entries] + [_worst_of_attack(one) for one in by_index]
    known = [one for one in every if one]
    worst = max(known, key=lambda one: one.index.value, default=None)
    return Row(
        rank=None,
        shown=shown,
        others=others,
        attacks=by_index,
        worst=worst and worst.model_copy(update={"index": _together(worst.index, [one.index for one in known])}),
        unreliable=[
            *_doubts(entries, by_index, worst),
            *unranked,
            *_contradictions(entries, by_index),
            *_broken_variants(entries, by_index, on_variants),
            *(doubt for one in entries for doubt in held.doubts(one.path, one.entry)),
            *(doubt for one in by_index for doubt in held.doubts(one.path, one.entry)),
        ],
        # what one run could not compare is open, whatever another run of the same defence says
        why=_why_unranked(shown.entry) or next(iter(unranked), ""),
    )


def _leaks(filed: FiledDefense) -> bool:
    return filed.entry.verdict.outcome == "leaks"


def _value(index: Share | None) -> float:
    return -1.0 if index is None else index.value


def _together(worst: Share, known: Sequence[Share]) -> Share:
    """The worst case is no lower than any that is known: so a wide interval of one entry takes no rank from another."""
    lows = [one.low for one in known if one.low is not None]
    highs = [one.high for one in known]
    high = None if None in highs else max(one for one in highs if one is not None)
    return worst.model_copy(update={"low": max(lows, default=None), "high": high})


def _why_unranked(entry: DefenseEntry) -> str:
    """Empty where it may have a rank."""
    lost = entry.accuracy_drop.value
    if entry.comparable and lost_too_much(lost):
        return f"its accuracy is {lost:.3g} below that of its ANN, {MOST_LOST} is allowed: knowing less leaks less"
    return entry.why


def _unranked(entries: Sequence[FiledDefense], shown: FiledDefense) -> list[str]:
    """Those of the entries that could not be compared, and why, a line each; of an older version only where what is
    shown is no newer, so that a new version forgives nothing by itself."""
    newer = not _older(shown.entry.run.leakbench)
    whys = ((one.path, one.entry.why) for one in entries if not (newer and _older(one.entry.run.leakbench)))
    return [
        f"{path} could not be compared: {textwrap.shorten(why, 200, placeholder='...')}" for path, why in whys if why
    ]


def _worst_of_defense(filed: FiledDefense) -> WorstKnown | None:
    entry = filed.entry
    if entry.index is None:
        return None
    access: Access = next((one.access for one in entry.attacks if one.plugin.label == entry.attack), "WEIGHTS")
    return WorstKnown(index=entry.index, attack=entry.attack, access=access, path=filed.path)


def _worst_of_attack(filed: FiledAttack) -> WorstKnown | None:
    attack = filed.entry.attack
    if attack.index is None:
        return None
    return WorstKnown(index=attack.index, attack=attack.plugin.label, access=attack.access, path=filed.path)


# --- doubts ----------------------------------------------------------------------------------------------------------


def _doubts(entries: Sequence[FiledDefense], attacks: Sequence[FiledAttack], worst: WorstKnown | None) -> list[str]:
    """``worst``: as its own entry has it."""
    doubts = []
    if worst and (worst.index.low is None or worst.index.high is None):
        doubts.append("its leakage index has no interval")
    first = entries[0].entry
    if first.defense.source != BUILT_IN:  # of built-in training methods a T of their own is known, as of tdbn
        fixed = PROTOCOLS[first.protocol].timesteps
        for steps in sorted({steps for one in entries for steps in one.entry.timesteps} - {fixed}):
            doubts.append(f"its networks have T = {steps}, those of the protocol T = {fixed}")
    versions = {one.entry.run.leakbench for one in entries} | {one.entry.run.leakbench for one in attacks}
    for version in sorted(version for version in versions if _older(version)):
        doubts.append(f"run with LeakBench {version}, this is {leakbench.__version__}")
    for run in [*(one.entry.run for one in entries), *(one.entry.run for one in attacks)]:
        others = {made.leakbench for made in run.environments} - {run.leakbench}
        doubts += [f"run with LeakBench {run.leakbench} on artifacts of {version}" for version in sorted(others)]
    ran = [
        *(plugin for one in entries for plugin in (one.entry.defense, *(each.plugin for each in one.entry.attacks))),
        *(plugin for one in attacks for plugin in (one.entry.defense, one.entry.attack.plugin)),
    ]
    for label in dict.fromkeys(one.label for one in ran if one.source != BUILT_IN and one.ran != "isolated"):
        doubts.append(f"{label} was not isolated from private images and evaluation models")
    return doubts


def _contradictions(entries: Sequence[FiledDefense], attacks: Sequence[FiledAttack]) -> list[str]:
    """Attacks with the same settings that have intervals apart in two entries, a few words each."""
    measured: dict[str, list[tuple[str, str, float, float]]] = {}
    every = [(one.path, attack) for one in entries for attack in one.entry.attacks]
    every += [(one.path, one.entry.attack) for one in attacks]
    for path, attack in every:
        index = attack.index
        if attack.validity == "valid" and index and index.low is not None and index.high is not None:
            known = measured.setdefault(attack.plugin.identity, [])
            known.append((path, attack.plugin.label, index.low, index.high))
    pairs = [(min(known, key=lambda one: one[3]), max(known, key=lambda one: one[2])) for known in measured.values()]
    return [
        f"{lowest[0]} and {highest[0]} contradict each other in {lowest[1]}"
        for lowest, highest in pairs
        if lowest[3] < highest[2]
    ]


def _broken_variants(
    entries: Sequence[FiledDefense], attacks: Sequence[FiledAttack], on_variants: Sequence[FiledAttack]
) -> list[str]:
    """Attacks that break a variant of the defence and were not run on it: a changed comment must not shed a break."""
    run = {attack.plugin.identity for one in entries for attack in one.entry.attacks if attack.validity == "valid"}
    run |= {one.entry.attack.plugin.identity for one in attacks}
    by_attack = {one.entry.attack.plugin.identity: one for one in on_variants}
    return [
        f"another source (or other parameters) of {one.entry.defense.name} was broken by "
        f"{one.entry.attack.plugin.label} ({one.path}), which was not run on this one"
        for identity, one in by_attack.items()
        if identity not in run
    ]


@dataclass(frozen=True)
class _Held:
    """The keys that entries of defences hold. An ANN's follows from the protocol alone, a network's from the ANN and
    the plugin's source, version and parameters."""

    entries: Counter[str]
    """how many a protocol has"""
    anns: Mapping[str, Counter[str]]
    """protocol -> key -> how many entries hold it"""
    victims: Mapping[str, Mapping[tuple[str, str], str]]
    """key -> (plugin, source) -> a file"""

    def protocol_of(self, entry: Entry) -> str:
        """Another protocol of which no fewer entries hold one of its ANNs; empty where none is."""
        own = self.anns.get(entry.protocol, Counter())
        others = ((name, of) for name, of in self.anns.items() if name != entry.protocol)
        strange = (name for name, of in others for key in entry.artifacts.anns if of[key] >= max(1, own[key]))
        return next(strange, "")

    def doubts(self, path: str, entry: Entry) -> list[str]:
        """Why its networks can't be what the entry says, or those of others can't."""
        doubts, own = [], self.anns[entry.protocol]
        if any(2 * own[key] <= self.entries[entry.protocol] for key in entry.artifacts.anns):
            doubts.append(f"{path}: its ANNs are not those of most entries of {entry.protocol}")
        plugin = entry.defense.name, entry.defense.source
        holders = [self.victims.get(key, {}) for key in entry.artifacts.victims]
        same = {other: theirs for held in holders for other, theirs in held.items() if other != plugin}
        doubts += [
            f"{path}: its networks have the keys of those of {name} in {theirs}, of another source"
            for (name, _), theirs in same.items()
        ]
        return doubts


def _held(files: Sequence[EntryFile]) -> _Held:
    """``files``: of defences."""
    anns: dict[str, Counter[str]] = {}
    victims: dict[str, dict[tuple[str, str], str]] = {}
    for file in files:
        entry = file.entry
        anns.setdefault(entry.protocol, Counter()).update(entry.artifacts.anns)
        for key in entry.artifacts.victims:
            victims.setdefault(key, {}).setdefault((entry.defense.name, entry.defense.source), file.path)
    return _Held(Counter(file.entry.protocol for file in files), anns, victims)


def _older(version: str) -> bool:
    return version_numbers(version) < version_numbers(leakbench.__version__)
