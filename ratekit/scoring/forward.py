"""Running texts through a model: packed where that is exact, padded where it is not, and how it is told.

A model is held against itself when it is loaded: eight short texts one by one through its own forward, and the same
packed. Where the two differ by more than rounding, the padded path is taken, and the log says so. Sorted by length and
within a token budget, that path wastes about one token in a hundred.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ratekit.errors import WorkError, shorten
from ratekit.scoring import plan
from ratekit.scoring.attention import Running, packed
from ratekit.scoring.linear import prepack
from ratekit.scoring.norms import quicken
from ratekit.scoring.pruning import prune_last_layer, unprune
from ratekit.scoring.readout import Encoded, Readout

log = logging.getLogger("ratekit")

Told = Callable[[int], None]  # told of every token that was run

FEW_ROWS = 8  # the rows that are read come in multiples of it, for the reason that plan.filler gives
CPU_BUDGET = 2048  # tokens in a forward pass; larger ones fall out of the processor's cache
TOLERANCE = {"float32": 1e-4, "float64": 1e-9, "float16": 0.03, "bfloat16": 0.125}  # of the scores' spread


class _Pass(NamedTuple):
    """The texts that go through the model together."""

    members: list[int]
    n_tokens: int
    pack: Any = None


class Forward:
    """A loaded model that can be asked for the numbers of any texts.

    model    a `transformers` model on its device, in eval mode
    readout  how it is read (readout.py)
    budget   tokens in a forward pass; by default 2048 on a CPU, and what the free memory allows on a GPU
    path     "auto" takes the packed path after `check`; "packed" and "padded" insist on one
    """

    def __init__(self, model: Any, readout: Readout, budget: int | None = None, path: str = "auto") -> None:
        self.model, self.readout, self.path = model, readout, "padded" if path == "auto" else path
        self.wanted = path
        self.budget = budget or memory_budget(model)
        self.pruned = False
        self.n_prepacked = 0
        self.worst: float | None = None  # the largest difference to one by one seen by `check`
        model.config.use_cache = False
        # These rotary positions depend on the longest text in the pass, so that texts may not share one.
        rope = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
        self.alone = isinstance(rope, dict) and rope.get("rope_type") in ("dynamic", "longrope")
        # RoBERTa and its kin number positions from after the padding token's.
        embeddings: Any = getattr(model.base_model, "embeddings", None)
        shifted = hasattr(embeddings, "create_position_ids_from_input_ids")
        self.first_position = embeddings.padding_idx + 1 if shifted else 0
        self.least_shared = plan.LEAST_SHARED if readout.causal else 0

    # --- choosing a path ------------------------------------------------------------------------------------

    def check(self, texts: Sequence[Encoded]) -> None:
        """Choose the path by what these texts score one by one, packed, and with everything made fast."""
        if self.wanted == "padded":
            return
        reference = self.one_by_one(texts)
        why = self._differs(texts, reference)
        if why is None:
            pruned = prune_last_layer(self.model)
            if pruned is not None and self._differs(texts, reference) is not None:
                unprune(pruned)
                pruned = None
            self.pruned = pruned is not None
            if self.model.device.type == "cpu":
                self.n_prepacked = prepack(self.model)
                quicken(self.model)
            why = self._differs(texts, reference)
        if why is None:
            self.path = "packed"
        elif self.wanted == "packed":
            raise WorkError(f"this model cannot be run packed: {why}")
        else:
            self.path = "padded"
            log.info("%s: texts are padded, for packed ones are not exact (%s)", type(self.model).__name__, why)

    def _differs(self, texts: Sequence[Encoded], reference: NDArray[np.float64]) -> str | None:
        if self.readout.from_hidden is None:
            return "only its own forward reads it"
        if self.alone:
            return "its positions depend on the longest text of a pass"
        try:
            got = self._packed(list(texts), None)
        except Exception as e:  # any failure of model code that was not made for this means the other path
            return shorten(e, 80)
        spread = max(float(reference.std(axis=0).max()), 0.1 * float(np.abs(reference).max()), 1e-6)
        self.worst = float(np.abs(got - reference).max())
        allowed = TOLERANCE[str(self.model.dtype).removeprefix("torch.")] * spread
        if not self.worst <= allowed:
            return f"they differ by {self.worst:.2g} from one by one"
        return None

    # --- running --------------------------------------------------------------------------------------------

    def __call__(self, texts: Sequence[Encoded], told: Told | None = None) -> NDArray[np.float64]:
        """(n, k) outputs of n texts, each distinct one run once; NaN for a text that fits in no memory."""
        unique, inverse = plan.distinct(texts)
        run = self._packed if self.path == "packed" else self._padded
        return run(unique, told)[inverse] if unique else np.empty((0, 1))

    def one_by_one(self, texts: Sequence[Encoded]) -> NDArray[np.float64]:
        """(n, k) outputs by the model's own forward on each text alone: what every other path is held against."""
        return np.concatenate([self._whole([text]) for text in texts])

    def _packed(self, texts: list[Encoded], told: Told | None) -> NDArray[np.float64]:
        def cut(rows: list[int]) -> list[_Pass]:
            packs = plan.packs([texts[i].ids for i in rows], self.budget, self.least_shared)
            return [_Pass([rows[m] for m in pack.members], len(pack.tokens), pack) for pack in packs]

        with packed(self.model):
            return self._passes(texts, told, cut, self._run_pack)

    def _padded(self, texts: list[Encoded], told: Told | None) -> NDArray[np.float64]:
        def cut(rows: list[int]) -> list[_Pass]:
            lengths = [len(texts[i].ids) for i in rows]
            batches = plan.batches(lengths, 1 if self.alone else self.budget)
            return [_Pass([rows[i] for i in batch], sum(lengths[i] for i in batch)) for batch in batches]

        return self._passes(texts, told, cut, lambda _, members: self._whole(members))

    def _passes(
        self,
        texts: list[Encoded],
        told: Told | None,
        cut: Callable[[list[int]], list[_Pass]],
        run: Callable[[Any, list[Encoded]], NDArray[np.float64]],
    ) -> NDArray[np.float64]:
        """Pass by pass; one that fits in no memory is cut smaller, and what cannot be cut is NaN."""
        waiting = [list(range(len(texts)))]
        out: NDArray[np.float64] | None = None
        while waiting:
            for one in cut(waiting.pop()):
                try:
                    got = run(one.pack, [texts[i] for i in one.members])
                except Exception as e:
                    if not _out_of_memory(e):
                        raise
                    got = None
                if got is None:  # outside the except clause, whose traceback holds on to the memory
                    if self._back_off(one.n_tokens) and len(one.members) > 1:
                        waiting.append(one.members)
                        continue
                    got = np.full((len(one.members), 1 if out is None else out.shape[1]), np.nan)
                if out is None:
                    out = np.full((len(texts), got.shape[1]), np.nan)
                out[one.members] = got
                if told:
                    told(one.n_tokens)
        assert out is not None
        return out

    def _run_pack(self, pack: plan.Pack, texts: list[Encoded]) -> NDArray[np.float64]:
        import torch

        assert self.readout.from_hidden is not None
        rows = [self.readout.rows(text) for text in texts]
        places = [pack.place(m, r) for m, rs in enumerate(rows) for r in rs]
        n_places, n_tokens = len(places), len(pack.tokens)
        if self.model.device.type == "cpu":
            places += places[-1:] * (-n_places % FEW_ROWS)
            n_tokens += plan.filler(n_tokens)
        running = Running(pack, places, self.readout.causal, self.model.device)
        types: list[int] = []
        if texts[0].types:
            types = [0] * n_tokens
            for m, text in enumerate(texts):
                for position, kind in enumerate(text.types):
                    types[pack.place(m, position)] = kind
        positions = [p + self.first_position for p in pack.positions]
        inputs = {"input_ids": pack.tokens, "position_ids": positions, "token_type_ids": types}
        tensors = {
            name: torch.tensor([values + [0] * (n_tokens - len(values))], device=self.model.device)
            for name, values in inputs.items()
            if values
        }
        with torch.inference_mode():
            states = self.model.base_model(**tensors, running=running).last_hidden_state[0]
            if states.shape[0] == n_tokens:
                states = states[running.index]
            return self.readout.from_hidden(states[:n_places], texts, rows).double().cpu().numpy()

    def _whole(self, texts: list[Encoded], side: str = "right") -> NDArray[np.float64]:
        """The model's own forward on a padded batch. Padding is on the right, where positions stay what they are."""
        import torch

        width = max(len(t.ids) for t in texts)
        padding = [width - len(t.ids) for t in texts]
        pad, config = 0, self.model.config.get_text_config()
        own = getattr(config, "pad_token_id", None)
        if len(texts) > 1:
            pad = own if own is not None else _absent([t.ids for t in texts])

        def filled(values: Sequence[Sequence[int]], fill: int) -> Any:
            rows = [
                [*v, *[fill] * p] if side == "right" else [*[fill] * p, *v]
                for v, p in zip(values, padding, strict=True)
            ]
            return torch.tensor(rows, device=self.model.device)

        inputs = {"input_ids": filled([t.ids for t in texts], pad)}
        inputs["attention_mask"] = filled([[1] * len(t.ids) for t in texts], 0)
        if texts[0].types:
            inputs["token_type_ids"] = filled([t.types for t in texts], 0)
        offsets = [0] * len(texts) if side == "right" else padding
        try:
            if own is None and len(texts) > 1:
                config.pad_token_id = pad  # a token that no text has, so that none is taken for padding
            with torch.inference_mode():
                output = self.model(**inputs)
                return self.readout.from_whole(output, texts, offsets).double().cpu().numpy()
        finally:
            if own is None and len(texts) > 1:
                config.pad_token_id = None

    def _back_off(self, n_tokens: int) -> bool:
        """After running out of memory: a smaller budget from here on; False where it cannot be smaller."""
        import torch

        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        smaller = max(1, min(self.budget, n_tokens) // 2)
        log.warning("out of memory with %d tokens in a pass; going on with %d", n_tokens, smaller)
        if smaller >= self.budget:
            return False
        self.budget = smaller
        return True


def memory_budget(model: Any) -> int:
    """Tokens in a pass: 2048 on a CPU; on a GPU what six tenths of the free memory hold, at most 65,536."""
    import torch

    if model.device.type != "cuda":
        return CPU_BUDGET
    config = model.config.get_text_config()
    width = config.hidden_size
    inner = getattr(config, "intermediate_size", None) or 4 * width
    free, _ = torch.cuda.mem_get_info(model.device)
    per_token = model.dtype.itemsize * (12 * width + 3 * inner)
    return int(min(65_536, max(512, 0.6 * free / per_token)))


def _absent(sequences: Sequence[Sequence[int]]) -> int:
    there = {token for ids in sequences for token in ids}
    return next(i for i in range(len(there) + 1) if i not in there)


def _out_of_memory(error: Exception) -> bool:
    import torch

    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
