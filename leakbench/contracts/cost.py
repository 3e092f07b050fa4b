"""What an attack took."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from leakbench.contracts.checkpoint import State


@dataclass
class Cost:
    """What an attack took, counted by the framework."""

    queries: int = 0
    """images that the victim answered for SCORES or LABELS"""
    gradient_steps: int = 0
    """optimiser steps announced through AttackContext.steps"""
    seconds: float = 0.0

    def state(self) -> State:
        return {"counts": torch.tensor([self.queries, self.gradient_steps])}

    def restore(self, state: State) -> None:
        self.queries, self.gradient_steps = state["counts"].tolist()
