"""What is not the same in two runs: what forbids a comparison, and what a reader must know."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leakbench.bench.comparison.entries import Entry, defense_settings, grouped_by
from leakbench.bench.comparison.records import Setting
from leakbench.leakage import compared_kind
from leakbench.records import ClassScore, Environment, RunRecord


@dataclass(frozen=True)
class Obstacle:
    """Why two runs should not be compared."""

    runs: frozenset[str]
    dataset: str
    """whose rows should not; empty for all"""
    why: str


def obstacles_between(runs: Mapping[str, RunRecord]) -> list[Obstacle]:
    """Other data, other attacked classes, other images of each, other evaluation models; what a record should say and
    does not is another."""
    obstacles = []
    for (a, first), (b, second) in itertools.combinations(runs.items(), 2):
        both = [name for name in _datasets(first) if name in _datasets(second)]
        pair = frozenset((a, b))
        if not both:
            sets = f"{a} is of {', '.join(_datasets(first))}, {b} of {', '.join(_datasets(second))}"
            obstacles.append(Obstacle(pair, "", f"other data: {sets}"))
        for name in both:
            where = f" of {name}" if len(both) > 1 else ""
            for field_name, read in (
                ("data", _fingerprint),
                ("attacked classes", _classes),
                ("images a class", _images),
                ("evaluation models", _evaluation_models),
            ):
                one, other = read(first, name), read(second, name)
                scored = field_name == "data" or (_images(first, name) and _images(second, name))
                if scored and (one != other or not one):
                    why = f"other {field_name}{where}: {a} has {one or 'none'}, {b} has {other or 'none'}"
                    why = why if one or other else f"neither record names its {field_name}{where}: {a}, {b}"
                    obstacles.append(Obstacle(pair, name, why))
    return obstacles


def _datasets(record: RunRecord) -> list[str]:
    return list(dict.fromkeys(cell.dataset for cell in record.cells))


def _models(record: RunRecord) -> list[str]:
    """By name, and those of users' files with the source that they had."""
    sources = {plugin.name: plugin.source[:12] for plugin in record.plugins if plugin.kind == "model"}
    models = dict.fromkeys(cell.model for cell in record.cells if cell.defense)
    return [f"{model} ({source})" if (source := sources.get(model)) else model for model in models]


def _fingerprint(record: RunRecord, dataset: str) -> str:
    return next((info.fingerprint[:12] for info in record.datasets if info.name == dataset), "")


def _images(record: RunRecord, dataset: str) -> str:
    """Images that attacks made of each class."""
    return ", ".join(map(str, sorted({score.n for score in _scores(record, dataset)})))


def _classes(record: RunRecord, dataset: str) -> str:
    """How many classes attacks drew: which ones follows from that."""
    return str(len({score.target for score in _scores(record, dataset)}) or "")


def _scores(record: RunRecord, dataset: str) -> list[ClassScore]:
    kind = compared_kind()
    headlines = {kind.headline_of(row).metric for row in record.rows if row.leakage == kind.name}
    return [
        score
        for cell in record.cells
        if cell.dataset == dataset and cell.defense and cell.attack and not cell.of
        for score in cell.classes
        if score.metric in headlines
    ]


def _evaluation_models(record: RunRecord, dataset: str) -> str:
    kind = compared_kind()
    keys = {
        key[:12]
        for cell in record.cells
        if cell.dataset == dataset
        for role, key in cell.artifacts.items()
        if kind.is_evaluation_model(role)
    }
    # once they answered with one of all classes, also where few were attacked
    votes = [cell.votes for cell in record.cells if cell.dataset == dataset and cell.votes]
    among = {f"among {one.among} classes" for one in votes if one.among and one.among > len(one.classes)}
    return ", ".join([*sorted(keys), *sorted(among)])


def differing(
    runs: Mapping[str, RunRecord], entries: Sequence[Entry], attacks: Mapping[str, Mapping[str, Any]]
) -> list[Setting]:
    """What is not the same everywhere: between runs, between rows of one plugin, between settings of one attack."""
    settings_that_differ = []
    between: dict[str, dict[str, str]] = {
        "seeds": {name: ", ".join(map(str, sorted({c.seed for c in r.cells}))) for name, r in runs.items()},
        "models": {name: ", ".join(_models(record)) for name, record in runs.items()},
        "protocol": {name: record.protocol for name, record in runs.items()},
        "complete": {name: "yes" if record.complete else "no" for name, record in runs.items()},
    }
    for key in dict.fromkeys(key for record in runs.values() for key in record.environment):
        between[key] = {name: record.environment.get(key, "") for name, record in runs.items()}
    for key in Environment.model_fields:
        if key != "artifacts":
            between[f"artifacts' {key}"] = {
                name: ", ".join(sorted({str(getattr(one, key)) for one in record.environments}))
                for name, record in runs.items()
            }
    settings_that_differ += [Setting(name=field_name, values=values) for field_name, values in between.items()]
    for plugin, same in grouped_by(entries, lambda entry: f"{entry.first.dataset} {entry.first.defense_name}").items():
        settings = {entry.label: defense_settings(entry.first) for entry in same}
        settings_that_differ += _unlike(plugin.partition(" ")[2], settings)
    plugins = {label: next(iter(label.split("["))) for label in attacks}
    for plugin in dict.fromkeys(plugins.values()):
        settings_that_differ += _unlike(
            plugin, {label: values for label, values in attacks.items() if plugins[label] == plugin}
        )
    return [setting for setting in settings_that_differ if len(set(setting.values.values())) > 1]


def _unlike(plugin: str, settings: Mapping[str, Mapping[str, Any]]) -> list[Setting]:
    keys = dict.fromkeys(key for one in settings.values() for key in one)
    return [
        Setting(
            name=key if "." in key else f"{plugin}: {key}",
            values={label: _plain(one.get(key)) for label, one in settings.items()},
        )
        for key in keys
    ]


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, sort_keys=True, default=str)
