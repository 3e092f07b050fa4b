"""Where LeakBench keeps things on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path


def default_cache() -> Path:
    """The store: $LEAKBENCH_CACHE, else the user's cache folder."""
    given = os.environ.get("LEAKBENCH_CACHE", "")
    return Path(given).expanduser() if given else user_cache_path("leakbench")
