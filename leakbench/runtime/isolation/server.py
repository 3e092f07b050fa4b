"""Starting processes of plugins, and talking to one: this end trusts nothing that the other says.

One process a run process is kept warm: it imports torch and LeakBench once, holds no data and runs no plugin. For each
call of a plugin it forks: the copy closes itself (:func:`~.confinement.confine`), imports the plugin and answers until
the call is over. So no call sees what another left behind, and starting one takes milliseconds.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor

from leakbench import registry
from leakbench.errors import PluginError, printable
from leakbench.paths import remove_all
from leakbench.runtime.isolation.confinement import Grant
from leakbench.runtime.isolation.messages import (
    COMPUTE,
    DESCRIBE,
    HEADER,
    Broken,
    Message,
    check_sizes,
    decode,
    encode,
)
from leakbench.runtime.isolation.said import Warned, read

log = logging.getLogger("leakbench")

STARTING = 600.0
"""seconds that the warm process may take to import torch"""
SILENCE = 3600.0
"""seconds without a word from a plugin after which its call is ended: it hangs"""
FAREWELL = 60.0
"""seconds that a process which was killed has to be gone"""
_MOST_PRINTED = 1 << 16
"""bytes that a call may print; the rest is dropped"""
_MOST_BEFORE = 100
"""messages, as warnings, while a plugin is imported"""
_KEPT_VARIABLES = (
    "ATEN_", "BLIS_", "CUBLAS_", "CUDA_", "DNNL_", "GOMP_", "KMP_", "LC_", "MKL_", "MALLOC_", "NUMBA_", "NVIDIA_",
    "NVPL_", "OMP_", "ONEDNN_", "OPENBLAS_", "PYTHONHASHSEED", "LANG", "LD_LIBRARY_PATH", "TZ",
)  # fmt: skip
"""how those environment variables begin that numbers may depend on; no other reaches a plugin"""
_BOOT = (
    "import json, os, socket, sys; control = socket.socket(fileno=0); facts = json.loads(control.recv(1 << 16)); "
    "sys.path[:] = facts['path']; "
    "from leakbench.runtime.isolation.serving import serve; serve(control, facts)"
)


@dataclass(frozen=True)
class Opening:
    """What a process needs to begin with a plugin: nothing in it is secret."""

    kind: str
    name: str
    """registered, or path/to/file.py:Class with an absolute path"""
    target: str
    """"module:attribute" of a registered name; empty for a file"""
    files: tuple[Path, ...]
    """that the plugin consists of"""
    origin: str = "registered"
    """of a name"""
    searched: tuple[Path, ...] = ()
    """folders that modules are looked for in"""
    models: tuple[tuple[str, str], ...] = ()
    """third parties' models that networks may be of: name and target, as above"""

    @property
    def label(self) -> str:
        """The plugin's name for people."""
        return registry.label(self.name)

    def with_model(self, name: str, target: str, files: Sequence[Path]) -> Opening:
        """Together with a third party's model."""
        searched = tuple(file.parent for file in files) if target else ()
        return replace(
            self, models=((name, target),), files=(*self.files, *files), searched=(*self.searched, *searched)
        )


class Handler(Protocol):
    """Answers what a plugin asks for while its call is under way."""

    def __call__(self, message: Message, /) -> tuple[Mapping[str, Any], Mapping[str, Tensor]] | None:
        """The answer; None where none is waited for. Raises Broken for what is no question that may be asked."""


