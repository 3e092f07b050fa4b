"""``leakbench export``: a run or a comparison as a table, as an entry of a leaderboard, or as one file to pass on."""

from __future__ import annotations

import io
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leakbench.cli.completion import of_run
from leakbench.cli.options import CacheOption, checked
from leakbench.errors import NotApplicable, UsageError, printable

if TYPE_CHECKING:
    import pandas as pd

    from leakbench.bench.comparison import Comparison
    from leakbench.records import RunRecord


class NetworkFormat(StrEnum):
    """What a network is written as."""

    nir = "nir"
    safetensors = "safetensors"


class Shape(StrEnum):
    """How a table is laid out."""

    wide = "wide"
    long = "long"


def _of_defenses(record: RunRecord | Comparison, what: str) -> list[str]:
    """The defences of a run, or what attacks them."""
    cells = getattr(record, "cells", [])  # a comparison has none
    return [name for c in cells if c.defense and not c.control and not c.of and (name := getattr(c, what))]


def export(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|COMPARISON",
            help="The folder of a run (holds results.json), its bundle (.zip), or the folder of a comparison "
            "(comparison.json).",
            show_default=False,
            callback=checked,
        ),
    ],
    latex: Annotated[bool, typer.Option("--latex", help="One table for a paper, with booktabs.")] = False,
    csv: Annotated[
        Shape | None,
        typer.Option(
            "--csv",
            help="long: one row a measured value, or a pair of compared defences. wide: one row a defence, attack and "
            "seed with its metrics as columns, or a compared defence.",
            show_default=False,
        ),
    ] = None,
    parquet: Annotated[
        Path | None,
        typer.Option(
            "--parquet",
            metavar="FILE",
            help="The long table with its types. Texts are not escaped, while CSV protects spreadsheets from formulas.",
            show_default=False,
            callback=checked,
        ),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            metavar="FILE.zip",
            help="The run in one file, to pass on: record, grid, report, pictures and CSV. compare, report and export "
            "take it in place of the folder.",
            show_default=False,
            callback=checked,
        ),
    ] = None,
    entry: Annotated[
        bool,
        typer.Option(
            "--entry",
            help="An entry of a leaderboard (JSON): a defence of a run that follows a protocol, or an attack.",
        ),
    ] = False,
    defense: Annotated[
        str | None,
        typer.Option(
            "--defense",
            "-d",
            metavar="NAME",
            help="The entry's defence, as the run calls it.",
            autocompletion=of_run(lambda record: _of_defenses(record, "defense")),
        ),
    ] = None,
    attack: Annotated[
        str | None,
        typer.Option(
            "--attack",
            "-a",
            metavar="NAME",
            help="The entry is of this attack of the run, which breaks --breaks.",
            autocompletion=of_run(lambda record: _of_defenses(record, "attack")),
        ),
    ] = None,
    breaks: Annotated[
        Path | None,
        typer.Option(
            "--breaks",
            metavar="ENTRY.json",
            help="The entry of the defence that --attack gets more out of.",
            show_default=False,
            callback=checked,
        ),
    ] = None,
    link: Annotated[
        list[str] | None,
        typer.Option(
            "--link", metavar="KIND=URL", help="Of the entry: code=https://... or paper=https://...", show_default=False
        ),
    ] = None,
    snn: Annotated[
        str | None,
        typer.Option(
            "--snn",
            metavar="NAME",
            help="The network that this defence of the run deployed, as leakbench audit takes it, into --out.",
            autocompletion=of_run(lambda record: _of_defenses(record, "defense")),
            show_default=False,
        ),
    ] = None,
    network_format: Annotated[
        NetworkFormat | None,
        typer.Option(
            "--format",
            help="Of --snn: nir, with what NIR can't hold in a .json beside it, or safetensors. Default: by the ending "
            "of --out.",
            show_default=False,
        ),
    ] = None,
    judges: Annotated[
        bool,
        typer.Option("--judges", help="The evaluation models of the run into the folder --out, for run --judges."),
    ] = False,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="NUMBER", help="Of --snn: of which seed. Default: 0.")
    ] = None,
    cache: CacheOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Where LaTeX, CSV, the entry, the network or the evaluation models (a folder) go. Default: standard "
            "output, but for networks and models.",
            show_default=False,
            callback=checked,
        ),
    ] = None,
) -> None:
    """Write a run or a comparison in another form, without computing anything: a table (--latex, --csv, --parquet), an
    entry of a leaderboard (--entry), the whole run in one file (--bundle), a network that it made (--snn), or its
    evaluation models (--judges).

    `leakbench export runs/mine --entry --link paper=https://arxiv.org/abs/2104.03414 --out leaderboard/mine.json`

    `leakbench export runs/mine --entry --attack new --breaks leaderboard/theirs.json --out leaderboard/new.json`

    `leakbench export runs/mine --bundle mine.zip`

    `leakbench export runs/mine --snn privatesnn --out privatesnn.safetensors`

    `leakbench export runs/mine --judges --out judges`
    """
    if latex + entry + judges + sum(one is not None for one in (csv, parquet, bundle, snn)) != 1:
        raise UsageError(
            "export writes one format: give one of --latex, --csv wide|long and --parquet FILE, or --entry, or "
            "--bundle FILE.zip, or --snn NAME, or --judges"
        )
    if snn is not None and out is None:
        raise UsageError("--snn writes a file: give --out FILE.safetensors")
    if judges and out is None:
        raise UsageError("--judges writes a folder: give --out FOLDER")
    for option, path in (("--parquet", parquet), ("--bundle", bundle)):
        if path and out:
            raise UsageError(f"{option} names its file: leave out --out")
    if not entry and (defense or attack or breaks or link):
        raise UsageError("--defense, --attack, --breaks and --link are of an entry: give --entry, too")
    if snn is None and (network_format or seed is not None):
        raise UsageError("--format and --seed are of a network: give --snn, too")
    if cache is not None and snn is None and not judges:
        raise UsageError("--cache is where networks are kept: give --snn or --judges, too")
    if (attack is None) != (breaks is None):
        raise UsageError("--attack NAME and --breaks ENTRY.json go together: which attack breaks which entry")
    from leakbench.bench.bundle import opened
    from leakbench.reports.files import RECORDS, read_either

    beside = None
    if snn is not None and out and out.name and _is_nir(out, network_format):
        from leakbench.foreign.nir import settings_beside

        beside = settings_beside(out)
        if beside == out:
            raise UsageError(f"--out {str(out)!r}: the settings of a NIR file take that name beside it: choose another")
    for path in (parquet, bundle, out, beside):
        if path and path.name in (*RECORDS, "grid.json"):
            raise UsageError(f"{str(path)!r} would take the place of a record: choose another name")
    if snn is not None and out is not None:
        _check_ending(out, network_format)
    if parquet:
        _need_pyarrow()
    with opened(source) as folder:
        if bundle:
            _write_bundle(source, folder, bundle)
            return
        record = read_either(folder)
    if snn is not None and out is not None:
        _write_network(record, source, snn, seed or 0, cache, out, network_format)
    elif judges and out is not None:
        _write_judges(record, source, cache, out)
    elif entry:
        _write_text(_entry(record, source, defense, attack, breaks, link or []), out)
    elif parquet:
        _write_parquet(record, parquet)
    else:
        _write_text(_csv(record, csv) if csv else _latex(record), out)


