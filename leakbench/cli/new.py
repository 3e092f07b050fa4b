"""``leakbench new``: the package of a plugin to begin with."""

from __future__ import annotations

import importlib.util
import keyword
import re
import shutil
from pathlib import Path
from typing import Annotated

import typer

from leakbench import registry
from leakbench.cli.completion import SETTABLE, starting
from leakbench.cli.options import checked
from leakbench.cli.terminal import echo
from leakbench.errors import StoreError, UnknownName, UsageError
from leakbench.paths import checked_path

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
"""what Python imports, and a package's name once its _ are -"""


def new(
    kind: Annotated[
        str,
        typer.Argument(
            help=f"One of: {', '.join(SETTABLE)}.", metavar="KIND", autocompletion=starting(lambda: SETTABLE)
        ),
    ],
    name: Annotated[
        str, typer.Argument(help="Name of the plugin, its module and its folder, as in my_noise.", metavar="NAME")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FOLDER",
            help="Folder in which the folder NAME is made. Default: the current one.",
            show_default=False,
            callback=checked,
        ),
    ] = None,
) -> None:
    """Write the package of a defence, an attack or a metric to begin with, a folder that runs and can be published.

    In it are the module with an example that works, its test, a pyproject.toml that makes it known to leakbench where
    it is installed, and a README.md that says how to run, test and ship it.

    `leakbench new defense my_noise`
    """
    if kind not in SETTABLE:
        raise UnknownName("kind", kind, SETTABLE)
    _check_name(name)
    folder = checked_path((out or Path()) / name, "NAME")
    if folder.exists() or folder.is_symlink():
        raise UsageError(f"{str(folder)!r} is there already: choose another name, or another --out")
    _check_free(name)
    files = _filled(kind, name)
    try:
        folder.mkdir(parents=True)
        try:
            for file, text in files.items():
                (folder / file).write_text(text, encoding="utf-8")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)  # half a package would refuse the next try
            raise
    except OSError as error:
        raise StoreError(f"can't write {str(folder)!r}: {error.strerror}") from None
    for file in files:
        echo(folder / file)
    echo(f"try it: leakbench check {folder / f'{name}.py'}:{_class(name)}")


def _check_name(name: str) -> None:
    """UsageError for what neither Python nor package indexes take, or what takes the place of another module."""
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        right = "lower-case letters, digits and single _, a letter first, and no word of Python's, as in my_noise"
        raise UsageError(f"{name!r} can't be the name of a module and a package: {right}")


def _check_free(name: str) -> None:
    """UsageError where a plugin or a module has the name: options would mix them up, and imports find the wrong one."""
    for kind in SETTABLE:
        if name in registry.names(kind):
            entry = registry.entries(kind)[registry.newest(kind, name)]
            raise UsageError(
                f"the name {name!r} is taken by the {kind} {entry.name!r} ({entry.origin}): choose another"
            )
    if importlib.util.find_spec(name) is not None:
        raise UsageError(f"the name {name!r} is that of a Python module that is installed: choose another")


def _filled(kind: str, name: str) -> dict[str, str]:
    """File's name -> its text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    templates = Environment(
        loader=PackageLoader("leakbench.cli"), undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True
    )
    files = {
        "pyproject.toml": "pyproject.toml.j2",
        "README.md": "README.md.j2",
        f"{name}.py": f"{kind}.py.j2",
        f"test_{name}.py": f"test_{kind}.py.j2",
    }
    plural = f"{kind}s"
    words = {
        "kind": kind,
        "group": f"leakbench.{plural}",
        "plural": plural,
        "noun": "defence" if kind == "defense" else kind,
        "name": name,
        "class": _class(name),
        "title": name.replace("_", " ").capitalize(),
        "distribution": f"leakbench-{name.replace('_', '-')}",
    }
    return {file: templates.get_template(template).render(words) for file, template in files.items()}


def _class(name: str) -> str:
    """my_noise -> MyNoise"""
    return "".join(part.capitalize() for part in name.split("_"))
