"""The process that parses one file of a stranger: it closes itself, reads the file, answers once and ends.

Nothing here protects anybody once the file is parsed: what must hold is checked by the kernel and at the other end
(:mod:`leakbench.foreign.confined`). It imports no torch: starting it takes a third of a second, and its memory can be
limited.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import struct
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from leakbench.foreign.hdf5 import Refused, Tree, read_tree
from leakbench.runtime.isolation.confinement import Unavailable, confine, end_with_parent
from leakbench.runtime.isolation.grants import grants

MOST_SECONDS = 120
"""of processor time"""
_MOST_MEMORY = 6 << 30
"""bytes of addresses: a file of 1 GiB, its numbers, and the answer twice, as it is put together"""


def serve(facts: Mapping[str, Any]) -> NoReturn:
    """Reads a file of ``facts["size"]`` bytes from the standard input, and answers on the standard output."""
    end_with_parent(int(facts["parent"]))
    body = b""
    try:
        import h5py  # noqa: F401 - before memory is limited: libraries map much of it

        _limit(resource.RLIMIT_CPU, MOST_SECONDS)
        _limit(resource.RLIMIT_AS, _MOST_MEMORY)
        confine(grants((), (), (), ()))  # interpreter and packages: modules and codecs may be loaded late
        entries: list[dict[str, Any]] = []
        arrays: dict[str, NDArray[Any]] = {}
        _flatten(read_tree(sys.stdin.buffer.read(int(facts["size"]))), None, entries, arrays)
        head: dict[str, Any] = {"type": "tree", "entries": entries}
        if arrays:
            body = save(arrays)
    except Refused as error:
        head = {"type": "refused", "reason": str(error)}
    except Unavailable as error:
        head = {"type": "refused", "reason": f"the process that parses it can't be confined: {error}"}
    except MemoryError:
        head = {"type": "refused", "reason": "it takes more memory than there is"}
    text = json.dumps(head).encode()
    for part in (struct.pack(facts["header"], len(text), len(body)), text, body):
        sys.stdout.buffer.write(part)
    sys.stdout.buffer.flush()
    os._exit(0)  # closing libhdf5 may fail after a damaged file


def _limit(what: int, most: int) -> None:
    _, allowed = resource.getrlimit(what)
    most = most if allowed == resource.RLIM_INFINITY else min(most, allowed)
    with contextlib.suppress(OSError):
        resource.setrlimit(what, (most, most))


def _flatten(tree: Tree, group: int | None, entries: list[dict[str, Any]], arrays: dict[str, NDArray[Any]]) -> None:
    """A tree as a list, in which entries name the entry of the group that they are in; None is the root.

    Arrays are apart, named by the numbers of their entries.
    """
    for name, value in tree.items():
        number = len(entries)
        entry: dict[str, Any] = {"name": name, "group": group}
        entries.append(entry)
        if isinstance(value, dict):
            entry["kind"] = "group"
            _flatten(value, number, entries, arrays)
        elif isinstance(value, np.ndarray):
            entry["kind"] = "array"
            arrays[str(number)] = value
        else:
            entry |= {"kind": "text", "text": value} if value is not None else {"kind": "nothing"}
