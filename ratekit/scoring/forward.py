"""Running texts through a model: packed where that is exact, padded where it is not, one at a time where neither is.

No path is taken on trust. When a model is loaded, texts of unequal length and texts in which its special tokens are
written out are scored one by one through its own forward. Every other path (packed, padded), and packed with the last
layer run for the rows that are read alone, must give the same, within rounding, or is not used. A text that is
longer than all that the path was held against is compared once more before it is scored, for windows and dynamic
positions begin at a length. A model whose own forward does not repeat itself is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ratekit.errors import InputError, WorkError, shorten
from ratekit.scoring import packing
from ratekit.scoring.packing import Running, packed
from ratekit.scoring.pruning import prune_last_layer
from ratekit.scoring.readout import Encoded, Readout

log = logging.getLogger("ratekit")

PATHS = ("packed", "padded", "single")
FEW_ROWS = 8  # the rows that are read come in multiples of it, for the reason that packing.filler gives
CPU_BUDGET = 2048  # tokens in a forward pass; larger ones fall out of the processor's cache
TOLERANCE = {"float32": 1e-4, "float64": 1e-9, "float16": 0.03, "bfloat16": 0.125}  # of the scores' spread


class _Pass(NamedTuple):
    """The texts that go through the model together."""

    members: list[int]
    n_tokens: int
    pack: Any = None


class Forward:
    """A loaded model that can be asked for the numbers of any texts.

    Parameters
    ----------
    model
        A `transformers` model on its device, in eval mode.
    readout
        How it is read (readout.py).
    budget
        Tokens in a forward pass; by default 2048 on a CPU, and what the free memory allows on a GPU.
    path
        "auto" takes the first of packed, padded and single that `check` finds exact; a name insists on that one.
        "single" also leaves the layers as they are, for those who look into the model.
    """

    def __init__(self, model: Any, readout: Readout, budget: int | None = None, path: str = "auto") -> None:
        if path not in ("auto", *PATHS):
            raise InputError(f"path={path!r}: one of auto, {', '.join(PATHS)} was expected")
        self.model, self.readout, self.wanted = model, readout, path
        self.path = "single" if path == "auto" else path
        self.budget = budget or memory_budget(model)
        self.pruned = False
        self.varlen = packing.can_varlen(model.device.type, str(model.dtype).removeprefix("torch."))
        self.n_run = 0  # tokens run so far, fillers not counted
        self.worst: float | None = None  # the largest difference to one by one that was seen on the path taken
        self.name = "the model"
        self.compared = 0  # tokens of the longest text that the path was held against one by one with
        self._scale = 0.0  # of the scores that it was held against
        model.config.use_cache = False
        model.base_model.warn_if_padding_and_no_attention_mask = _no_warning  # packed texts need no mask
        self.alone = _depends_on_company(model.config)
        # RoBERTa and its kin number positions from after the padding token's, and give a padding token no number.
        embeddings: Any = getattr(model.base_model, "embeddings", None)
        shifted = hasattr(embeddings, "create_position_ids_from_input_ids")
        self.unnumbered: int | None = embeddings.padding_idx if shifted else None
        self.least_shared = packing.LEAST_SHARED if readout.causal and not shifted else 0
        self._state = _State(model)

    # --- choosing a path ------------------------------------------------------------------------------------

    def check(self, texts: Sequence[Encoded], name: str = "the model") -> None:
        """Choose the path, and what is made fast, by what these texts score one by one.

        Raises
        ------
        InputError
            Where one text alone gets another score the second time.
        WorkError
            Where the path insisted on is not exact, or the model's own forward fails.
        """
        self.name = name
        texts, alone = self._readable(texts)
        self._scale, self.compared = score_scale(alone), max(len(text.ids) for text in texts)
        longest = max(range(len(texts)), key=lambda i: len(texts[i].ids))
        some = [0, longest]
        if not _near(self.one_by_one([texts[i] for i in some]), alone[some], self._allowed()):
            raise InputError(
                f"{name} gives one text another score each time it is asked (attention that hashes at random does so); "
                "it cannot be used as a reward"
            )
        reasons = self._choose(texts, alone, PATHS if self.wanted == "auto" else (self.wanted,))
        if self.path == "single" and self.wanted == "auto":
            log.warning("%s: texts are run one at a time, which is slow (%s)", name, _said(reasons))
        elif reasons:
            log.info("%s: texts are padded, for packed ones are not exact (%s)", name, reasons["packed"])
        self.pruned = self.path == "packed" and self._prune(texts, alone)

    def _choose(self, texts: Sequence[Encoded], alone: NDArray[np.float64], paths: Sequence[str]) -> dict[str, str]:
        """Take the first of the paths that gives these texts what they get alone; why each before it does not."""
        reasons: dict[str, str] = {}
        for path in paths:
            self.path = path
            why = self._differs(texts, alone)
            if why is not None and self.varlen and path == "packed":
                log.info("%s: attention runs segment by segment (%s)", self.name, why)
                self.varlen = False
                why = self._differs(texts, alone)
            if why is None:
                return reasons
            reasons[path] = why
        raise WorkError(f"this model cannot be run {self.wanted}: {reasons[paths[-1]]}")

    def _look_further(self, texts: Sequence[Encoded]) -> None:
        """Compare again where a text is longer than those that the path was chosen on: what is exact may end there."""
        by_length = sorted(texts, key=lambda text: len(text.ids))
        if self.path == "single" or not self.compared or len(by_length[-1].ids) <= self.compared:
            return
        self.compared = len(by_length[-1].ids)
        try:  # the two longest, which share a pass, and the shortest
            few, alone = self._readable(dict.fromkeys([by_length[-1], by_length[-2:][0], by_length[0]]))
        except WorkError:
            return  # texts that the model fails on are null
        was, worst = self.path, self.worst or 0.0
        self._scale = max(self._scale, score_scale(alone))
        reasons = self._choose(few, alone, PATHS[PATHS.index(was) :] if self.wanted == "auto" else (was,))
        if self.path == was:
            self.worst = max(worst, self.worst or 0.0)
            return
        self.pruned = False
        log.warning(
            "%s: from here on texts are run %s, for one of %d tokens does not get the score that it gets alone (%s)",
            self.name, "one at a time" if self.path == "single" else self.path, self.compared, _said(reasons),
        )  # fmt: skip

    def _readable(self, texts: Iterable[Encoded]) -> tuple[list[Encoded], NDArray[np.float64]]:
        """The texts that the model's own forward takes, and what it gives for them one by one."""
        found, outputs, reason = [], [], "there is no text"
        for text in texts:
            try:
                outputs.append(self.one_by_one([text]))
                found.append(text)
            except Exception as e:  # model code may raise anything; a text that fails is null when it is scored
                reason = shorten(e, 120) or type(e).__name__
        if not found:
            raise WorkError(f"{self.name}: the model's own forward pass fails ({reason})")
        return found, np.concatenate(outputs)

    def _prune(self, texts: Sequence[Encoded], alone: NDArray[np.float64]) -> bool:
        """Whether the last layer could be pruned, with the scores as they were."""
        worst = self.worst
        try:
            undo = prune_last_layer(self.model)
        except Exception as e:  # a model that is built in another way
            log.info("%s: the last layer is run whole (%s)", type(self.model).__name__, shorten(e, 80))
            return False
        why = self._differs(texts, alone) if undo is not None else None
        if undo is not None and why is not None:
            undo()
            self.worst = worst
            log.info("%s: the last layer is run whole (%s)", type(self.model).__name__, why)
        return undo is not None and why is None

    def _differs(self, texts: Sequence[Encoded], alone: NDArray[np.float64]) -> str | None:
        """Why the path in use does not give what one by one gives; None where it does."""
        if self.path == "packed" and self.readout.from_hidden is None:
            return "only its own forward reads it"
        if self.path != "single" and self.alone:
            return "its positions depend on the longest text of a pass"
        try:
            got, failed = self._run(texts)
        except Exception as e:  # model code that was not made for this may raise anything
            return shorten(e, 80)
        if failed:
            return next(iter(failed.values()))
        if not _near(got, alone, self._allowed()):
            return f"they differ by {_distance(got, alone):.2g} from one by one"
        self.worst = _distance(got, alone)
        return None

    def _allowed(self) -> float:
        return TOLERANCE[str(self.model.dtype).removeprefix("torch.")] * self._scale

    # --- running --------------------------------------------------------------------------------------------

    def __call__(self, texts: Sequence[Encoded]) -> NDArray[np.float64]:
        """(n, k) outputs of n texts; NaN for a text that the model fails on."""
        return self.run(texts)[0]

    def run(self, texts: Sequence[Encoded]) -> tuple[NDArray[np.float64], dict[int, str]]:
        """(n, k) outputs of n texts, each distinct one run once, and of those that failed the reason."""
        if not texts:
            return np.empty((0, 1)), {}
        self._look_further(texts)
        return self._run(texts)

    def _run(self, texts: Sequence[Encoded]) -> tuple[NDArray[np.float64], dict[int, str]]:
        unique, inverse = packing.distinct_items(texts)
        if self.path == "packed":
            with packed(self.model):
                rows, failed = self._passes(unique, self._cut_into_packs, self._run_pack)
        else:
            rows, failed = self._passes(unique, self._cut_into_batches, lambda _, members: self._whole(members))
        width = next((len(row) for row in rows if row is not None), 1)
        nothing = np.full(width, np.nan)
        found = np.array([nothing if row is None else row for row in rows])
        return found[inverse], {i: failed[k] for i, k in enumerate(inverse) if k in failed}

    def one_by_one(self, texts: Sequence[Encoded]) -> NDArray[np.float64]:
        """(n, k) outputs by the model's own forward on each text alone: what every other path is held against."""
        outputs = []
        for text in texts:
            outputs.append(self._whole([text]))
            self._state.restore()
        return np.concatenate(outputs)

    def _cut_into_packs(self, texts: list[Encoded], rows: list[int]) -> Iterator[_Pass]:
        for pack in packing.packs([texts[i].ids for i in rows], self.budget, self.least_shared):
            yield _Pass([rows[m] for m in pack.members], len(pack.tokens), pack)

    def _cut_into_batches(self, texts: list[Encoded], rows: list[int]) -> Iterator[_Pass]:
        lengths = [len(texts[i].ids) for i in rows]
        for batch in packing.batches(lengths, 1 if self.path == "single" else self.budget):
            yield _Pass([rows[i] for i in batch], sum(lengths[i] for i in batch))

    def _passes(
        self,
        texts: list[Encoded],
        cut: Callable[[list[Encoded], list[int]], Iterator[_Pass]],
        run: Callable[[Any, list[Encoded]], NDArray[np.float64]],
    ) -> tuple[list[NDArray[np.float64] | None], dict[int, str]]:
        """Pass by pass. One that fails is cut smaller, and a text that fails by itself is None, with the reason."""
        waiting = [list(range(len(texts)))]
        out: list[NDArray[np.float64] | None] = [None] * len(texts)
        failed: dict[int, str] = {}
        while waiting:
            for one in cut(texts, waiting.pop()):
                reason, no_memory = "", False
                try:
                    got = run(one.pack, [texts[i] for i in one.members])
                except Exception as e:  # whatever model code raises for one text is no reason to lose the others
                    reason, no_memory = shorten(e, 120) or type(e).__name__, _out_of_memory(e)
                changed = self._state.restore()
                if no_memory:  # outside the except clause, whose traceback holds on to the memory
                    _free_memory()
                if changed and len(one.members) > 1 and not reason:
                    reason = "the pass left the model changed"
                if not reason:
                    self.n_run += one.n_tokens
                    for i, row in zip(one.members, got, strict=True):
                        out[i] = row
                elif len(one.members) == 1:
                    failed[one.members[0]] = reason
                elif no_memory:
                    self.budget = max(1, min(self.budget, one.n_tokens) // 2)
                    log.warning("out of memory with %d tokens in a pass; going on with %d", one.n_tokens, self.budget)
                    waiting.append(one.members)
                else:
                    waiting += [[i] for i in one.members]
        return out, failed

    def _run_pack(self, pack: packing.Pack, texts: list[Encoded]) -> NDArray[np.float64]:
        import torch

        assert self.readout.from_hidden is not None
        rows = [self.readout.rows(text) for text in texts]
        places = [pack.place(m, r) for m, rs in enumerate(rows) for r in rs]
        n_places, n_tokens = len(places), len(pack.tokens)
        if self.model.device.type == "cpu":
            places += places[-1:] * (-n_places % FEW_ROWS)
            n_tokens += packing.filler(n_tokens)
        running = Running(pack, places, self.readout.causal, self.model.device, self.varlen)
        types: list[int] = []
        if texts[0].types:
            types = [0] * n_tokens
            for m, text in enumerate(texts):
                for position, kind in enumerate(text.types):
                    types[pack.place(m, position)] = kind
        inputs = {"input_ids": pack.tokens, "position_ids": self._positions(pack, texts), "token_type_ids": types}
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

    def _positions(self, pack: packing.Pack, texts: list[Encoded]) -> list[int]:
        if self.unnumbered is None:
            return pack.positions
        positions = list(pack.positions)
        for m, text in enumerate(texts):
            n = self.unnumbered
            for i, token in enumerate(text.ids):
                n += token != self.unnumbered
                positions[pack.place(m, i)] = n if token != self.unnumbered else self.unnumbered
        return positions

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


class _State:
    """What a forward pass may change in a model and the next one would see: buffers, plain values, submodules.

    Dynamic rotary positions grow with the longest text so far, and BigBird gives up its sparse attention for good at
    the first short text: with the state put back after each pass, a score depends on its own text alone.
    """

    LARGEST = 1 << 16  # entries of a buffer that is compared; larger ones are tables, made once

    def __init__(self, model: Any) -> None:
        self.kept = [(m, _plain(m), dict(m._buffers), dict(m._modules)) for m in model.modules()]
        small = (b for _, _, buffers, _ in self.kept for b in buffers.values())
        self.values = {id(b): (b, b.clone()) for b in small if b is not None and b.numel() <= self.LARGEST}

    def restore(self) -> bool:
        """Put everything back; whether anything was not as it had been."""
        import torch

        changed = False
        for module, plain, buffers, modules in self.kept:
            now = _plain(module)
            if now != plain:
                changed = True
                for name in now.keys() - plain.keys():
                    delattr(module, name)
                module.__dict__.update(plain)
            for kept, held in ((buffers, module._buffers), (modules, module._modules)):
                if len(held) != len(kept) or any(held.get(name) is not value for name, value in kept.items()):
                    changed = True
                    held.clear()
                    held.update(kept)
        for buffer, value in self.values.values():
            if not torch.equal(buffer, value):
                changed = True
                with torch.inference_mode():
                    buffer.copy_(value)
        return changed


def _plain(module: Any) -> dict[str, Any]:
    """A module's numbers and words; tensors without a dimension are numbers."""
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, bool | int | float | str) or getattr(value, "ndim", None) == 0
    }


