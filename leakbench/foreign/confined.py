"""Reading a file of a stranger in a process of its own, which has that file's bytes and little else.

libhdf5 is C, and files that crash it are found every year. So another process parses, which is confined
(:func:`leakbench.runtime.isolation.confinement.confine`) before it sees the first byte: no network, no other process,
no file but the interpreter's and installed packages', and limits of memory and time. What it answers is checked here
as if the file's author had written it.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from leakbench.errors import UsageError, printable
from leakbench.foreign import hdf5
from leakbench.foreign.hdf5 import DEEPEST, MOST_AXES, Refused, Texts, Tree, Value
from leakbench.paths import checked_path
from leakbench.runtime.isolation.confinement import what_is_lacking
from leakbench.runtime.isolation.messages import HEADER, Broken, Message, check_sizes, decode
from leakbench.runtime.untrusted_files import Damaged, mode_of, open_folder, read_file

log = logging.getLogger("leakbench")

_LARGEST = 1 << 30
"""bytes of a file"""
_PATIENCE = 180.0
"""seconds until the answer must be there: processor time has a limit of its own, ``child.MOST_SECONDS``"""
_FAREWELL = 1.0
"""seconds that a process has to be gone when it has closed its pipes"""
_LONGEST_REASON = 500  # characters
_DTYPES = {
    torch.bool, torch.float16, torch.float32, torch.float64, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.uint8, torch.uint16, torch.uint32, torch.uint64,
}  # fmt: skip
_BOOT = (
    "import json, sys; facts = json.loads(sys.stdin.buffer.readline()); sys.path[:] = facts['path']; "
    "from leakbench.foreign.child import serve; serve(facts)"
)


class _Refusal(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    type: Literal["refused"]
    reason: str = Field(max_length=_LONGEST_REASON)


class _Entry(BaseModel):
    """A group or a data set."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    name: str = Field(min_length=1, pattern=r"^[^/]+$")
    group: int | None
    """number of the entry of the group that it is in; None for the root"""
    kind: Literal["group", "array", "text", "nothing"]
    text: Texts | None = None