def _write_bundle(source: Path, folder: Path, out: Path) -> None:
    from leakbench.bench.bundle import is_bundle
    from leakbench.reports.bundle import bundle_run

    if is_bundle(source) or not is_bundle(out):
        wrong = f"{source} is a bundle" if is_bundle(source) else f"--bundle {str(out)!r} does not end with .zip"
        raise UsageError(f"{wrong}: give the folder of a run and a FILE.zip")
    bundle_run(folder, out)


def _check_ending(out: Path, network_format: NetworkFormat | None) -> None:
    """UsageError where a file's ending, by which it is read, says another format than is written."""
    ending = out.suffix.removeprefix(".")
    if network_format and ending != network_format and ending in list(NetworkFormat):
        raise UsageError(f"--out {str(out)!r} would be read as {ending}: with --format {network_format} leave that out")


def _is_nir(out: Path, network_format: NetworkFormat | None) -> bool:
    return (network_format or out.suffix.removeprefix(".")) == NetworkFormat.nir


def _write_network(
    record: RunRecord | Comparison,
    source: Path,
    snn: str,
    seed: int,
    cache: Path | None,
    out: Path,
    network_format: NetworkFormat | None,
) -> None:
    from leakbench.foreign.nir import settings_beside
    from leakbench.foreign.nir_files import nir_and_settings
    from leakbench.models.files import network_bytes
    from leakbench.records import RunRecord
    from leakbench.runtime.files import write_file
    from leakbench.session.networks import deployed_network
    from leakbench.snn import SpikingNetwork

    if not isinstance(record, RunRecord):
        raise UsageError(f"--snn: {source} holds a comparison: give a run, which made networks")
    network = deployed_network(record, snn, seed, cache)
    if not _is_nir(out, network_format):
        write_file(out, network_bytes(network))
        return
    if not isinstance(network, SpikingNetwork):
        raise UsageError(f"--snn {snn}: NIR is of spiking networks, and this one does not spike")
    try:
        content, settings = nir_and_settings(network)
    except NotApplicable as error:
        raise UsageError(f"--snn {snn}: {error}") from None
    write_file(out, content)
    write_file(settings_beside(out), settings.encode())


