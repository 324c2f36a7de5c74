"""Several processes, by `accelerate`: each takes its share of the texts, and all get every score.

    accelerate launch -m ratekit score data --reward MODEL --out scored                              # one per GPU
    accelerate launch --multi_gpu --num_processes 2 -m ratekit score data --reward MODEL --out scored  # or two on CPUs

(`accelerate launch --cpu --num_processes 2` starts one process where no MPI is there.) Without a launcher there is
one process, and `accelerate` is not even imported.
"""

from __future__ import annotations

import os
from typing import Any

from ratekit.errors import WorkError


class Processes:
    """The processes of this run: `n` of them, of which this is number `index`."""

    def __init__(self) -> None:
        self.n, self.index = 1, 0
        self._state: Any = None
        launched = int(os.environ.get("WORLD_SIZE", "1"))
        if launched > 1:
            import torch
            from accelerate import PartialState

            self._state = PartialState(cpu=not torch.accelerator.is_available())
            self.n, self.index = self._state.num_processes, self._state.process_index
            if self.n != launched:  # each would take itself for the only one and score everything
                raise WorkError(f"{launched} processes were launched, but accelerate sees {self.n}")

    @property
    def main(self) -> bool:
        """Whether this is the one that writes and speaks for all."""
        return self.index == 0

    @property
    def device(self) -> str | None:
        """The accelerator that is this process's own, if it has one."""
        return str(self._state.device) if self._state is not None and self._state.device.type != "cpu" else None

    def gather(self, what: list[Any]) -> list[Any]:
        """The lists of all processes, joined in the order of the processes."""
        if self.n == 1:
            return what
        from accelerate.utils import gather_object

        return list(gather_object(what))

    def wait(self) -> None:
        """Until every process is here."""
        if self._state is not None:
            self._state.wait_for_everyone()