class _Entries(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    type: Literal["tree"]
    entries: list[_Entry]


def read_confined(path: Path, what: str) -> Tree:
    """What an HDF5 file holds (:func:`leakbench.foreign.hdf5.read_tree`), parsed by a confined process.

    Where this system can't confine one, the file is parsed here, and a warning says so. UsageError, one line that
    begins with ``what``, for a file that is not read for whatever reason, and where h5py is missing.
    """
    where = f"{what} {str(path)!r}"
    hdf5.need_h5py()
    content = _content(path, what)
    read: Callable[[bytes], Tree] = _elsewhere
    if lacking := what_is_lacking():
        log.warning("%s is parsed in this process, which a damaged file can crash or worse: %s", where, lacking)
        read = hdf5.read_tree
    try:
        return read(content)
    except (Refused, Broken) as error:
        raise UsageError(f"{where} is no NIR file that is read: {printable(str(error))}") from None


def _content(path: Path, what: str) -> bytes:
    """All bytes of a regular file, which ``path`` may be a link to."""
    real = Path(os.path.realpath(checked_path(path, what)))
    try:
        with open_folder(real.parent) as folder:
            return read_file(folder, real.name, _LARGEST)
    except (Damaged, FileNotFoundError) as error:
        if mode_of(real) == 0:
            raise UsageError(f"{what}: no such file {str(path)!r}") from None
        raise UsageError(f"{what} {str(path)!r} is no NIR file that is read: {printable(str(error))}") from None
    except OSError as error:
        raise UsageError(f"{what} {str(path)!r} can't be read: {error.strerror}") from None


# --- the process -----------------------------------------------------------------------------------------------------


def _elsewhere(content: bytes) -> Tree:
    """The tree in these bytes. Raises Refused for what the process refuses, Broken where it dies, hangs or lies."""
    facts = {
        "path": [str(Path(one).absolute()) for one in sys.path if one],
        "parent": os.getpid(),
        "size": len(content),
        "header": HEADER.format,
    }
    process = subprocess.Popen(
        [sys.executable, "-I", *(["-B"] if sys.dont_write_bytecode else []), "-c", _BOOT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        env=_environment(),
        cwd="/",
        start_new_session=True,
    )
    assert process.stdin is not None and process.stdout is not None
    late = time.monotonic() + _PATIENCE
    try:
        requests, answers = process.stdin.fileno(), process.stdout.fileno()
        for pipe in (requests, answers):
            os.set_blocking(pipe, False)
        _send(requests, json.dumps(facts).encode() + b"\n", late)
        _send(requests, content, late)
        text, body = HEADER.unpack(_receive(answers, HEADER.size, late))
        check_sizes(text, body)
        message = decode(_receive(answers, text, late), _receive(answers, body, late))
    except EOFError:
        raise Broken(f"the process that parses it {_ending(process)}") from None
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
    return _tree(message)


def _environment() -> dict[str, str]:
    """Nothing but what its libraries are found by; several threads could not be confined."""
    libraries = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    return {**libraries, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def _send(pipe: int, content: bytes, late: float) -> None:
    """EOFError where nobody reads any more."""
    view = memoryview(content)
    while view:
        _wait(pipe, select.POLLOUT, late)
        try:
            view = view[os.write(pipe, view[: 1 << 20]) :]
        except BlockingIOError:
            continue
        except BrokenPipeError:
            raise EOFError from None


def _receive(pipe: int, count: int, late: float) -> bytes:
    """EOFError where less comes."""
    content = bytearray()
    while len(content) < count:
        _wait(pipe, select.POLLIN, late)
        part = os.read(pipe, min(count - len(content), 1 << 20))
        if not part:
            raise EOFError
        content += part
    return bytes(content)


def _wait(pipe: int, event: int, late: float) -> None:
    poll = select.poll()
    poll.register(pipe, event)
    if not poll.poll(max(0.0, late - time.monotonic()) * 1000):
        raise Broken(f"parsing it takes more than {_PATIENCE:.0f} s")


def _ending(process: subprocess.Popen[bytes]) -> str:
    """How a process ends that has closed its pipes."""
    try:
        status = process.wait(_FAREWELL)
    except subprocess.TimeoutExpired:
        return "closes its pipes and does not end"
    if status >= 0:
        return f"ended with status {status}"
    known = {one.value: one.name for one in signal.Signals}  # real-time signals have no names
    reasons: dict[int, str] = {signal.SIGKILL: " (out of memory?)", signal.SIGXCPU: " (it took too long)"}
    return f"ended by {known.get(-status, f'signal {-status}')}{reasons.get(-status, '')}"


# --- its answer ------------------------------------------------------------------------------------------------------


def _tree(message: Message) -> Tree:
    """The tree of an answer. Raises Refused for a refusal, Broken for what is neither."""
    try:
        if message.type == "refused":
            raise Refused(_Refusal.model_validate(message.head).reason)
        entries = _Entries.model_validate(message.head).entries
    except ValidationError:
        raise Broken("the process that parses it answers what is no answer") from None
    arrays = {str(number) for number, entry in enumerate(entries) if entry.kind == "array"}
    if arrays != set(message.tensors):
        raise Broken("the process that parses it answers with other arrays than it names")
    root: Tree = {}
    groups: dict[int | None, tuple[Tree, int]] = {None: (root, 0)}  # with their depth
    for number, entry in enumerate(entries):
        group, depth = groups.get(entry.group, (None, 0))
        if group is None or entry.name in group:
            raise Broken("the process that parses it answers with objects that are in no group")
        value = _value(entry, str(number), message.tensors)
        group[entry.name] = value
        if isinstance(value, dict):
            if depth == DEEPEST:
                raise Broken("the process that parses it answers with groups that are too deep")
            groups[number] = (value, depth + 1)
    return root


def _value(entry: _Entry, name: str, tensors: Mapping[str, Tensor]) -> Tree | Value:
    if (entry.kind == "text") != (entry.text is not None):
        raise Broken("the process that parses it answers with text that is none")
    if entry.kind == "group":
        return {}
    if entry.kind != "array":
        return entry.text
    tensor = tensors[name]
    if tensor.dtype not in _DTYPES or tensor.dim() > MOST_AXES:
        raise Broken("the process that parses it answers with arrays of other kinds than are read")
    if tensor.dtype == torch.bool and (tensor.view(torch.uint8) > 1).any():
        raise Broken("the process that parses it answers with what is neither true nor false")
    return tensor.contiguous().numpy()