class PluginServer:
    """The warm process, started when it is first needed, and at most one call at a time."""

    def __init__(self, grants: Callable[[Opening, str], list[Grant]], scratch: str) -> None:
        """``grants`` says for a plugin and the folder that it may write to what it is given; ``scratch`` is a folder
        for temporary files, the user's temporary folder where it is empty."""
        self._grants, self._scratch = grants, scratch or None
        self._warm: _Warm | None = None
        self._call: _Call | None = None
        self.started_in = 0.0
        """seconds that the warm process took to start, the last time"""

    @property
    def is_closed(self) -> bool:
        """Whether there is no call: its process has ended, or was ended."""
        return self._call is None

    def open(self, opening: Opening, fresh: bool = True) -> Message | None:
        """A process for this plugin, confined; ``fresh``: one that was asked nothing yet, and runs the plugin.

        Returns its first message, "done" where it has imported the plugin, else "raised"; None where there is such a
        process already. PluginError where none can be had.
        """
        call = self._call
        if call is not None and call.opening == opening and not fresh:
            return None
        self.end_call()
        if self._warm is None:
            start = time.perf_counter()
            self._warm = _Warm(self._scratch)
            self.started_in = time.perf_counter() - start
        try:
            self._call = _Call(self._warm, opening, self._grants(opening, self._warm.home), fresh)
            for _ in range(_MOST_BEFORE):
                message = self._call.receive(STARTING)
                if message.type in ("done", "raised"):
                    return message
                if message.type == "warning" and not fresh:  # each fresh process would say it again
                    log.warning("%s", printable(read(Warned, message.head).line))
            raise Broken("began with what is no beginning")
        except Broken as error:
            self._fail(error)
        except BaseException:
            self.close()
            raise

    def ask(
        self,
        head: Mapping[str, Any],
        tensors: Mapping[str, Tensor] | None = None,
        handle: Handler | None = None,
        last: tuple[str, ...] = ("done", "raised"),
    ) -> Message:
        """The plugin's last word on a request, a message of a type in ``last``; what it asks on its way, ``handle``
        answers.

        PluginError where its process died, hung or sent rubbish: the next call gets another one.
        """
        assert self._call is not None
        try:
            self._call.send(encode(head, tensors))
            while True:
                message = self._call.receive(SILENCE)
                if message.type in last:
                    return message
                if handle is None:
                    raise Broken("it asked for what it may not")
                answer = handle(message)
                if answer is not None:
                    self._call.send(encode(*answer))
        except Broken as error:
            self._fail(error)
        except BaseException:
            self.end_call()  # it waits for an answer that never comes
            raise

    def end_call(self) -> None:
        """The process of the last call ends, and whatever it still has to say is dropped."""
        call, self._call = self._call, None
        if call is None or self._warm is None:
            return
        call.close()
        try:
            self._warm.end_copy()
        except Broken:
            self.close()

    def close(self) -> None:
        """End the warm process, and with it the plugin's, at once."""
        call, self._call = self._call, None
        warm, self._warm = self._warm, None
        if call is not None:
            call.close()
        if warm is not None:
            warm.close()

    def _fail(self, error: Broken) -> NoReturn:
        """The call has gone wrong: PluginError says how, and nothing of it is left."""
        assert self._warm is not None
        call, self._call = self._call, None
        name, how = call.opening.label if call is not None else "a plugin", str(error)
        if call is not None:
            call.close()
        try:
            if isinstance(error, _Gone):
                how = _ending(self._warm.status(FAREWELL))
            else:
                self._warm.end_copy()
        except Broken:
            self.close()
        raise PluginError(f"the process of {name} {how}")


class _Gone(Broken):
    """The other end of a pipe is closed."""


class _Warm:
    """The process that is forked for each call."""

    def __init__(self, scratch: str | None) -> None:
        self._folder = tempfile.mkdtemp(prefix="leakbench-plugin-", dir=scratch)
        self.home = f"{self._folder}/home"
        """of the copies, which plugins write to"""
        self._own = f"{self._folder}/own"
        """where this process writes, and reads what it wrote: no plugin can"""
        os.mkdir(self._own, 0o700)  # noqa: PTH102
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control = ours
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", *(["-B"] if sys.dont_write_bytecode else []), "-c", _BOOT],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=self._environment(),
                cwd=self._folder,
                start_new_session=True,
            )
        facts = {
            "path": [str(Path(one).absolute()) for one in sys.path if one],
            "parent": os.getpid(),
            "folder": self._folder,
        }
        try:
            ours.sendall(json.dumps(facts).encode())
            if self._hear(STARTING) != "ready":
                raise Broken("could not be started")
        except (OSError, Broken) as error:
            self.close()
            raise PluginError(f"no process for plugins can be started: {error}") from None

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name.startswith(_KEPT_VARIABLES)}
        folders = {"HOME": self._own, "TMPDIR": self._own}
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        # joblib, which scikit-learn imports, may make no semaphores there and would say so each time
        return {**kept, **folders, **threads, "PATH": "/usr/bin:/bin", "JOBLIB_MULTIPROCESSING": "0"}

    def fork(self, facts: Mapping[str, Any], pipes: Sequence[int], computes: bool) -> None:
        """A copy that has these pipes, for requests, answers and what is printed; ``computes``: it runs a plugin, and
        does not merely ask it."""
        path = Path(self._folder, "facts.json")
        path.write_text(json.dumps(facts), encoding="utf-8")  # may be more than a packet holds
        try:
            socket.send_fds(self._control, [COMPUTE if computes else DESCRIBE], list(pipes))
        except OSError:
            raise _Gone("could not be started") from None

    def end_copy(self) -> None:
        """The copy ends at once; Broken where it does not."""
        self._process.send_signal(signal.SIGTERM)
        self.status(FAREWELL)

    def status(self, within: float) -> int:
        """How the copy has ended, as os.waitpid gives it; Broken where it does not."""
        said = self._hear(within)
        if not said.lstrip("-").isdecimal():
            raise Broken("does not end")
        return int(said)

    def _hear(self, within: float) -> str:
        self._control.settimeout(within)
        try:
            said = self._control.recv(1000).decode()
        except OSError:
            raise Broken("is not heard of") from None
        if not said:
            raise Broken("is gone")
        return said

    def close(self) -> None:
        self._process.kill()  # the kernel then ends the copy, too
        self._process.wait()
        self._control.close()
        remove_all(self._folder)


