"""``leakbench cache``: what the store holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from leakbench.cli.options import CacheOption, checked_days
from leakbench.cli.terminal import echo
from leakbench.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

app = typer.Typer(help="Show and clear the store of artifacts.", no_args_is_help=True)


@app.command("ls")
def ls(cache: CacheOption = None) -> None:
    """List the kinds of artifacts in the store, and beside them decoded data sets and your own networks (--snn, --ann),
    with their number and size."""
    from leakbench.data.decoded import decoded_copies
    from leakbench.paths import kept_networks
    from leakbench.runtime.store import Store

    store = Store(_root(cache))
    totals: dict[str, tuple[int, int]] = {}
    for entry in store.entries():
        count, size = totals.get(entry.stage, (0, 0))
        totals[entry.stage] = (count + 1, size + entry.bytes)
    beside = {"decoded data sets": decoded_copies(store.root), "your own networks": kept_networks(store.root)}
    for what, files in beside.items():
        if files:
            totals[what] = len(files), sum(status.st_size for status in files.values())
    echo(store.root)
    for stage, (count, size) in sorted(totals.items()):
        echo(f"  {stage:<20} {count:>6}  {human(size):>10}")
    count, size = (sum(column) for column in zip((0, 0), *totals.values(), strict=True))
    typer.echo(f"  {'all':<20} {count:>6}  {human(size):>10}")


@app.command("prune")
def prune(
    older_than: Annotated[
        float,
        typer.Option(
            "--older-than", callback=checked_days, help="Days since an artifact was last used; 0 removes all."
        ),
    ] = 30,
    cache: CacheOption = None,
) -> None:
    """Remove artifacts, decoded data sets and copies of your own networks that were not used for a while.

    All but the networks are made again when needed: these by the command that was given them (--snn, --ann), and a run
    that is under way or resumed stops without its own. Each start of a run counts as a use."""
    from leakbench.data.decoded import prune_copies
    from leakbench.paths import kept_networks, remove_unused
    from leakbench.runtime.store import Store

    root = _root(cache)
    networks = remove_unused(kept_networks(root), older_than)
    removed = Store(root).prune(older_than), prune_copies(root, older_than), networks
    count, size = (sum(column) for column in zip(*removed, strict=True))
    typer.echo(f"removed {count} artifacts, {human(size)}")


def _root(cache: Path | None) -> Path:
    """The store's folder; UsageError where one is named and not there: neither command has anything to do there."""
    from leakbench.paths import default_cache

    if cache is not None and not cache.exists():
        raise UsageError(f"--cache: no such folder {str(cache)!r}")
    return cache or default_cache()


def human(size: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
