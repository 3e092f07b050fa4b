"""Networks that a run is given become files of the store, which worker processes read."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from leakbench.contracts import ImageClassifier
from leakbench.errors import StoreError
from leakbench.models.files import network_bytes
from leakbench.paths import NETWORKS, default_cache
from leakbench.runtime.files import write_file
from leakbench.snn import SpikingNetwork


def kept(network: SpikingNetwork | ImageClassifier, snn: str, cache: Path | None) -> Path:
    """The file of the network in the store. StoreError where it can't be written."""
    content = network_bytes(network)
    name = snn.rpartition(":")[0] if ".py:" in snn else snn
    digest = hashlib.sha256(content).hexdigest()
    path = (cache or default_cache()) / NETWORKS / digest[:16] / f"{Path(name).stem}.safetensors"
    if any(folder.is_symlink() for folder in (path.parent, path.parent.parent)):
        raise StoreError(f"the cache's folder {str(path.parent)!r} leads through a link: nothing is written behind one")
    try:
        if not path.is_file() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, content)
        with contextlib.suppress(OSError):  # of a store that may only be read
            os.utime(path)  # used now
    except OSError as error:
        raise StoreError(f"can't write to the cache at {str(path.parent)!r}: {error.strerror}") from None
    return path
