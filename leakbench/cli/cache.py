"""``leakbench cache``: what the store holds."""

from __future__ import annotations

from typing import Annotated

import typer

from leakbench.cli.options import CacheOption, checked_days
from leakbench.cli.terminal import echo

app = typer.Typer(help="Show and clear the store of artifacts.", no_args_is_help=True)


@app.command("ls")
def ls(cache: CacheOption = None) -> None:
    """List the kinds of artifacts in the store, and decoded data sets beside them, with their number and size."""
    from leakbench.data.decoded import decoded_copies
    from leakbench.paths import default_cache
    from leakbench.runtime.store import Store

    store = Store(cache or default_cache())
    totals: dict[str, tuple[int, int]] = {}
    for entry in store.entries():
        count, size = totals.get(entry.stage, (0, 0))
        totals[entry.stage] = (count + 1, size + entry.bytes)
    copies = decoded_copies(store.root)
    if copies:
        totals["decoded data sets"] = len(copies), sum(status.st_size for status in copies.values())
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
    """Remove artifacts and decoded data sets that were not used for a while. They are computed again when needed."""
    from leakbench.data.decoded import prune_copies
    from leakbench.paths import default_cache
    from leakbench.runtime.store import Store

    root = cache or default_cache()
    removed = Store(root).prune(older_than), prune_copies(root, older_than)
    count, size = (sum(column) for column in zip(*removed, strict=True))
    typer.echo(f"removed {count} artifacts, {human(size)}")


def human(size: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
