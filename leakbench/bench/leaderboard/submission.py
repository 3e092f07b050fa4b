"""From the record of a run to an entry of a leaderboard."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePath
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from leakbench.bench.comparison.entries import Entry as RunEntry
from leakbench.bench.comparison.entries import entries_of
from leakbench.bench.comparison.records import DROP, ENERGY, ComparedAttack
from leakbench.bench.departures import departures
from leakbench.bench.grid import GridConfig, make_config
from leakbench.bench.leaderboard.entries import (
    BUILT_IN,
    AccessResult,
    Artifacts,
    AttackEntry,
    AttackResult,
    Broken,
    DefenseEntry,
    Difference,
    LinkKind,
    MadeBy,
    Measured,
    Plugin,
    Positive,
    Ran,
    RunFacts,
    Share,
    VerdictFacts,
    fault,
)
from leakbench.bench.protocols import PROTOCOLS
from leakbench.errors import UnknownName, UsageError
from leakbench.records import CellRecord, Index, PluginInfo, RunRecord, Value, Verdict

_Made = TypeVar("_Made", DefenseEntry, AttackEntry, AttackResult)
_Number = TypeVar("_Number", bound=Measured)


def defense_entry(
    record: RunRecord, defense: str | None = None, links: Mapping[LinkKind, str] | None = None
) -> DefenseEntry:
    """What the run says of a defence, by its label in the run; of the only one where none is named.

    UsageError, one line, where the run follows no protocol, is incomplete, has cells that failed, or has no such
    defence.
    """
    entry = _chosen(record, defense)
    compared = entry.compared(None, None)
    verdict = entry.verdict
    if verdict is None or not compared.attacks:
        raise UsageError(f"{entry.defense} was not attacked: {compared.unranked}")
    accuracy, drop = compared.value("accuracy"), compared.value(DROP)
    if accuracy is None or drop is None:
        raise UsageError(f"{entry.defense} has no accuracy beside its ANN's in this run")
    return _checked(
        lambda: DefenseEntry(
            **_common(record, entry, compared.attacks, links),
            accuracy=_share(accuracy),
            accuracy_drop=_measured(Difference, drop),
            energy_ratio=_known(compared.value(ENERGY)),
            training_images_read=_known(compared.value("training_images_read")),
            timesteps=sorted({c.timesteps for c in entry.utility_cells.cells if c.timesteps is not None}),
            verdict=_verdict(record, verdict),
            attack=compared.attack,
            index=_index(compared.index),
            access=[
                AccessResult(
                    access=threat.access,
                    attack=threat.attack,
                    index=_index(threat.index),
                    classes=len(threat.named),
                    cost_to_half=_known(threat.cost_to_half),
                    area=_share(threat.area) if threat.area else None,
                )
                for threat in verdict.threats
            ],
            attacks=[_attack(record, entry, one) for one in compared.attacks],
            comparable=not compared.unranked,
            why=compared.unranked[:2000],
        )
    )


def attack_entry(
    record: RunRecord,
    attack: str,
    before: DefenseEntry,
    digest: str,
    defense: str | None = None,
    links: Mapping[LinkKind, str] | None = None,
) -> AttackEntry:
    """What the run says of an attack, by its label in the run, on the defence of the entry ``before``, whose file has
    the sha256 ``digest``.

    UsageError, one line, where the run can't have an entry, is of another protocol or defence, or where the attack is
    not valid, or leaks no more.
    """
    if before.index is None:
        raise UsageError("--breaks: the entry has no leakage index that an attack could be above")
    entry = _chosen(record, defense)
    by_label = {one.attack: one for one in entry.compared(None, None).attacks}
    if attack not in by_label:
        raise UnknownName("attack of the run", attack, list(by_label))
    result = _checked(lambda: _attack(record, entry, by_label[attack]))
    if result.validity != "valid" or not result.leaks or result.index is None:
        why = result.reason or result.validity or result.status
        raise UsageError(f"--attack {attack} breaks nothing: it is not valid, or nothing leaks significantly ({why})")
    if result.index.value <= before.index.value:
        raise UsageError(
            f"--attack {attack} breaks nothing: its index is {result.index.value:.3f}, {before.attack}'s in the entry "
            f"is {before.index.value:.3f}"
        )
    if result.plugin.identity in {one.plugin.identity for one in before.attacks}:
        raise UsageError(f"--attack {attack} is in the entry already: export an entry of the defence with your numbers")
    index = before.index
    made = _checked(
        lambda: AttackEntry(
            **_common(record, entry, [by_label[attack]], links),
            attack=result,
            breaks=Broken(entry=digest, attack=before.attack, index=index),
        )
    )
    if made.key != before.key:
        raise UsageError(f"--breaks: the entry is of another defence: {_difference(before, made)}")
    return made


def _difference(before: DefenseEntry, made: AttackEntry) -> str:
    names = ("protocol", "name", "source", "version", "params")
    pairs = zip(names, before.key, made.key, strict=True)
    return "; ".join(f"{name} {a[:80]} there, {b[:80]} here" for name, a, b in pairs if a != b)


def _chosen(record: RunRecord, defense: str | None) -> RunEntry:
    if not record.protocol or record.protocol not in PROTOCOLS:
        raise UsageError(f"the run follows no protocol: {_why_none(record)}")
    fingerprints = {one.name: one.fingerprint for one in record.datasets}
    if departed := list(departures(PROTOCOLS[record.protocol], make_config(record.grid), fingerprints)):
        raise UsageError(f"the run does not follow {record.protocol}, whose name it bears: {departed[0]}")
    if not record.complete:
        raise UsageError("the run is incomplete: go on with leakbench run --resume --out RUN")
    by_label = {entry.defense: entry for entry in entries_of("run", record)}
    if defense is None and len(by_label) != 1:
        raise UsageError(f"--defense is missing: name one of {', '.join(by_label) or 'none'}")
    if defense is not None and defense not in by_label:
        raise UnknownName("defense of the run", defense, list(by_label))
    entry = by_label[defense if defense is not None else next(iter(by_label))]
    if failed := [_name(c) for c in record.cells if c.status == "failed" and _concerns(c, entry.defense)]:
        more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
        raise UsageError(f"cells of the run failed: {', '.join(failed[:3])}{more}: mend them and run it again")
    return entry


def _concerns(cell: CellRecord, defense: str) -> bool:
    """Whether the defence's numbers depend on it: its own, and what calibrates them."""
    return cell.control or cell.defense in ("", defense)