def _write_judges(record: RunRecord | Comparison, source: Path, cache: Path | None, out: Path) -> None:
    from leakbench.records import RunRecord
    from leakbench.session.judges import export_judges

    if not isinstance(record, RunRecord):
        raise UsageError(f"--judges: {source} holds a comparison: give a run, which has evaluation models")
    export_judges(record, out, cache)


def _entry(
    record: RunRecord | Comparison,
    source: Path,
    defense: str | None,
    attack: str | None,
    breaks: Path | None,
    link: list[str],
) -> str:
    from leakbench.bench.leaderboard.entries import checked_links
    from leakbench.bench.leaderboard.files import defense_file
    from leakbench.bench.leaderboard.submission import attack_entry, defense_entry
    from leakbench.records import RunRecord

    if not isinstance(record, RunRecord):
        raise UsageError(f"--entry: {source} holds a comparison: give a run, which an entry is of")
    links = checked_links(link)
    if attack is None or breaks is None:
        return f"{defense_entry(record, defense, links).model_dump_json(indent=1)}\n"
    before, digest = defense_file(breaks)
    return f"{attack_entry(record, attack, before, digest, defense, links).model_dump_json(indent=1)}\n"


def _write_parquet(record: RunRecord | Comparison, path: Path) -> None:
    from leakbench.runtime.files import write_file

    content = io.BytesIO()
    _long(record).to_parquet(content, engine="pyarrow", index=False)
    write_file(path, content.getvalue())


def _write_text(text: str, out: Path | None) -> None:
    """To the file, else to standard output, where a terminal gets no control characters."""
    from leakbench.runtime.files import write_file

    if out:
        write_file(out, text.encode())
    elif sys.stdout.isatty():
        typer.echo("\n".join(map(printable, text.split("\n"))), nl=False)
    else:
        typer.echo(text.encode(), nl=False)


def _need_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise UsageError("--parquet needs pyarrow: pip install pyarrow") from None


def _long(record: RunRecord | Comparison) -> pd.DataFrame:
    from leakbench.records import RunRecord
    from leakbench.reports import frames

    return frames.long_frame(record) if isinstance(record, RunRecord) else frames.pairs_frame(record)


def _csv(record: RunRecord | Comparison, shape: Shape) -> str:
    from leakbench.records import RunRecord
    from leakbench.reports import comparison_tables, frames, tables

    if shape is Shape.wide:
        wide = frames.wide_frame(record) if isinstance(record, RunRecord) else frames.defenses_frame(record)
        return frames.as_csv(wide)
    return tables.csv_text(record) if isinstance(record, RunRecord) else comparison_tables.csv_text(record)


def _latex(record: RunRecord | Comparison) -> str:
    from leakbench.records import RunRecord
    from leakbench.reports import comparison_tables, tables

    return tables.latex_text(record) if isinstance(record, RunRecord) else comparison_tables.latex_text(record)
