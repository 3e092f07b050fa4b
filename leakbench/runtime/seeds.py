"""Seeds: what an artifact's random numbers start from.

A seed is no key. A key changes with everything that can change a result, versions included; a seed says which draw of
the same experiment this is. It hashes

- the role (ann, judge, victim, attack, anchor, ...),
- what the experiment is: data fingerprint, training recipe, plugin name and those of its parameters that are not the
  defaults (a parameter that is new changes no number of those who don't set it),
- the number of the replicate (``--seeds 3`` makes 0, 1 and 2),
- the seeds of what it builds on, so that no two networks share an attack's start.

It leaves out versions, thread counts, environments, T, precision and where a plugin's file is from: code can be changed
at equal numbers, and runs that differ in one of these draw alike.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any


def seed_of(role: str, **identity: Any) -> int:
    """The seed of ``role`` in an experiment told by ``identity`` (JSON values): 60 bits, at least 0."""
    text = json.dumps({"role": role, **identity}, sort_keys=True, allow_nan=False)
    return int(hashlib.sha256(text.encode()).hexdigest()[:15], 16)
