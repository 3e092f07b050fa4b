"""What benchmarks/engine.py measured, as tables."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import typer
from peers import CONTENDERS
from rich import box
from rich.console import Console
from rich.table import Table

TOLERANCE = 1e-3
"""logits this far from the plain loop's, relative to the largest of them, are another computation: no ratio"""


@dataclass
class Record:
    """What was measured of one contender in one mode."""

    network: str
    batch: int
    timesteps: int
    mode: str
    allocator: str
    contender: str
    cpu: list[float] = field(default_factory=list)
    """seconds, one a round, all threads together"""
    wall: list[float] = field(default_factory=list)
    peak: float = math.nan
    """MiB"""
    logits_off: float | None = None
    """largest difference from the plain loop's summed logits, relative to the largest of those; None: not compared"""
    samples_off: float | None = None
    """share of images for which any layer made another number of spikes"""
    gradient_off: float | None = None
    """length of the difference from the plain loop's gradient, relative to that gradient's"""
    error: str = ""

    @property
    def seconds(self) -> float:
        return statistics.median(self.cpu)

    @property
    def valid(self) -> bool:
        """Whether its time may be set against others'."""
        return not self.error and (self.logits_off is None or self.logits_off <= TOLERANCE)


def best_peer(records: Sequence[Record]) -> Record | None:
    peers = [record for record in records if CONTENDERS[record.contender].peer and record.valid]
    return min(peers, key=lambda record: record.seconds, default=None)


class Output:
    """Tables and lines, for the terminal or as Markdown."""

    def __init__(self, markdown: bool) -> None:
        self._console = Console(highlight=False, width=120 if not sys.stdout.isatty() else None)
        self._box = box.MARKDOWN if markdown else box.SIMPLE_HEAD

    def line(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    def table(self, title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """The first column is text, the others are numbers."""
        table = Table(box=self._box)
        for index, name in enumerate(head):
            table.add_column(name, justify="right" if index else "left", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        self.line(f"\n{title}\n")
        self._console.print(table)


def formatted(value: float | None, form: str) -> str:
    return "" if value is None or math.isnan(value) else format(value, form)


def show(records: Sequence[Record], output: Output) -> None:
    """One table: a network, a mode, an allocator."""
    first, best = records[0], best_peer(records)
    rows = []
    for record in records:
        if record.error:
            rows.append([record.contender, "failed"])
            typer.echo(f"{record.contender} failed: {record.error}", err=True)
            continue
        if not record.valid:
            typer.echo(
                f"{record.contender}: logits off by {record.logits_off:.1e} of the largest, more than {TOLERANCE:g}: "
                "it computes something else, so there is no ratio",
                err=True,
            )
        rows.append(
            [
                record.contender,
                f"{record.seconds:.3f}",
                f"{statistics.median(record.wall):.3f}",
                f"{record.seconds / best.seconds:.2f}" if best is not None and record.valid else "refused",
                f"{record.peak:.0f}",
                formatted(record.logits_off, ".0e"),
                formatted(record.samples_off, ".0%"),
                formatted(record.gradient_off, ".0e"),
            ]
        )
    title = (
        f"{first.network}, {first.mode}, batch {first.batch}, T {first.timesteps}, {first.allocator} allocator; "
        f"ratio to {best.contender if best is not None else 'nobody'}"
    )
    head = ["contender", "CPU s", "wall s", "ratio", "peak MiB", "logits off", "samples off", "gradient off"]
    output.table(title, head, rows)


def summarise(tables: Sequence[Sequence[Record]], output: Output) -> None:
    """LeakBench's time over that of the best peer; and where T varies, everyone's time a step."""
    ours = [name for name in CONTENDERS if name.startswith("leakbench")]
    ratios, a_step = [], dict[tuple[str, ...], dict[int, str]]()
    for records in tables:
        best, valid = best_peer(records), {record.contender: record for record in records if record.valid}
        if best is not None and any(name in valid for name in ours):
            of_best = [f"{valid[name].seconds / best.seconds:.2f}" if name in valid else "" for name in ours]
            where = f"{best.network}, {best.mode}, T {best.timesteps}, {best.allocator}"
            ratios.append([where, *of_best, best.contender])
        for record in valid.values():
            line = (record.network, record.mode, record.allocator, record.contender)
            a_step.setdefault(line, {})[record.timesteps] = f"{1000 * record.seconds / record.timesteps:.2f}"
    if ratios:
        output.table("CPU time : that of the best peer", ["", *ours, "best peer"], ratios)
    timesteps = sorted({t for times in a_step.values() for t in times})
    if len(timesteps) > 1:
        rows = [[", ".join(line), *(times.get(t, "") for t in timesteps)] for line, times in a_step.items()]
        output.table("CPU milliseconds a step", ["", *(f"T {t}" for t in timesteps)], rows)
