"""A `transformers` model as a reward: loaded safely, read as its adapter says, run as fast as is exact.

reward = RewardModel("sfairXC/FsfairX-LLaMA3-RM-v0.1")
reward(["Why is the sky blue?"], ["Because of Rayleigh scattering."])
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratekit.errors import InputError
from ratekit.lora import is_adapter
from ratekit.schema import ANSWER_MASS
from ratekit.scoring import packing, readout
from ratekit.scoring.adapters import Adapter, adapter_of, positive_label
from ratekit.scoring.base import FAILED, NOT_FINITE, TOO_LONG, TRUNCATED, CalledByScores, Scores
from ratekit.scoring.encoding import Encoder
from ratekit.scoring.forward import Forward
from ratekit.scoring.loading import (
    config_and_tokenizer,
    embedding_rows,
    folder_hash,
    load_model,
    longest,
    lora_model,
    weights_hash,
)
from ratekit.scoring.readout import Encoded

log = logging.getLogger("ratekit")

# Texts that a model is held against itself with when it is loaded: shared beginnings, one that another begins with,
# lengths from a few tokens to a few hundred, several alphabets. `RewardModel.probe` adds its special tokens.
PROBE: tuple[tuple[str, str], ...] = (
    ("Why is the sky blue?", "Because air scatters blue light more than red light."),
    ("Why is the sky blue?", "Because air scatters blue light more than red light. This is Rayleigh scattering, and "
     "it is why the sun looks red when it sets: its light has come a long way through the air."),
    ("Why is the sky blue?", "No idea."),
    ("Write a review of a film that you saw last week, and say whether you would see it again.",
     "The plot is thin, but the two leads carry it. I would see it again."),
    ("Write a review of a film that you saw last week, and say whether you would see it again.",
     "The plot is thin, and the two leads cannot carry it.\n\n- too long\n- too loud\n\nI would not see it again."),
    ("¿Qué hora es?", "Son las cinco y media; 5:30, más o menos."),
    ("Sort [3, 1, 2].", "[1, 2, 3]"),
    ("Sort [3, 1, 2].", "sorted([3, 1, 2])  # -> [1, 2, 3]"),
    ("Sort [3, 1, 2].", " ".join(
        f"In step {i} the {a} of two neighbours goes to the {b}, so that after it {i} of them stand where they belong."
        for i, (a, b) in enumerate([("smaller", "left"), ("larger", "right")] * 2, 1)
    )),
)  # fmt: skip

LEAST_MASS = 0.1  # of the probability that a judge's two answers should have together


class RewardModel(CalledByScores):
    """The reward of a model folder or hub id, loaded when it is made.

    Parameters
    ----------
    model
        local folder or hub id; safetensors only; a LoRA adapter's folder is the model that it makes
    adapter
        how it is read, a name in `ADAPTERS` or an `Adapter`; by default known by its id, or guessed
    revision
        of a hub model; by default the newest
    device
        "cuda", "mps" or "cpu"; by default the first that is there
    dtype
        "float32", "bfloat16" or "float16"; by default the checkpoint's own on a GPU (float16 instead of bfloat16 where
        it has none), float32 elsewhere
    max_length
        tokens; by default what the model and its tokenizer allow
    token_budget
        tokens in a forward pass; by default what the memory allows; halved when the memory runs out
    path
        "auto", or "packed", "padded", "single" (forward.py)
    truncation
        what a text that is too long loses first: "prompt" (its beginning, then the response's beginning) or "response"
        (its end, then the prompt's beginning)
    weights
        a state dict that takes the place of the weights in the folder
    probe
        "whole" holds the model against itself on every text of the probe; "short" on three of them, for weights of an
        architecture that was probed whole before
    trust_remote_code
        run code that comes with the model; off unless asked for

    Raises
    ------
    InputError
        Where the model is no reward model or cannot be loaded safely.

    Examples
    --------
    >>> reward = RewardModel("sfairXC/FsfairX-LLaMA3-RM-v0.1")  # doctest: +SKIP
    >>> reward(["Why?"], ["Because."]).shape  # doctest: +SKIP
    (1,)
    """

    def __init__(
        self,
        model: str | Path,
        adapter: str | Adapter | None = None,
        *,
        revision: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        max_length: int | None = None,
        token_budget: int | None = None,
        path: str = "auto",
        truncation: str = "prompt",
        weights: Mapping[str, Any] | None = None,
        probe: str = "whole",
        trust_remote_code: bool = False,
    ) -> None:
        self.source = str(model)
        folder = Path(model).expanduser()
        self.name = folder.resolve().name if folder.is_dir() else self.source
        self._beside = ""
        if is_adapter(folder):
            config, self.tokenizer, made, self._beside = lora_model(folder, trust_remote_code)
            weights = weights if weights is not None else dict(made)
        else:
            config, self.tokenizer = config_and_tokenizer(self.source, revision, trust_remote_code)
        self.adapter = adapter_of(self.source, adapter, config, bool(self.tokenizer.chat_template))
        if self.adapter.reads == "objectives" and not trust_remote_code:
            raise InputError(f"{self.name} is read by code that comes with it; say trust_remote_code=True to run it")
        self._weights = weights_hash(weights) if weights is not None else None
        self.model = load_model(self.source, config, self.adapter, revision, device, dtype, trust_remote_code, weights)
        self.encode = Encoder(
            self.tokenizer, self.adapter, self.name, max_length or longest(self.model, self.tokenizer), truncation
        )
        for fault in self.encode.faults():
            log.warning("%s: %s", self.name, fault)
        self.rows = embedding_rows(self.model)
        self.forward = Forward(self.model, self._readout(), token_budget, path)
        texts = self.probe()
        if probe == "short":  # the shortest, the longest, and one with special tokens in it
            by_length = sorted(texts, key=lambda text: len(text.ids))
            texts = list(dict.fromkeys([by_length[0], by_length[-1], texts[-1]]))
        self._compared = len(texts)
        self.forward.check(texts, self.name)
        self.n_truncated = 0
        self._mass_said = False

    def scores(self, prompts: Sequence[Any], responses: Sequence[str]) -> Scores:
        """The rewards, and of each text whether and how it was read."""
        texts, statuses, reasons = self._encoded(prompts, responses)
        places = [i for i, text in enumerate(texts) if text is not None]
        outputs, failed = self.forward.run([texts[i] for i in places])  # type: ignore[misc]
        rewards = np.full(len(texts), np.nan)
        named = (ANSWER_MASS,) if self.adapter.reads == "yes_no" else self.adapter.objectives
        parts = {name: np.full(len(texts), np.nan) for name in named}
        if len(places) > len(failed):
            rewards[places] = outputs[:, self._column]
            for k, name in enumerate(parts, 1):
                parts[name][places] = outputs[:, k]
        for k, i in enumerate(places):
            if not np.isfinite(rewards[i]):
                statuses[i], rewards[i] = FAILED if k in failed else NOT_FINITE, np.nan
        self.n_truncated += sum(s == TRUNCATED for s in statuses)
        tokens = np.array([len(t.ids) if t else 0 for t in texts], dtype=np.int64)
        if failed:
            reasons.setdefault(FAILED, next(iter(failed.values())))
        if self.adapter.reads == "yes_no" and len(places) > len(failed):
            self._look_at_mass(outputs[:, 1])
        return Scores(rewards, statuses, parts, tokens, reasons)

    def _encoded(
        self, prompts: Sequence[Any], responses: Sequence[str]
    ) -> tuple[list[Encoded | None], list[str], dict[str, str]]:
        """The texts' tokens, but of those with none, or one that the model has no row for, at which a GPU stops."""
        texts, statuses = self.encode(prompts, responses)
        reasons: dict[str, str] = {}
        for i, text in enumerate(texts):
            most = max(text.ids, default=self.rows) if text is not None else -1
            if text is not None and most >= self.rows:
                name = self.tokenizer.convert_ids_to_tokens(int(most)) if text.ids else None
                reasons[FAILED] = (
                    f"its tokenizer makes {name!r} token {most}, and it has {self.rows} rows"
                    if text.ids
                    else "its tokenizer makes no token of a text"
                )
                texts[i], statuses[i] = None, FAILED
        return texts, statuses, reasons

    def _look_at_mass(self, mass: NDArray[np.float64]) -> None:
        """Say it once where the judge would say something else than one of the two answers."""
        median = float(np.nanmedian(mass)) if np.isfinite(mass).any() else 1.0
        if median < LEAST_MASS and not self._mass_said:
            self._mass_said = True
            log.warning(
                "%s: its two answers %s have %.2g of the probability of what it would say next (median of %d texts): "
                "it is no judge of this kind",
                self.name, " and ".join(map(repr, self.adapter.answers)), median, len(mass),
            )  # fmt: skip

    def cost(self, prompts: Sequence[Any], responses: Sequence[str]) -> int:
        """How many tokens these texts take to run, shared beginnings counted once."""
        texts = {text.ids for text in self.encode(prompts, responses)[0] if text}
        if self.forward.path != "packed":
            return sum(map(len, texts))
        packs = packing.packs(list(texts), self.forward.budget, self.forward.least_shared)
        return sum(len(pack.tokens) for pack in packs)

    def record(self) -> dict[str, Any]:
        """How the model is run, to be kept beside its scores."""
        import torch
        import transformers

        return {
            **self.fingerprint,
            "device": str(self.model.device),
            "max_length": self.encode.max_length,
            "path": self.forward.path,
            "last_layer_pruned": self.forward.pruned,
            "token_budget": self.forward.budget,
            "largest_difference_to_one_by_one": self.forward.worst,
            "texts_compared": self._compared,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }

    def probe(self) -> list[Encoded]:
        """The probe's texts, as this model gets them, and one for each special token, written out in it."""
        special = [t for t in dict.fromkeys(self.tokenizer.all_special_tokens) if t]
        alone, together = special[:8], [" ".join(special[i : i + 8]) for i in range(8, len(special), 8)]
        pairs = [*PROBE, *(("Which token?", f"A {t} it is, and the last one is {t}") for t in (*alone, *together))]
        texts, statuses, _ = self._encoded([p for p, _ in pairs], [r for _, r in pairs])
        found = [text for text in texts if text is not None]
        if not found and TOO_LONG in statuses:
            raise InputError(
                f"{self.name}: one question and one answer do not fit into its {self.encode.max_length} tokens"
            )
        if not found:
            raise InputError(f"{self.name}: its chat template refuses one question and one answer")
        return found

    @property
    def dtype(self) -> str:
        """What it computes in."""
        return str(self.model.dtype).removeprefix("torch.")

    @cached_property
    def revision(self) -> str:
        """The hub's commit or a hash of what is in the folder; with other weights given, of those too."""
        commit = getattr(self.model.config, "_commit_hash", None)
        folder = Path(self.source).expanduser()
        beside = commit or self._beside or folder_hash(folder, weights=self._weights is None)
        return f"{self._weights}-{beside}" if self._weights else beside

    @property
    def fingerprint(self) -> dict[str, str]:
        """model, revision, adapter and dtype: with the text, all that a score depends on."""
        side = () if self.encode.truncation == "prompt" else (self.encode.truncation,)
        adapter = hashlib.sha256(repr((self.adapter, self.encode.max_length, *side)).encode()).hexdigest()[:8]
        return {
            "model": self.name,
            "revision": self.revision,
            "adapter": f"{self.adapter.name}-{adapter}",
            "dtype": self.dtype,
        }

    def _readout(self) -> readout.Readout:
        reads = self.adapter.reads
        self._column = 0
        if reads == "objectives":
            return readout.objectives(self.model)
        if reads == "log_likelihood":
            return readout.log_likelihood(self.model)
        if reads == "yes_no":
            return readout.yes_no(self.model, *self._answers())
        if reads == "token":
            return readout.token_logit(self.model, self._token(self.adapter.token))
        if reads == "positive":
            column = positive_label(self.model.config)
            if column is None:
                labels = ", ".join(map(str, (self.model.config.id2label or {}).values()))
                raise InputError(f"{self.name}: none of its labels ({labels}) says POSITIVE")
            self._column = column
        elif (n := self.model.config.num_labels) != 1:
            raise InputError(
                f"{self.name} has {n} outputs, and {self.adapter.name!r} reads the only one; adapter='positive' reads "
                "the one whose label says so, and a function (prompts, responses) -> rewards any other"
            )
        return readout.classifier(self.model)

    def _answers(self) -> tuple[int, int]:
        """The tokens that the two answers begin with, after the template's opening of an answer."""
        opened = self.encode.render("Why?", "Because.")
        before = self.tokenizer(opened, add_special_tokens=False)["input_ids"]
        found = []
        for word in self.adapter.answers:
            ids = self.tokenizer(opened + word, add_special_tokens=False)["input_ids"]
            if len(ids) <= len(before) or ids[: len(before)] != before:  # the template's end goes into the word's token
                before_word, ids = [], self.tokenizer(word, add_special_tokens=False)["input_ids"]
            else:
                before_word = before
            if len(ids) <= len(before_word):
                raise InputError(f"{self.name}: its tokenizer has no token for the answer {word!r}")
            found.append(int(ids[len(before_word)]))
        if found[0] == found[1]:
            token = self.tokenizer.convert_ids_to_tokens(found[0])
            a, b = self.adapter.answers
            raise InputError(
                f"{self.name}: the answers {a!r} and {b!r} begin with the same token ({token!r}), so that its logits "
                "cannot tell them apart; ask with an adapter of other answers"
            )
        return found[0], found[1]

    def _token(self, token: str | int) -> int:
        if isinstance(token, int):
            if not 0 <= token < self.model.config.get_text_config().vocab_size:
                raise InputError(f"{self.name} has no token number {token}")
            return token
        ids = self.tokenizer(token, add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            raise InputError(f"{self.name}: {token!r} is {len(ids)} tokens; the name of one token was expected")
        return int(ids[0])
