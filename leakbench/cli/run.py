"""``leakbench run``: a grid of defences against attacks."""

from __future__ import annotations

import json
import math
import shlex
import signal
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leakbench.cli.completion import (
    defense_names,
    protocol_names,
    several,
    starting,
)
from leakbench.cli.options import (
    CacheOption,
    DataOption,
    FailIfOption,
    FeaturesOption,
    InceptionOption,
    JsonOption,
    LocalCacheOption,
    checked,
    parsed_settings,
)
from leakbench.cli.run_options import (
    AddressOption,
    AnnOption,
    AttackOption,
    ClassesOption,
    ControlsOption,
    DatasetOption,
    DeviceOption,
    DryRunOption,
    ExecutorOption,
    ImagesPerClassOption,
    IsolateOption,
    JobsOption,
    JudgesOption,
    MeanOption,
    MetricOption,
    ModelOption,
    NullNetworksOption,
    OutOption,
    PrecisionOption,
    PresetOption,
    PublicOption,
    QuietOption,
    SettingsOption,
    StdOption,
    TimestepsOption,
    WeightsOption,
)
from leakbench.cli.terminal import echo, echo_rows, echo_table, echo_wrapped
from leakbench.errors import UnknownName, UsageError
from leakbench.paths import checked_path

if TYPE_CHECKING:
    from leakbench.bench.backends import Backend
    from leakbench.bench.comparison import Comparison
    from leakbench.bench.conditions import Condition
    from leakbench.bench.grid import GridConfig
    from leakbench.records import AttackRow, RecordFiles, RunRecord, Verdict

# options that are not part of the grid and may still stand in --config
_ELSEWHERE = {
    "out": str, "device": str, "jobs": int, "cache": str, "data": str, "inception": str, "features": str,
    "local_cache": str, "protocol": str, "weights": str, "mean": str, "std": str, "executor": str,
    "address": str,
}  # fmt: skip
_WORDS = {str: "a text", int: "a number"}


