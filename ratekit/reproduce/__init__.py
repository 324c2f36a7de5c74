"""The experiments of the RATE paper by name: run them, and hold the result against what was published."""

from __future__ import annotations

from ratekit.reproduce.published import published

__all__ = ["published"]
