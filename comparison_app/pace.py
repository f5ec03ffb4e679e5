"""How far a run is, and how long it will still take."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class RunProgress:
    """How far `Run.ask` is: answers `done` of `total` over all arms, the arm at work, and seconds still to go."""

    arm: str
    done: int
    total: int
    seconds: float
    seconds_left: float | None


class Clock:
    """Time left from the speed of each arm; an arm that has not begun is taken to be as fast as the others."""

    def __init__(self, left: Mapping[str, int]) -> None:
        self.left = dict(left)
        self.total = sum(left.values())
        self.spent: dict[str, float] = defaultdict(float)
        self.asked: dict[str, int] = defaultdict(int)
        self.last = self.started = time.monotonic()

    def count(self, arm: str, made: int) -> None:
        """Note that `arm` answered `made` questions since the last call."""
        now = time.monotonic()
        self.spent[arm] += now - self.last
        self.asked[arm] += made
        self.left[arm] -= made
        self.last = now

    def now(self, arm: str) -> RunProgress:
        """Say how far the run is."""
        done = sum(self.asked.values())
        typical = sum(self.spent.values()) / max(1, done)
        rates = {name: self.spent[name] / self.asked[name] if self.asked[name] else typical for name in self.left}
        ahead = sum(rates[name] * count for name, count in self.left.items())
        return RunProgress(arm, done, self.total, self.last - self.started, ahead)