def run(
    context: typer.Context,
    defense: Annotated[
        list[str] | None,
        typer.Option("--defense", "-d", metavar="NAMES", help="Defences: names or path/to/file.py:Class. Repeat, or separate by commas.",
                     autocompletion=several(defense_names), show_default=False),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option("--suite", metavar="NAME", help="A set of grids in place of --defense: paper computes the PrivateSNN paper's Tables 1-5 "
                     "and Figures 5 and 6 on any data set, privacy its Table 1 with both leaks measured, of every defence. Default preset: standard for the built-in small grey images, paper (made for a GPU) for others; attacks: reconversion,direct,auto for paper, auto,auto_mia for privacy.",
                     autocompletion=starting(lambda: ["paper", "privacy"]), show_default=False),
    ] = None,
    attack: AttackOption = None,
    metric: MetricOption = None,
    dataset: DatasetOption = None,
    model: ModelOption = None,
    settings: SettingsOption = None,
    timesteps: TimestepsOption = None,
    preset: PresetOption = None,
    protocol: Annotated[
        str | None, typer.Option("--protocol", metavar="NAME", help="Run by a protocol, whose name the numbers then bear: it sets data set, attack, preset and seeds. What is given otherwise "
                                 "drops the name. See leakbench list protocols.", autocompletion=starting(protocol_names), show_default=False)
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", metavar="NUMBER", help="Number of seeds; everything is repeated with each. 1 can show that a network leaks, 3 can name the classes, 4 can show that a defence resists. Default: 1.", show_default=False)
    ] = None,
    images_per_class: ImagesPerClassOption = None,
    classes: ClassesOption = None,
    controls: ControlsOption = None,
    null_networks: NullNetworksOption = None,
    ann: AnnOption = None,
    weights: WeightsOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    judges: JudgesOption = None,
    public: PublicOption = None,
    data: DataOption = None,
    inception: InceptionOption = None,
    features: FeaturesOption = None,
    out: OutOption = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="TOML file with these options by the same names; options given here win. Plugin files that "
                                  "it names are run.", show_default=False, callback=checked)
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out; needs no other option but those that said where files lie, as --cache or --features.")
    ] = False,
    trust_plugins: Annotated[
        bool, typer.Option("--trust-plugins", help="With --resume: run the plugin files (file.py:attribute) that the folder names. Look at them first: "
                           "they are programs, and the folder may be somebody else's.")
    ] = False,
    isolate: IsolateOption = True,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    executor: ExecutorOption = None,
    address: AddressOption = None,
    jobs: JobsOption = None,
    cache: CacheOption = None,
    local_cache: LocalCacheOption = None,
    dry_run: DryRunOption = False,
    fail_if: FailIfOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:  # fmt: skip
    """Run defences against attacks and write a report.

    Each defence protects the same trained network, each attack reconstructs images of the classes from each protected
    network, and independent evaluation models classify these images. The unprotected ANN and its conversion, an
    untrained network, noise and real images are added as controls. Results are cached: the same command continues an
    interrupted run.

    `leakbench run --defense privatesnn --attack auto,auto_mia --seeds 4`

    `leakbench run -d han2020,privatesnn --attack all --set privatesnn.epochs=5,20`

    `leakbench run -d rueckauer2017,bu2022 --attack none --timesteps 8,16,32,64`

    `leakbench run --suite paper --dataset fashion-mnist`

    `leakbench run -d privatesnn --protocol leakbench-v2-digits`

    How long that takes: --dry-run. A run above half an hour says so when it starts.

    Exit status: 0, or 1 when a cell failed (the report is written all the same), or 2 for wrong input, or 3 when a
    --fail-if holds and no cell failed, or 130 when interrupted (the same command goes on).
    """
    options = _read_config(config) if config else {}
    gates = [*_texts(options.pop("fail_if", [])), *(fail_if or ())]
    elsewhere = {name: options.pop(name) for name in _ELSEWHERE if name in options}
    given = {
        "suite": suite,
        "defense": split("defense", defense),
        "attack": split("attack", attack),
        "metric": split("metric", metric),
        "dataset": split("dataset", dataset),
        "model": split("model", model),
        "timesteps": split("timesteps", timesteps),
        "seeds": seeds,
        "images_per_class": images_per_class,
        "classes": classes,
        "preset": preset,
        "precision": precision,
        "ann": ann,
        "judges": str(judges) if judges else None,
        "public": public,
        "controls": controls,
        "null_networks": null_networks,
    }
    options |= {name: value for name, value in given.items() if value is not None}
    if settings:
        before = options.get("set", {})
        if not isinstance(before, dict):
            raise UsageError(f"--config: set must be a table of plugin.param = value, got {before!r}")
        options["set"] = {**before, **parsed_settings(settings)}
    for name, value in elsewhere.items():
        if type(value) is not _ELSEWHERE[name]:  # a bool is an int
            raise UsageError(f"--config: {name} must be {_WORDS[_ELSEWHERE[name]]}, got {value!r}")
    out = out or _path(elsewhere, "out")
    jobs = jobs if jobs is not None else elsewhere.get("jobs")

    from leakbench.bench import conditions
    from leakbench.bench.backends import LOCAL, backend_named
    from leakbench.bench.run_folder import read_grid
    from leakbench.session import run as session
    from leakbench.session.anns import OwnAnn, with_own_ann
    from leakbench.session.answers import check_ann

    gate = [conditions.parse(text) for text in gates]
    named = elsewhere.get("protocol") if protocol is None else protocol
    if named == "":
        raise UsageError("--protocol: got nothing: give its name, or leave it out")
    if resume:
        if out is None:
            raise UsageError("--resume needs --out: the folder of the run that is to go on")
        network = {"weights": weights, "mean": mean, "std": std}  # the run's folder has what they made
        of_network = [name for name, one in network.items() if one is not None]
        if known := [*options, *(["protocol"] if named else []), *of_network]:
            raise UsageError("--resume takes the grid from --out: leave out " + ", ".join(map(_option, known)))
        grid = read_grid(out)
        if not trust_plugins:
            _ask_for_trust(grid, out)
    else:
        grid, departures = session.grid_of(options, named)
        for departure in departures:
            echo(f"leakbench: {departure}", err=True)
    weights, mean, std = (
        weights or _path(elsewhere, "weights"),
        mean or elsewhere.get("mean"),
        std or elsewhere.get("std"),
    )
    own = OwnAnn(weights, mean, std)
    cache, data = cache or _path(elsewhere, "cache"), data or _path(elsewhere, "data")
    where = {
        "cache": cache,
        "local_cache": local_cache or _path(elsewhere, "local_cache"),
        "data": data,
        "inception": inception or _path(elsewhere, "inception"),
        "features": features or _path(elsewhere, "features"),
    }
    if resume and out is not None:
        _ask_for_files(out, where)
    backend = context.with_resource(
        backend_named(
            executor or elsewhere.get("executor", LOCAL),
            address or elsewhere.get("address"),
            device or elsewhere.get("device", "auto"),
        )
    )
    secret = own.files(grid.ann)
    grid = with_own_ann(grid, own, data, cache)
    if not dry_run:
        check_ann(grid, data, backend.device)
    carry_out(
        context, grid, out or session.default_folder(grid), where, backend, isolate, jobs, gate,
        secret=secret, dry_run=dry_run, as_json=as_json, quiet=quiet,
    )  # fmt: skip