class _Call:
    """The process of one call, from this end of its pipes."""

    def __init__(self, warm: _Warm, opening: Opening, grants: Sequence[Grant], computes: bool) -> None:
        self.opening = opening
        self._printed = 0
        requests, self._requests = os.pipe()
        self._answers, answers = os.pipe()
        self._prints, prints = os.pipe()
        facts = {
            "kind": opening.kind,
            "name": opening.name,
            "target": opening.target,
            "origin": opening.origin,
            "models": [list(one) for one in opening.models],
            "grants": [list(one) for one in grants],
            "home": warm.home,
            "flushes": float(torch.tensor(1e-38) * 0.01) == 0.0,
        }
        try:
            warm.fork(facts, (requests, answers, prints), computes)
        finally:
            for pipe in (requests, answers, prints):
                os.close(pipe)
        for pipe in (self._requests, self._answers, self._prints):
            os.set_blocking(pipe, False)

    def send(self, content: bytes) -> None:
        view, late = memoryview(content), time.monotonic() + SILENCE
        while view:
            if not self._wait(self._requests, select.POLLOUT, late):
                raise Broken(f"did not listen for {SILENCE:.0f} s")
            try:
                view = view[os.write(self._requests, view[: 1 << 20]) :]
            except BlockingIOError:
                continue
            except OSError:
                raise _Gone("is gone") from None

    def receive(self, patience: float) -> Message:
        """Its next message, for which nobody waits longer than ``patience`` seconds."""
        late = time.monotonic() + patience
        text, body = HEADER.unpack(self._read(HEADER.size, late, patience))
        check_sizes(text, body)
        return decode(self._read(text, late, patience), self._read(body, late, patience))

    def _read(self, count: int, late: float, patience: float) -> bytes:
        content = bytearray()
        while len(content) < count:
            if not self._wait(self._answers, select.POLLIN, late):
                raise Broken(f"said nothing for {patience:.0f} s")
            try:
                part = os.read(self._answers, min(count - len(content), 1 << 20))
            except BlockingIOError:
                continue
            if not part:
                raise _Gone("is gone")
            content += part
        return bytes(content)

    def _wait(self, pipe: int, event: int, late: float) -> bool:
        """Whether a pipe is ready in time; what the plugin prints meanwhile is passed on."""
        while True:
            poll = select.poll()
            poll.register(pipe, event)
            if self._prints >= 0:
                poll.register(self._prints, select.POLLIN)
            left = late - time.monotonic()
            ready = dict(poll.poll(max(0, left) * 1000))
            if self._prints in ready:
                self._pass_on()
            if pipe in ready:
                return True
            if left <= 0:
                return False

    def _pass_on(self) -> None:
        """What the plugin printed, to where errors go, as plain text; no more than a page or two."""
        try:
            printed = os.read(self._prints, 1 << 16)
        except BlockingIOError:
            return
        if not printed:
            os.close(self._prints)
            self._prints = -1
            return
        shown = printed[: max(0, _MOST_PRINTED - self._printed)]
        self._printed += len(printed)
        if shown:
            lines = (printable(line) for line in shown.decode(errors="replace").split("\n"))
            with contextlib.suppress(OSError, ValueError):
                print("\n".join(lines), end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._prints >= 0:
            self._pass_on()
        for pipe in (self._requests, self._answers, self._prints):
            if pipe >= 0:
                os.close(pipe)
        self._requests = self._answers = self._prints = -1


def _ending(status: int) -> str:
    """How a process ended, from what os.waitpid says."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"ended with status {code} before its result was there (os._exit?)"
    known = {one.value: one.name for one in signal.Signals}  # real-time signals have no names
    how = f"ended by {known.get(-code, f'signal {-code}')}"
    return f"{how} (out of memory?)" if code == -signal.SIGKILL else how