def _name(cell: CellRecord) -> str:
    return " ".join(part for part in (cell.defense, cell.attack, f"seed {cell.seed}") if part)


def _why_none(record: RunRecord) -> str:
    """What departs from the protocol that is nearest."""
    try:
        config = GridConfig(**record.grid)
    except (ValidationError, TypeError):
        return "its grid can't be read"
    fingerprints = {one.name: one.fingerprint for one in record.datasets}
    departing = {name: list(departures(one, config, fingerprints)) for name, one in PROTOCOLS.items()}
    nearest = min(departing, key=lambda name: len(departing[name]))
    if not departing[nearest]:
        return f"it was recorded without one; run it again with --protocol {nearest}"
    return f"from {nearest} departs {'; '.join(departing[nearest])}"


# --- parts -----------------------------------------------------------------------------------------------------------


def _common(
    record: RunRecord, entry: RunEntry, attacks: Iterable[ComparedAttack], links: Mapping[LinkKind, str] | None
) -> dict[str, Any]:
    cells = sorted(entry.utility_cells.cells, key=lambda cell: cell.seed)
    images = {one.attack: [c for c in entry.cells if c.attack == one.attack] for one in attacks}
    cell = entry.first
    return {
        "protocol": record.protocol,
        "defense": _plugin(
            record, "defense", cell.defense, cell.defense_name, cell.defense_version, cell.defense_source,
            cell.defense_params, cell.defense_ran,
        ),
        "run": RunFacts(
            leakbench=record.leakbench,
            created=record.created,
            environments=[MadeBy(**one.model_dump()) for one in record.environments],
        ),
        "artifacts": Artifacts(
            anns=_keys(cells, "ann"),
            victims=_keys(cells, "victim"),
            images={label: keys for label, of in images.items() if (keys := _keys(of, "images"))},
        ),
        "links": dict(links or {}),
    }  # fmt: skip