def carry_out(
    context: typer.Context,
    grid: GridConfig,
    folder: Path,
    where: Mapping[str, Any],
    backend: Backend,
    wanted: bool,
    jobs: int | None,
    gate: Sequence[Condition],
    *,
    secret: Sequence[Path] = (),
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """A grid from here on: its settings (``where``), what computes it, whether plugins are isolated (``wanted``) and must not read
    ``secret`` files, conditions to fail at."""
    from leakbench.bench import conditions
    from leakbench.bench.comparison import compare
    from leakbench.bench.run_folder import first_command, holds_run
    from leakbench.bench.suites import cells_of, check_used
    from leakbench.cli.comparison_text import print_failures, print_rankings
    from leakbench.cli.dry_run import print_estimate
    from leakbench.leakage import compared_kind
    from leakbench.session import run as session
    from leakbench.session.estimate import say_if_long
    from leakbench.session.progress import reporter

    run_settings = session.settings_of(**where, device=backend.device, grid=grid)
    if dry_run and as_json:
        raise UsageError("--json: a dry run has no results: leave it out")
    run_settings = context.with_resource(session.isolated(wanted, grid, run_settings, folder, secret))
    cells = cells_of(grid)
    conditions.check_planned(gate, cells)
    if not holds_run(folder, grid):
        check_used(grid, cells)
    workers = backend.workers(cells, run_settings, jobs)
    if dry_run:
        print_estimate(cells, run_settings, workers)
        return
    if wanted:
        for name, how in session.not_isolated(cells).items():
            echo(f"leakbench: {name} is {how}", err=True)
    told = () if quiet else say_if_long(cells, run_settings, workers)
    with reporter(quiet, told, workers) as progress, terminated_as_interrupted():
        try:
            command = shlex.join(["leakbench", *sys.argv[1:]])
            if "--resume" in sys.argv:  # that does not say what the run is
                command = first_command(folder) or command
            record = session.run(grid, cells, run_settings, folder, jobs, command, progress, backend.executor)
        except KeyboardInterrupt:
            _say_if_beside(folder)
            line = "leakbench: interrupted; what was computed is kept: the same command goes on from here"
            typer.echo(line, err=True)
            raise typer.Exit(130) from None
    page = folder / _say_if_beside(folder).page
    failed = sum(cell.status == "failed" for cell in record.cells)
    compared = compare({folder.name: record})
    failures = conditions.failures(gate, compared.defenses)
    if as_json:
        verdicts = [_verdict_facts(record, verdict) for verdict in record.verdicts]
        summary = {
            "run": str(folder),
            "protocol": record.protocol,
            "report": str(page),
            "cells": len(record.cells),
            "failed": failed,
            "accuracy": {
                one.label: value.model_dump(exclude={"metric"})
                for one in compared.defenses
                if (value := one.value("accuracy"))
            },
        }
        typer.echo(json.dumps(summary | {"verdicts": verdicts, "failures": [failure.line for failure in failures]}))
    else:
        if record.protocol:
            echo(f"protocol: {record.protocol}", bold=True)
        _summary(record)
        if not record.verdicts:
            _print_accuracy(compared)
        if sum(verdict.leakage == compared_kind().name for verdict in record.verdicts) > 1:
            print_rankings(compared)
        echo(f"report: {page}")
    print_failures(failures)
    if failed:
        typer.echo(f"leakbench: {failed} of {len(record.cells)} cells failed: the report says why", err=True)
        raise typer.Exit(1)
    if failures:
        raise typer.Exit(3)


_AGAIN = 60.0
"""seconds in which another SIGTERM says no more than the first"""


@contextmanager
def terminated_as_interrupted() -> Iterator[Callable[[], bool]]:
    """SIGTERM, by which batch systems and containers end a run, is treated as Ctrl-C is: the record is written.

    Gives a function that says whether it came: what it interrupts, as an import, may fail with another error for it.
    """

    last = -math.inf

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < _AGAIN:  # many send it twice, and the record is still to be written
            return
        last = now
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield lambda: last > -math.inf
    finally:
        signal.signal(signal.SIGTERM, before)


def _say_if_beside(folder: Path) -> RecordFiles:
    """The newest record of the folder, and a line where that is not results.json."""
    from leakbench.bench.run_folder import records_in
    from leakbench.records import COMPLETE

    newest, *older = records_in(folder) or [COMPLETE]
    if older:
        kept = f"leakbench: the record of a more complete run is kept ({COMPLETE.record})"
        echo(f"{kept}: this one is in {newest.record}, its report in {folder / newest.page}", err=True)
    return newest


def _all_invalid(record: RunRecord, verdict: Verdict) -> list[AttackRow]:
    """The attacks on a defence, where none of them is valid: why no conclusion follows from what they show."""
    place = (verdict.dataset, verdict.model, verdict.defense, verdict.leakage)
    rows = [row for row in record.rows if (row.dataset, row.model, row.defense, row.leakage) == place]
    return rows if all(row.validity != "valid" for row in rows) else []


def _summary(record: RunRecord) -> None:
    """The verdicts in the terminal, and for each kind of leak the grid of leakage indices."""
    from leakbench.leakage import leakage_kind
    from leakbench.reports.conclusion import missing_lines, settling
    from leakbench.reports.first_screen import sentences

    more: dict[str, dict[str, None]] = {}
    for one in sentences(record):
        echo_wrapped(f"{one.subject}: ", one.outcome, f". {one.text}")
        echo_rows([["also:", line] for line in missing_lines(one.verdict)[1:]])
        echo_rows([[f"{row.attack}:", f"{row.validity}: {row.reason}"] for row in _all_invalid(record, one.verdict)])
        more.setdefault(settling(record, one.verdict), {})[one.verdict.defense] = None
    whole = len(more) == 1
    more.pop("", None)
    for command, defenses in more.items():  # each once, and on one line, to be copied
        echo("to know more" + ("" if whole else f" of {', '.join(defenses)}") + f": {command}")
    places = {(row.dataset, row.model) for row in record.rows}
    for dataset, model, leakage in dict.fromkeys((row.dataset, row.model, row.leakage) for row in record.rows):
        where = f", {dataset} {model}" if len(places) > 1 else ""
        echo(f"leakage index, {leakage_kind(leakage).title}{where}", bold=True)
        rows = [row for row in record.rows if (row.dataset, row.model, row.leakage) == (dataset, model, leakage)]
        # a line for each of what there is more of: most grids have many attacks and few defences, a suite the reverse
        sides = {side: list(dict.fromkeys(getattr(row, side) for row in rows)) for side in ("attack", "defense")}
        down, across = sorted(sides, key=lambda side: -len(sides[side]))
        cell_texts = {(getattr(row, down), getattr(row, across)): _index(row) for row in rows}
        echo_table(
            [down, *sides[across]],
            [[line, *(cell_texts.get((line, other), "–") for other in sides[across])] for line in sides[down]],
        )


def _verdict_facts(record: RunRecord, verdict: Verdict) -> dict[str, Any]:
    """What --json says of a verdict: classes by name, and the command that would tell more."""
    from leakbench.reports.conclusion import class_texts, settling
    from leakbench.reports.summary import class_names

    shown = {"dataset", "model", "defense", "leakage", "outcome", "attack", "p", "networks", "missing"}
    index = verdict.index.model_dump(include={"metric", "value", "low", "high", "n"}) if verdict.index else None
    named = class_texts(verdict.named, class_names(record, verdict.dataset))
    return verdict.model_dump(include=shown) | {"index": index, "named": named, "settle": settling(record, verdict)}


def _print_accuracy(compared: Comparison) -> None:
    """Accuracy and energy, of a run that attacks nothing."""
    from leakbench.bench.comparison.records import ENERGY
    from leakbench.reports.ranking import value_text
    from leakbench.reports.vocabulary import Vocabulary

    vocabulary = Vocabulary(compared.metrics)
    columns = {"accuracy": "accuracy", "ann_accuracy": "its ANN's", ENERGY: "energy ratio"}
    rows = [[one.label, *(value_text(one.value(name), vocabulary) for name in columns)] for one in compared.defenses]
    if rows:
        echo_table(["defence", *columns.values()], rows)


def _index(row: AttackRow) -> str:
    """The index of its kind's headline metric and, where the row is not valid, why. That no attack reaches its target on
    a network that knows nothing is as it should be."""
    from leakbench.leakage import leakage_kind

    kind = leakage_kind(row.leakage)
    index = kind.row_line(row)
    expected = row.defense in kind.nulls and row.validity == "optimisation failure"
    return index if expected or row.validity == "valid" else f"{index} ({row.validity})"


def _ask_for_files(out: Path, where: Mapping[str, Path | None]) -> None:
    """UsageError where it was said of the run in ``out`` where files lie, and is not said now.

    A folder may come from anyone, so that what it names is not read or written without the user's word.
    """
    from leakbench.bench.run_folder import placed_in

    missing = [_option(name) for name in placed_in(out) if name in where and where[name] is None]
    if missing:
        raise UsageError(
            f"--resume: the run in {str(out)!r} was started with {', '.join(missing)}: give {'them' if missing[1:] else 'it'} "
            "again, or values would be lost or computed anew"
        )


def _option(name: str) -> str:
    """As it is typed."""
    return "--no-controls" if name == "controls" else f"--{name.replace('_', '-')}"


def _ask_for_trust(grid: GridConfig, out: Path) -> None:
    """UsageError unless the user agrees to run the plugin files that a folder's grid names, if it names any."""
    # a folder of images may have such a name; of anything else it is a file all the same
    data = [name for name in (*grid.dataset, grid.public or "") if not name.startswith("folder:")]
    targets = (*grid.defense, *grid.attack, *grid.metric, *data, *grid.model, grid.ann or "")
    files = ", ".join(target for target in targets if ".py:" in target)
    if not files:
        return
    where = f"--resume: {str(out / 'grid.json')!r} names plugin files, which are programs: {files}"
    if sys.stdin.isatty() and sys.stderr.isatty():
        echo(f"leakbench: {where}", err=True)
        if typer.confirm("Run them?", err=True):
            return
    raise UsageError(f"{where}: look at them, then add --trust-plugins")


def _read_config(path: Path) -> dict[str, Any]:
    from leakbench.bench.grid import GridConfig

    try:
        with path.open("rb") as file:
            read = tomllib.load(file)
    except OSError as error:
        raise UsageError(f"--config: can't read {str(path)!r}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config: {str(path)!r} is no valid TOML: {error}") from None
    except RecursionError:
        raise UsageError(f"--config: {str(path)!r} is nested too deeply") from None
    options = {name.replace("-", "_"): value for name, value in read.items()}
    if twice := [name for name, count in Counter(name.replace("-", "_") for name in read).items() if count > 1]:
        raise UsageError(f"--config: {twice[0]} stands in {str(path)!r} twice, with - and with _: leave one out")
    known = (*GridConfig.model_fields, "fail_if", *_ELSEWHERE)
    if "isolate" in options:  # a file that somebody else wrote must not switch it off for the plugins that it names
        raise UsageError("--config: isolate is no option of a file: give --no-isolate with the command")
    for name in options:
        if name not in known:
            raise UnknownName(f"option in {str(path)!r}:", name, known)
    return options


def _texts(given: Any) -> list[str]:
    """--fail-if in --config: one condition or a list of them."""
    texts = given if isinstance(given, list) else [given]
    if not all(isinstance(text, str) for text in texts):
        raise UsageError(f"--config: fail_if must be a list of texts, got {given!r}")
    return texts


def split(option: str, values: list[str] | None) -> list[str] | None:
    """The names that an option was given, also with commas between them; UsageError where there is none."""
    if not values:
        return None
    parts = [part for value in values for part in value.split(",") if part]
    if not parts:
        raise UsageError(f"--{option}: got nothing: give a name or a number, or leave it out")
    return parts


def _path(options: dict[str, Any], name: str) -> Path | None:
    """A path from --config."""
    return checked_path(Path(str(options[name])), f"--config: {name}") if name in options else None
