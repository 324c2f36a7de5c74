"""What batches are under way, on disk: one JSON line per event (`intent`, `file`, `batch`, `done`), never rewritten."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratekit.errors import WorkError


@dataclass
class Batch:
    """The requests that went out together, under our token and, once the server said so, its id."""

    token: str
    keys: list[str]
    batch_id: str | None = None
    done: bool = False


class Journal:
    """The events of all batches of a folder. WorkError where the folder cannot be written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise WorkError(f"the folder {path.parent} cannot be written: {e.strerror}") from None

    def note(self, token: str, event: str, **more: Any) -> None:
        """Add an event; it is on the disk when this returns."""
        line = json.dumps({"token": token, "event": event, **more}) + "\n"
        try:
            with self.path.open("a", encoding="utf-8") as f:
                f.write(line)
                f.flush()
                os.fsync(f.fileno())
        except OSError as e:
            raise WorkError(f"{self.path} cannot be written: {e.strerror}") from None

    def unfinished(self) -> list[Batch]:
        """The batches that were meant to go out and whose replies were not collected; a torn line is passed over."""
        batches: dict[str, Batch] = {}
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        for line in lines:
            try:
                event = json.loads(line)
                token, kind = event["token"], event["event"]
            except (ValueError, KeyError, TypeError):
                continue
            if kind == "intent":
                batches[token] = Batch(token, event["keys"])
            elif token in batches and kind == "batch":
                batches[token].batch_id = event["id"]
            elif token in batches and kind == "done":
                batches[token].done = True
        return [batch for batch in batches.values() if not batch.done]