def _no_warning(*_: Any) -> None:
    """Say nothing."""


def _depends_on_company(config: Any) -> bool:
    """Whether rotary positions depend on the longest text in the pass, so that texts may not share one."""
    rope = getattr(config.get_text_config(), "rope_parameters", None) or {}
    kinds = [rope, *rope.values()] if isinstance(rope, dict) else []
    return any(isinstance(kind, dict) and kind.get("rope_type") in ("dynamic", "longrope") for kind in kinds)


def score_scale(scores: NDArray[np.float64]) -> float:
    """The scale on which differences of scores (n, k) are judged: their SD, or a tenth of their size."""
    finite = scores[np.isfinite(scores).all(axis=1)]
    if not len(finite):
        return 1e-6
    return max(float(finite.std(axis=0).max()), 0.1 * float(np.abs(finite).max()), 1e-6)


def _distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The largest difference; infinite where one is a number and the other is none."""
    if a.shape != b.shape or (np.isfinite(a) != np.isfinite(b)).any():
        return float("inf")
    finite = np.isfinite(a)
    return float(np.abs(a[finite] - b[finite]).max(initial=0.0))


def _near(a: NDArray[np.float64], b: NDArray[np.float64], allowed: float) -> bool:
    return _distance(a, b) <= allowed


def _said(reasons: dict[str, str]) -> str:
    return "; ".join(f"{path}: {why}" for path, why in reasons.items())


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
    from accelerate.utils.memory import should_reduce_batch_size

    return isinstance(error, torch.OutOfMemoryError | MemoryError) or should_reduce_batch_size(error)


def _free_memory() -> None:
    from accelerate.utils.memory import clear_device_cache

    clear_device_cache(garbage_collection=True)