def _plugin(
    record: RunRecord,
    kind: str,
    label: str,
    name: str,
    version: int | None,
    source: str,
    params: dict[str, Any],
    ran: str,
) -> Plugin:
    info = next((one for one in record.plugins if (one.kind, one.name) == (kind, name)), None)
    given = {key.partition(".")[2] for key in record.grid.get("set", {}) if key.partition(".")[0] == name}
    return Plugin(
        name=name,
        label=label,
        origin=_origin(info) if source else BUILT_IN,
        source=source or BUILT_IN,
        version=version,
        params={key: _param(value) for key, value in params.items()},
        given=sorted(given & params.keys()),
        cites=info.cites[:2000] if info else "",
        ran=next((one for one in get_args(Ran) if ran.startswith(one)), "unknown"),
    )


def _origin(info: PluginInfo | None) -> str:
    """Without the folders of the machine that it ran on."""
    path, dot, attribute = (info.origin if info else "").partition(".py:")
    return f"{PurePath(path).name}.py:{attribute}" if dot else path or "a file"


def _param(value: Any) -> Any:
    scalar = str | bool | int | float | None
    plain = isinstance(value, scalar) or (isinstance(value, list) and all(isinstance(one, scalar) for one in value))
    return value if plain else json.dumps(value, sort_keys=True, default=str)[:500]


def _attack(record: RunRecord, entry: RunEntry, one: ComparedAttack) -> AttackResult:
    cell = entry.attacks[one.attack]
    plugin = _plugin(
        record, "attack", cell.attack, cell.attack_name, cell.attack_version, cell.attack_source, cell.attack_params,
        cell.attack_ran,
    )  # fmt: skip
    return AttackResult.model_validate(
        {
            "plugin": plugin,
            "access": one.access,
            "status": one.status,
            "validity": one.validity,
            "reason": one.reason[:2000],
            "leaks": one.leaks,
            "index": _index(one.index),
            "queries": one.queries,
            "gradient_steps": one.gradient_steps,
            "seconds": one.seconds,
        }
    )


def _verdict(record: RunRecord, verdict: Verdict) -> VerdictFacts:
    names = next((one.classes for one in record.datasets if one.name == verdict.dataset), [])
    return VerdictFacts(
        outcome=verdict.outcome,
        reason=verdict.reason[:2000],
        p=verdict.p,
        networks=verdict.networks,
        classes=len(verdict.classes),
        named=[names[number] if number < len(names) else str(number) for number in verdict.named],
        missing=[line[:2000] for line in verdict.missing],
    )


def _keys(cells: Iterable[CellRecord], role: str) -> list[str]:
    return list(dict.fromkeys(cell.artifacts[role] for cell in cells if role in cell.artifacts))


def _measured(kind: type[_Number], value: Value) -> _Number:
    return kind(value=value.value, low=value.low, high=value.high, n=value.n)


def _known(value: Value | None) -> Positive | None:
    return None if value is None else _measured(Positive, value)


def _share(value: Value) -> Share:
    """With its interval cut to what a share can be: Student's knows no bounds."""
    low, high = (None if end is None else min(1.0, max(0.0, end)) for end in (value.low, value.high))
    return Share(value=value.value, low=low, high=high, n=value.n)


def _index(index: Index | None) -> Share | None:
    if index is None or index.value is None:
        return None
    return Share(value=index.value, low=index.low, high=index.high, n=index.n)


def _checked(build: Callable[[], _Made]) -> _Made:
    """What is built, or UsageError, one line, where the record holds what no entry may."""
    try:
        return build()
    except ValidationError as error:
        raise UsageError(f"the run's record makes no entry: {fault(error)}") from None
