"""A file server on this machine, so that downloads are tested through the code that makes them."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest


@dataclass
class FileServer:
    folder: Path
    url: str
    fetched: list[str] = field(default_factory=list)
    """the paths of GET requests for files"""


@pytest.fixture
def dead_mirror(monkeypatch: pytest.MonkeyPatch) -> str:
    """A mirror that refuses every connection: port 1 is reserved and nobody listens there."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return "http://127.0.0.1:1/"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "server"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            found.fetched.append(self.path.removeprefix("/"))
            super().do_GET()

        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        found = FileServer(folder, f"http://127.0.0.1:{running.server_address[1]}/")
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield found
        running.shutdown()
