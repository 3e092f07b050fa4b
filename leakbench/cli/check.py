"""``leakbench check``: the contract of a plugin, tried in seconds."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from leakbench.cli.completion import SETTABLE, kind_of, model_choices, plugin_names, setting, starting
from leakbench.cli.options import JsonOption, parsed_settings
from leakbench.cli.terminal import echo_rows
from leakbench.errors import PluginError


def check(
    plugin: Annotated[
        str,
        typer.Argument(
            help="A defence, attack or metric: path/to/file.py:Class, whose file is run, or a name.",
            metavar="PLUGIN",
            autocompletion=starting(lambda: plugin_names(SETTABLE)),
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="SETTING",
            help="PLUGIN.PARAMETER=VALUE. Default: the preset quick, of an attack with an effort of 10 at most.",
            autocompletion=setting,
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            metavar="NAME",
            help="Model of the network that is trained on the digits.",
            autocompletion=starting(model_choices),
        ),
    ] = "vgg4",
    isolate: Annotated[
        bool, typer.Option("--isolate/--no-isolate", help="Run it in a process of its own, as a run does.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Try whether a defence, an attack or a metric keeps its contract, on the digits with a small network.

    It is run three times, twice with the same seed. A line for each thing that was tried: ok, note (worth a look), or
    wrong. Nothing is kept. With --json a list of objects with subject, status and text.

    `leakbench check noisy.py:Noisy --set noisy.sigma=0.5`

    Exit status: 0, or 1 when something is wrong, or 2 for wrong input.
    """
    from leakbench.bench.plugin_check import Finding, check_plugin
    from leakbench.cli.run import terminated_as_interrupted
    from leakbench.runtime.plugins import isolating, isolation_of, load_plugin
    from leakbench.runtime.process import fixed_threads, tune_process

    tune_process()
    findings: list[Finding] = []

    def tell(finding: Finding) -> None:
        findings.append(finding)
        if not as_json:  # as it comes: the next may take seconds
            echo_rows([(f"{finding.status:<5}", f"{finding.subject:<14}", finding.text)], margin="")

    with (
        terminated_as_interrupted() as terminated,
        isolation_of(isolate, [], "cpu") as isolation,
        isolating(isolation),
        fixed_threads(1),
    ):
        try:
            kind = kind_of(plugin, load_plugin)
        except PluginError as error:
            tell(Finding("loads", "wrong", str(error)))
        else:
            for finding in check_plugin(kind, plugin, parsed_settings(settings or []), model):
                if terminated():
                    raise KeyboardInterrupt
                tell(finding)
    if as_json:
        typer.echo(json.dumps([finding._asdict() for finding in findings], indent=1))
    if any(finding.status == "wrong" for finding in findings):
        raise typer.Exit(1)
