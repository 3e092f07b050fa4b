"""A run or a comparison as DataFrames, and a DataFrame as CSV. In a frame texts are raw; CSV makes them harmless."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from leakbench.bench.comparison import ComparedDefense, Comparison
from leakbench.data import base_name
from leakbench.errors import UsageError
from leakbench.leakage import leakage_kind
from leakbench.leakage.inversion.class_evidence import FORCED, OPEN_SET
from leakbench.metrics.class_leaks import NO_NAMES
from leakbench.metrics.estimate import proportion
from leakbench.metrics.metric import INDEX
from leakbench.records import CellRecord, Index, RunRecord, Value, fields
from leakbench.reports.conclusion import class_texts
from leakbench.reports.summary import class_names
from leakbench.reports.vocabulary import value_of

_TEXT = pd.StringDtype("python")
_PLACE = {"dataset": _TEXT, "model": _TEXT, "defense": _TEXT, "attack": _TEXT, "seed": "Int64", "status": _TEXT}
_MEASURED = {"metric": _TEXT, "value": "float64", "low": "float64", "high": "float64", "n": "Int64"}
_MADE_WITH = {
    "preset": _TEXT, "timesteps": "Int64", "defense_params": _TEXT, "attack_params": _TEXT,
    "defense_version": "Int64", "attack_version": "Int64",
    "defense_source": _TEXT, "attack_source": _TEXT, "public": _TEXT,
}  # fmt: skip
_BUILT_ON = {"dataset_source": _TEXT, "model_source": _TEXT}
_MEASURED_BY = {"metric_params": _TEXT, "metric_source": _TEXT}
_CHECK = {"check": _TEXT}
_SPENT = {"access": _TEXT, "cost": "float64"}
_PROTOCOL = {"protocol": _TEXT}
LONG: Mapping[str, Any] = {
    **_PLACE, **_MEASURED, **_MADE_WITH, "class": _TEXT, **_BUILT_ON, **_MEASURED_BY, **_CHECK, **_SPENT, **_PROTOCOL,
}  # fmt: skip
"""columns of :func:`long_frame` and results.csv -> type; new ones only ever come last"""
_PAIRS: Mapping[str, Any] = {
    "dataset": _TEXT, "first": _TEXT, "second": _TEXT, "quantity": _TEXT, "attack": _TEXT,
    "difference": "float64", "low": "float64", "high": "float64", "p": "float64", "adjusted_p": "float64",
    "paired": "bool", "relation": _TEXT, "basis": _TEXT, "marks": _TEXT,
}  # fmt: skip
_DEFENSES: Mapping[str, Any] = {
    "dataset": _TEXT, "label": _TEXT, "runs": _TEXT, "model": _TEXT, "defense": _TEXT, "plugin": _TEXT,
    "preset": _TEXT, "timesteps": "Int64", "params": _TEXT, "version": "Int64", "source": _TEXT, "seeds": _TEXT,
    "rank_first": "Int64", "rank_last": "Int64", "unranked": _TEXT, "outcome": _TEXT, "reason": _TEXT,
    "worst_case": _TEXT, "index": "float64", "index_low": "float64", "index_high": "float64", "index_n": "Int64",
    "area": "float64", "area_low": "float64", "area_high": "float64", "area_rank_first": "Int64",
    "area_rank_last": "Int64", **_PROTOCOL,
}  # fmt: skip
_INDEX = {"index": "float64", "index_low": "float64", "index_high": "float64"}
_VERDICTS: Mapping[str, Any] = {
    "dataset": _TEXT, "model": _TEXT, "defense": _TEXT, "leakage": _TEXT, "outcome": _TEXT, "classes": object,
    "attack": _TEXT, **_INDEX, "p": "float64", "networks": "Int64", "reason": _TEXT, "missing": object,
}  # fmt: skip
_ATTACKS: Mapping[str, Any] = {
    "dataset": _TEXT, "model": _TEXT, "defense": _TEXT, "attack": _TEXT, "leakage": _TEXT, "control": "bool",
    "validity": _TEXT, "reason": _TEXT, "leaks": "bool", "metric": _TEXT, **_INDEX, "p": "float64",
    "queries": "float64", "gradient_steps": "float64", "seconds": "float64",
}  # fmt: skip
_OUTCOMES: Mapping[str, float] = {"leaks": 1.0, "resists": 0.0}
"""what is inconclusive is neither"""
FINDING, CLASS, OF_ATTACK, VERDICT, BUDGET = "finding: ", "class: ", "index: ", "verdict: ", "budget: "
"""before the name of what an attack measured on its way, of a metric taken apart by class, of an attack, of a number of
a verdict on classes, of what is had at a cost"""
_NAMED = f"{CLASS}{VERDICT}leaks"
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", "'")


# --- a run -----------------------------------------------------------------------------------------------------------


def long_frame(record: RunRecord) -> pd.DataFrame:
    """One row a measured value, in the record's order.

    Of a cell its values, its findings (``finding: <name>``) and its values by class (``class: <metric>``, with the
    class's name, or its index where the data set names none, in ``class``); one row with empty metric where it has
    nothing. Below the cells, with no seed, what all seeds together say of an attack on a defence: ``valid`` and
    ``leaks`` (1 or 0), ``p`` and ``index_<metric>``. Below these, with no attack either, what a verdict on classes says
    of a defence: ``verdict: leaks`` (1; 0 where it resists; no row where it is inconclusive), ``verdict: index``,
    ``verdict: p``, ``verdict: networks``, and class by class ``class: verdict: leaks``, 1 where it is named, NaN where
    there are too few networks to name any. Of a verdict on members ``verdict: members: leaks`` and so on.

    Rows of the leak over the attacker's cost are ``budget: <name>``: of a cell what the evaluation models see in what
    the attack had at ``cost`` (gradient steps and queries an image), and of a defence, with no seed and the worst case
    as attack, ``index`` at each cost, ``cost_to_half`` and ``area`` for attackers with that ``access``.

    ``value`` is NaN where there is none and where it is that; ``low`` and ``high`` where no interval is defined.
    Parameters are canonical JSON. ``dataset_source``, ``model_source``, ``metric_params`` and ``metric_source`` are of
    a third party's function or metric, and else empty. ``attack`` is empty for a defence's own values; anchors have an
    empty ``defense`` and the attack "noise" or "real".
    """
    return _frame(list(_long_rows(record)), LONG)


def _long_rows(record: RunRecord) -> Iterator[tuple[Any, ...]]:
    plugins = {(plugin.kind, plugin.name): plugin for plugin in record.plugins}
    values = ((row, (check, "", None)) for row, check in _value_rows(record))
    for row, last in (*values, *_budget_rows(record)):
        dataset, model, metric = row[0], row[1], row[len(_PLACE)]
        built_on = (plugins.get(("dataset", base_name(dataset))), plugins.get(("model", model)))
        measured_by = plugins.get(("metric", metric.removeprefix(CLASS).removeprefix(INDEX)))
        params = canonical(measured_by.params) if measured_by else ""
        source = measured_by.source if measured_by else ""
        yield *row, *(one.source if one else "" for one in built_on), params, source, *last, record.protocol


def _value_rows(record: RunRecord) -> Iterator[tuple[tuple[Any, ...], str]]:
    """The columns up to "class", and the check that the row is of."""
    classes = {info.name: info.classes for info in record.datasets}

    def named(dataset: str, target: int) -> str:
        names = classes.get(dataset, [])
        return names[target] if 0 <= target < len(names) else str(target)

    for cell in record.cells:
        head = (cell.dataset, cell.model, cell.defense, cell.attack, cell.seed, cell.status)
        settings, check = _made_with(cell), cell.check
        for value in cell.values:
            yield (*head, *_measured(value), *settings, ""), check
        for finding in cell.findings:
            yield (*head, f"{FINDING}{finding.name}", finding.value, None, None, 1, *settings, ""), check
        for score in cell.classes:
            measured = (f"{CLASS}{score.metric}", score.value, score.low, score.high, score.n)
            yield (*head, *measured, *settings, named(cell.dataset, score.target)), check
        if not (cell.values or cell.findings or cell.classes):
            yield (*head, "", None, None, None, None, *settings, ""), check
    for row in record.rows:
        place = (row.dataset, row.model, row.defense, row.attack)
        settings = _made_with(record.cell(*place))
        summary = [Value(metric="valid", value=float(row.validity == "valid"))]
        summary += [Value(metric="leaks", value=float(row.leaks))]
        summary += [shown for index in row.indices if (shown := value_of(index))]
        summary += [Value(metric="p", value=row.p)] if row.p is not None else []
        for value in summary:
            yield (*place, None, "ok", *_measured(value), *settings, ""), ""
    for verdict in record.verdicts:
        place = (verdict.dataset, verdict.model, verdict.defense, "")
        settings = _made_with(record.cell(*place))
        kind = leakage_kind(verdict.leakage)
        of_kind = VERDICT if kind.comparable else f"{VERDICT}{kind.title}: "
        index = value_of(verdict.index)
        said = [Value(metric="leaks", value=_OUTCOMES[verdict.outcome])] if verdict.outcome in _OUTCOMES else []
        said += [index.model_copy(update={"metric": "index"})] if index else []
        said += [Value(metric="p", value=verdict.p)] if verdict.p is not None else []
        said += [Value(metric="networks", value=float(verdict.networks))] if verdict.classes else []
        for value in said:
            measured = _measured(value.model_copy(update={"metric": f"{of_kind}{value.metric}"}))
            yield (*place, None, "ok", *measured, *settings, ""), ""
        testable = verdict.outcome != "inconclusive" and not any(note.startswith(NO_NAMES) for note in verdict.notes)
        for target in verdict.classes:
            leaks = float(target in verdict.named) if testable or target in verdict.named else None
            of_class = (_NAMED, leaks, None, None, verdict.networks)
            yield (*place, None, "ok", *of_class, *settings, named(verdict.dataset, target)), ""


def _budget_rows(record: RunRecord) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """The columns up to "class", and those of _CHECK and _SPENT."""
    for cell in record.cells:
        head = (cell.dataset, cell.model, cell.defense, cell.attack, cell.seed, cell.status)
        for point in cell.budget:
            for metric, hits in ((OPEN_SET, point.accepted), (FORCED, point.forced)):
                estimate = proportion(sum(hits), point.images * len(hits))
                seen = Value(metric=f"{BUDGET}{metric}", **fields(estimate))
                yield (*head, *_measured(seen), *_made_with(cell), ""), (cell.check, "", point.cost)
    for verdict in record.verdicts:
        place = (verdict.dataset, verdict.model, verdict.defense)
        for threat in verdict.threats:
            rows: list[tuple[str, Value, float | None]] = [
                (point.attack, Value(metric="index", **fields(point.estimate)), point.cost) for point in threat.points
            ]
            rows += [(threat.attack, value, None) for value in (threat.cost_to_half, threat.area) if value]
            for attack, value, cost in rows:
                measured = value.model_copy(update={"metric": f"{BUDGET}{value.metric}"})
                settings = _made_with(record.cell(*place, attack))
                yield (*place, attack, None, "ok", *_measured(measured), *settings, ""), ("", threat.access, cost)


def _measured(value: Value) -> tuple[Any, ...]:
    return value.metric, value.value, value.low, value.high, value.n


def _made_with(cell: CellRecord | None) -> tuple[Any, ...]:
    """The columns of _MADE_WITH; empty where the record does not say."""
    if cell is None:
        return "", None, "", "", None, None, "", "", ""
    attacked = cell.defense and cell.attack  # an anchor is no attack
    return (
        cell.preset,
        cell.timesteps,
        canonical(cell.defense_params) if cell.defense else "",
        canonical(cell.attack_params) if attacked else "",
        cell.defense_version,
        cell.attack_version,
        cell.defense_source,
        cell.attack_source,
        cell.public,
    )


def wide_frame(record: RunRecord) -> pd.DataFrame:
    """One row a cell, one without a seed for what all seeds say of an attack on a defence, and one without an attack
    either for a verdict on classes; metrics are columns.

    ``<metric>`` is followed by ``<metric> low`` and ``<metric> high`` where any row has an interval of it. A metric
    named like another column is ``metric: <name>``. Values by class and by cost, and numbers of observations are in
    :func:`long_frame` alone.
    """
    fixed = {**_PLACE, **_MADE_WITH, **_BUILT_ON, **_CHECK, **_PROTOCOL}
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    values: dict[tuple[Any, ...], list[Value]] = {}
    for raw in _long_rows(record):
        one = dict(zip(LONG, raw, strict=True))
        key = tuple(one[name] for name in _PLACE)
        rows.setdefault(key, {name: one[name] for name in fixed})
        if one["metric"] and not one["metric"].startswith((CLASS, BUDGET)):
            values.setdefault(key, []).append(Value(**{name: one[name] for name in _MEASURED}))
    return _wide(list(rows.values()), [values.get(key, []) for key in rows], fixed)


def verdicts_frame(record: RunRecord) -> pd.DataFrame:
    """One row a verdict, with the worst case and the index of it.

    ``classes`` are the names of those that leak significantly, ``missing`` what "resists" lacks, tuples of texts;
    numbers are NaN where there are none.
    """
    rows = [
        (
            *(one.dataset, one.model, one.defense, one.leakage, one.outcome),
            tuple(class_texts(one.named, class_names(record, one.dataset))),
            *(one.attack, *_index_columns(one.index), one.p, one.networks, one.reason, tuple(one.missing)),
        )
        for one in record.verdicts
    ]
    return _frame(rows, _VERDICTS)


def attacks_frame(record: RunRecord) -> pd.DataFrame:
    """One row an attack on a defence, all seeds together: whether it is valid, and the index of its headline metric."""
    rows = [
        (
            *(row.dataset, row.model, row.defense, row.attack, row.leakage, row.control),
            *(row.validity, row.reason, row.leaks, index.metric, *_index_columns(index), row.p),
            *(row.queries, row.gradient_steps, row.seconds),
        )
        for row in record.rows
        for index in [leakage_kind(row.leakage).headline_of(row)]
    ]
    return _frame(rows, _ATTACKS)


def _index_columns(index: Index | None) -> tuple[float | None, float | None, float | None]:
    return (index.value, index.low, index.high) if index else (None, None, None)


# --- a comparison ----------------------------------------------------------------------------------------------------


def pairs_frame(comparison: Comparison) -> pd.DataFrame:
    """One row a pair of defences and what of them is compared: ``difference`` is the first's less the second's.

    ``attack`` is empty where leakage is that of the worst case; ``adjusted_p`` is p corrected for the number of pairs
    (Holm); numbers are NaN where there are none.
    """
    rows = [
        (
            *(pair.dataset, pair.first, pair.second, pair.quantity, pair.attack),
            *(pair.value, pair.low, pair.high, pair.p, pair.adjusted),
            *(pair.paired, pair.relation, pair.basis, "; ".join(pair.marks)),
        )
        for pair in comparison.pairs
    ]
    return _frame(rows, _PAIRS)


def defenses_frame(comparison: Comparison) -> pd.DataFrame:
    """One row a defence: with what it was made, its rank, its worst case, its own values as :func:`wide_frame` has
    them, and the leakage index of each attack that is valid there (``index: <attack>``)."""
    rows = [dict(zip(_DEFENSES, _defense(one), strict=True)) for one in comparison.defenses]
    values = [
        [*one.values, *(_named(f"{OF_ATTACK}{a.attack}", a.index) for a in one.attacks if a.validity == "valid")]
        for one in comparison.defenses
    ]
    return _wide(rows, [[value for value in row_values if value] for row_values in values], _DEFENSES)


def _defense(one: ComparedDefense) -> tuple[Any, ...]:
    first, last = one.rank or (None, None)
    worst, area = value_of(one.index), one.area
    return (
        *(one.dataset, one.label, ", ".join(one.runs), one.model, one.defense, one.plugin),
        *(one.preset, one.timesteps, canonical(one.params), one.version, one.source, ", ".join(map(str, one.seeds))),
        *(first, last, one.unranked, one.outcome or "", one.reason),
        *((one.attack, worst.value, worst.low, worst.high, worst.n) if worst else (one.attack, None, None, None, None)),
        *((area.value, area.low, area.high) if area else (None, None, None)),
        *(one.area_rank or (None, None)),
        one.protocol,
    )


def _named(name: str, index: Index | None) -> Value | None:
    value = value_of(index)
    return value.model_copy(update={"metric": name}) if value else None


# --- frames ----------------------------------------------------------------------------------------------------------


def canonical(params: Mapping[str, Any]) -> str:
    """Parameters as JSON: the same ones give the same text."""
    return json.dumps(params, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _frame(rows: Sequence[Sequence[Any]], types: Mapping[str, Any]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(types), dtype=object)
    try:
        return frame.astype(dict(types))
    except OverflowError:
        raise UsageError("the record holds a whole number of more than 64 bits, which no table can") from None


def _wide(rows: Sequence[dict[str, Any]], values: Sequence[Sequence[Value]], fixed: Mapping[str, Any]) -> pd.DataFrame:
    """The rows with their values beside them, the metrics in the order in which they come."""
    bounded: dict[str, bool] = {}
    for value in (value for row_values in values for value in row_values):
        ends = value.low is not None or value.high is not None
        bounded[value.metric] = ends or bounded.get(value.metric, False)
    columns: dict[str, tuple[str, str]] = {}
    for metric, ends in bounded.items():
        for part in ("value", "low", "high") if ends else ("value",):
            name = metric if part == "value" else f"{metric} {part}"
            while name in fixed or name in columns:
                name = f"metric: {name}"
            columns[name] = (metric, part)
    cells = [
        {(v.metric, part): getattr(v, part) for v in row_values for part in ("value", "low", "high")}
        for row_values in values
    ]
    texts = [
        [*row.values(), *(one.get(column) for column in columns.values())] for row, one in zip(rows, cells, strict=True)
    ]
    return _frame(texts, {**fixed, **dict.fromkeys(columns, "float64")})


# --- CSV -------------------------------------------------------------------------------------------------------------


def as_csv(frame: pd.DataFrame) -> str:
    """The frame as CSV, first the names of its columns.

    Floats are written so that reading them gives the same float, and NaN as an empty text. Lines end in "\\n"; text
    that holds commas, quotes or line ends is quoted, and no text starts like a formula (:func:`safe_text`).
    """
    return _lines(frame, [_column(frame.iloc[:, column]) for column in range(frame.shape[1])])


def long_csv(frame: pd.DataFrame) -> str:
    """A :func:`long_frame` as :func:`as_csv`, but "nan" where that was measured: a value without a metric is none, nor
    is that of a class where none can be named."""
    columns = [_column(frame[name]) for name in frame]
    measured = zip(frame["metric"], columns[list(LONG).index("value")], strict=True)
    unmeasured = ("", _NAMED)
    columns[list(LONG).index("value")] = [text or ("" if metric in unmeasured else "nan") for metric, text in measured]
    return _lines(frame, columns)


def _lines(frame: pd.DataFrame, columns: Sequence[Sequence[str]]) -> str:
    heading = [_quoted(safe_text(str(name))) for name in frame]
    return "".join(f"{','.join(line)}\n" for line in (heading, *zip(*columns, strict=True)))


def _column(column: pd.Series[Any]) -> list[str]:
    if pd.api.types.is_float_dtype(column.dtype):
        return ["" if math.isnan(x) else repr(x) for x in column.tolist()]
    if pd.api.types.is_string_dtype(column.dtype):
        known = {text: _quoted(safe_text(text)) for text in column.unique()}  # most texts repeat in every row
        return [known[text] for text in column.tolist()]
    return ["" if x is pd.NA else str(x) for x in column.tolist()]


def _quoted(text: str) -> str:
    # csv.writer leaves a carriage return unquoted when lines end in "\n": its reader stumbles on that.
    return '"' + text.replace('"', '""') + '"' if any(char in text for char in ',"\r\n') else text


def safe_text(text: str) -> str:
    """The text as a spreadsheet shows it instead of running it.

    A text that starts like a formula, with a sign of full width too, gets one apostrophe in front, and so does one
    that starts with an apostrophe: dropping one leading apostrophe always gives the original back. No built-in name
    and no Python identifier starts with any of these: ordinary names stay as they are. Numbers stay too.
    """
    return f"'{text}" if text.startswith(_FORMULA) else text
