"""The command line, one file a verb. Nothing here imports torch before a command needs it."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated

import typer

from leakbench import __version__
from leakbench.cli import audit, cache, check, compare, doctor, export, info, leaderboard, list_, new, report, run
from leakbench.cli.completion import words_of_bash
from leakbench.cli.run_options import GroupedHelp
from leakbench.cli.terminal import LineFormatter, Once, echo
from leakbench.errors import LeakBenchError

app = typer.Typer(
    name="leakbench",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="What does a spiking neural network give away of its training data and classes, and what does protection "
    "cost?\n\nStart with:  `leakbench run --defense privatesnn --attack auto,auto_mia`",
)
app.command("run", cls=GroupedHelp)(run.run)
app.command("audit", cls=GroupedHelp)(audit.audit)
app.command("list")(list_.list_names)
app.command("info")(info.info)
app.command("compare")(compare.compare)
app.command("report")(report.report)
app.command("export")(export.export)
app.command("new")(new.new)
app.command("check")(check.check)
app.command("leaderboard")(leaderboard.leaderboard)
app.command("doctor")(doctor.doctor)
app.add_typer(cache.app, name="cache")

# typer's own error for a wrong command line; not every version of typer gets it from the package click
_CommandLineError: type[Exception] = typer.BadParameter.__mro__[1]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"leakbench {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options that go before the command."""


def main() -> None:
    """Run a command; an error is one line (exit status 2, or 1 for our own mistakes)."""
    debug = "--debug" in sys.argv[1:]
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter("leakbench: warning: %(message)s"))
    handler.addFilter(Once())
    logging.getLogger("leakbench").addHandler(handler)
    # read by OpenMP when torch is imported: threads that wait spin otherwise, and beside any other busy process
    # (or another of --jobs) that makes training several times slower; a very short spin keeps small tensors fast
    # (benchmarks/openmp.py)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        with words_of_bash():
            sys.exit(app(standalone_mode=False))
    except _CommandLineError as error:
        message = error.format_message()  # type: ignore[attr-defined]
        if message:  # without arguments the help is all there is to say
            echo(f"leakbench: {message} (see --help)", err=True)
        sys.exit(2)
    except typer.Abort:  # Ctrl-C
        sys.exit(130)
    except LeakBenchError as error:
        if debug:
            raise
        echo(f"leakbench: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        line = str(error).splitlines()[0] if str(error) else ""
        echo(f"leakbench: {type(error).__name__}: {line} (--debug before the command shows where)", err=True)
        sys.exit(1)
