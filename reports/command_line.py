"""The command of a run with other options, as a report names it: what would settle an open verdict."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

_FOLDER = "--out"
_WITHOUT = "--no-controls"
_SHORT = {"--attack": "-a"}


def settling_command(command: str, grid: Mapping[str, Any], options: str) -> str:
    """``command`` with ``options``, as in "--attack auto --seeds 4", in place of its own; attacks are added to those of
    ``grid``. Without --out: that folder holds a run of another grid. Without --no-controls: controls settle, too.

    Empty where there are no options, and where the command does not say the grid (--resume, a program of somebody's).
    """
    try:
        words, named = shlex.split(command), shlex.split(options)
        wanted = dict(zip(named[::2], named[1::2], strict=True))
    except ValueError:  # no command line: a record may hold any text
        return ""
    # a record that somebody else wrote may hold another program's command, which nobody should paste into a shell
    ours = words[:1] == ["leakbench"] and {"run", "audit"} & set(words[1:3])
    if not wanted or not ours or "--resume" in words:
        return ""
    if "--attack" in wanted:
        before = grid.get("attack")
        before = before if isinstance(before, list | tuple) else ()
        wanted["--attack"] = ",".join(dict.fromkeys((*map(str, before), wanted["--attack"])))
    dropped = {_FOLDER, *wanted, *(_SHORT[name] for name in wanted if name in _SHORT)}
    kept = [word for word in _without(words, dropped) if word != _WITHOUT]
    return shlex.join([*kept, *(word for option in wanted.items() for word in option)])


def _without(words: Sequence[str], dropped: set[str]) -> list[str]:
    """The words less these options and their values: ``--name value``, ``--name=value``, ``-nvalue``."""
    kept, rest = [], iter(words)
    for word in rest:
        if word in dropped:
            next(rest, None)
        elif word.partition("=")[0] not in dropped and not (word[:2] in dropped and len(word) > 2):
            kept.append(word)
    return kept
