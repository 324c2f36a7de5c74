"""How fast to ask: a known rate kept, an unknown one found, and retries that wait, back off and end.

Every class here is plain arithmetic on times handed in (seconds, any clock): no sleeping, no event loop.
"""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass
class Pacer:
    """Keeps a rate: `wait(now)` seconds until the next `amount` may be spent, `spend` notes that it was.

    >>> pacer = Pacer(rate=10.0, burst=0.0)
    >>> pacer.spend(1, now=0.0); pacer.wait(now=0.05)
    0.05

    rate   units a second (requests, tokens)
    burst  seconds of the rate that may be caught up on after a pause; servers count over short windows too
    """

    rate: float
    burst: float = 0.1
    _next: float = float("-inf")

    def wait(self, now: float) -> float:
        """Seconds until something may be spent; 0 if now."""
        return max(0.0, self._next - now)

    def spend(self, amount: float, now: float) -> None:
        """Note that `amount` is spent."""
        self._next = max(self._next, now - self.burst) + amount / self.rate


@dataclass
class Throttle:
    """Adaptive concurrency: falls by the share of requests that the server turned away (429), and recovers.

    >>> throttle = Throttle(most=64)
    >>> for _ in range(64): throttle.note(rejected=True)
    >>> throttle.limit
    1.0

    It looks at as many results as requests may be under way. A few 429s among them (one in ten) are no sign of
    overload and change nothing: halving at each, as TCP does, would leave a handful of slots.
    """

    most: int
    limit: float = 0.0
    _results: int = 0
    _rejected: int = 0

    def __post_init__(self) -> None:
        self.limit = float(self.most)

    def note(self, rejected: bool) -> None:
        """Take in one result."""
        self._results += 1
        self._rejected += rejected
        if self._results >= max(8.0, self.limit):
            share = self._rejected / self._results
            if share > 0.1:
                self.limit = max(1.0, self.limit * (1 - share))
            else:
                self.limit = min(float(self.most), self.limit * 1.1 + 1)
            self._results = self._rejected = 0


@dataclass
class RetryBudget:
    """How many retries a run may make: `start`, and `share` more for each reply that came.

    >>> budget = RetryBudget(share=0.5, start=1)
    >>> budget.take(), budget.take()
    (True, False)
    """

    share: float = 1.0
    start: int = 100
    replies: int = 0
    retries: int = 0

    def take(self) -> bool:
        """Whether one more retry may be made; if so it counts."""
        if self.retries >= self.start + self.share * self.replies:
            return False
        self.retries += 1
        return True


def backoff(attempt: int, retry_after: float | None, draw: random.Random, longest: float = 60.0) -> float:
    """Seconds to wait before try number `attempt` + 1: the server's wish, else 0.5, 1, 2, ... s with jitter.

    >>> backoff(1, retry_after=3.0, draw=random.Random(0)) >= 3.0
    True
    """
    if retry_after is not None:
        return retry_after * (1 + 0.1 * draw.random()) + 0.05 * draw.random()
    return min(longest, 0.5 * 2 ** (attempt - 1)) * (0.5 + draw.random() / 2)
