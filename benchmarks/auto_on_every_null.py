"""The attacks of ``auto`` under names of their own, which run on every null network and not on six at most.

See false_positives.py.
"""

from __future__ import annotations

from leakbench.attacks.auto_v2 import AutoV2
from leakbench.attacks.distilled import Distilled
from leakbench.attacks.pruned import Pruned
from leakbench.attacks.repaired import Repaired


class AutoV2Everywhere(AutoV2):
    name = "auto-v2-everywhere"
    ensemble = False


class RepairedEverywhere(Repaired):
    name = "repaired-everywhere"
    ensemble = False


class PrunedEverywhere(Pruned):
    name = "pruned-everywhere"
    ensemble = False


class DistilledEverywhere(Distilled):
    name = "distilled-everywhere"
    ensemble = False
