"""A chat with a model on this machine, by `transformers`: batches by length, and what was cut off is known.

Several GPUs: a model that one cannot hold is spread over them (`device_map="auto"`); for speed start one process per
GPU on the same cache, `accelerate launch --num_processes 4 -m ratekit rewrite ...`: each takes the texts that no
other has taken, and all end with the whole.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ratekit.errors import InputError, WorkError, shorten
from ratekit.rewriting.base import Reply
from ratekit.schema import Conversation

log = logging.getLogger("ratekit")


@dataclass
class LocalChat:
    """A chat with the model in a local folder or of a hub id, loaded at the first call.

    >>> chat = LocalChat("Qwen/Qwen3-4B-Instruct-2507", max_tokens=512)
    >>> replies = list(chat([[{"role": "user", "content": "Hello"}]]))  # doctest: +SKIP

    temperature   0 is greedy; above it, sampling that `seed` and the batch decide, whatever was drawn before
    max_tokens    new ones; a reply that has not ended by then has finish_reason "length"
    batch_tokens  tokens (with padding and what may be generated) in a batch; halved where memory runs out
    device        "cuda", "mps" or "cpu"; by default what is there

    Raises InputError where the model cannot be loaded or has no chat template.
    """

    model: str
    max_tokens: int = 1024
    temperature: float = 0.0
    seed: int = 0
    batch_tokens: int = 32_768
    device: str | None = None
    dtype: str | None = None
    at_once: int = field(default=256, repr=False)  # texts taken from the run at a time, so that processes can share

    paid = True  # not in money, but in hours

    @property
    def params(self) -> str:
        """What a reply depends on besides the model and the messages."""
        sampling = f",seed={self.seed}" if self.temperature > 0 else ""
        return f"transformers,max_tokens={self.max_tokens},temperature={self.temperature}{sampling}"

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer, padding on the left. Raises InputError."""
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(self.model)
        except Exception as e:  # transformers raises many kinds; all mean that there is no model to ask
            raise InputError(f"the model {self.model!r} cannot be loaded: {shorten(e, 160)}") from None
        if not tokenizer.chat_template:
            raise InputError(f"{self.model!r} has no chat template: it is no chat model")
        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer

    @cached_property
    def _loaded(self) -> Any:
        import torch
        from transformers import AutoModelForCausalLM

        distributed = int(os.environ.get("WORLD_SIZE", "1")) > 1
        spread = self.device is None and torch.cuda.device_count() > 1 and not distributed
        device = None if spread else self._device(distributed)
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(
                self.model,
                use_safetensors=True,
                dtype=self.dtype or ("float32" if device == "cpu" else "auto"),
                device_map="auto" if spread else None,
            )
        except Exception as e:
            raise InputError(f"the model {self.model!r} cannot be loaded: {shorten(e, 160)}") from None
        return (model if spread else model.to(device)).eval()

    def _device(self, distributed: bool) -> str:
        import torch

        if self.device:
            return self.device
        if distributed:
            from accelerate import PartialState

            return str(PartialState().device)
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"

    def __call__(self, conversations: list[Conversation]) -> Iterator[Reply]:
        """Replies as their batches are done, the longest texts first."""
        ids = [self._encode(conversation) for conversation in conversations]
        longest = int(getattr(self._loaded.config, "max_position_embeddings", None) or 10**9)
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        for i in [i for i in order if len(ids[i]) >= longest]:
            log.warning(
                "%s: a text of %d tokens is longer than it reads (%d)", Path(self.model).name, len(ids[i]), longest
            )
            yield Reply(i, None, "error")
        order = [i for i in order if len(ids[i]) < longest]
        while order:
            room = min(self.max_tokens, longest - len(ids[order[0]]))
            size = max(1, self.batch_tokens // (len(ids[order[0]]) + room))
            batch, order = order[:size], order[size:]
            yield from self._generate(batch, ids, room)

    def _encode(self, conversation: Conversation) -> list[int]:
        text = self.tokenizer.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _generate(self, batch: list[int], ids: list[list[int]], room: int) -> Iterator[Reply]:
        import torch

        model = self._loaded
        padded = self.tokenizer.pad({"input_ids": [ids[i] for i in batch]}, return_tensors="pt").to(model.device)
        sampling: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if self.temperature > 0:
            sampling = {"do_sample": True, "temperature": self.temperature, "top_p": 1.0, "top_k": 0}
        try:
            with torch.inference_mode(), torch.random.fork_rng(devices=_cuda_devices()):
                torch.manual_seed(self._seed_of([ids[i] for i in batch]))
                made = model.generate(
                    **padded, max_new_tokens=room, pad_token_id=self.tokenizer.pad_token_id, **sampling
                )
        except torch.OutOfMemoryError:
            made = None
        except RuntimeError as e:
            raise WorkError(f"{self.model}: the generation failed ({shorten(e, 160)}); what arrived is kept") from None
        if made is None:
            yield from self._halved(batch, ids, room)
            return
        ends = _ends(model, self.tokenizer)
        for i, tokens in zip(batch, made[:, padded["input_ids"].shape[1] :].tolist(), strict=True):
            stop = next((k for k, token in enumerate(tokens) if token in ends), None)
            text = self.tokenizer.decode(tokens[:stop], skip_special_tokens=True)
            usage = {"prompt": len(ids[i]), "completion": len(tokens) if stop is None else stop + 1}
            yield Reply(i, text, "length" if stop is None else "stop", usage)

    def _halved(self, batch: list[int], ids: list[list[int]], room: int) -> Iterator[Reply]:
        import torch

        torch.cuda.empty_cache()
        if len(batch) == 1:
            raise WorkError(f"{self.model}: out of memory with one text of {len(ids[batch[0]])} tokens")
        self.batch_tokens = max(1, self.batch_tokens // 2)
        half = (len(batch) + 1) // 2
        yield from self._generate(batch[:half], ids, room)
        yield from self._generate(batch[half:], ids, room)

    def _seed_of(self, batch: list[list[int]]) -> int:
        text = f"{self.seed}|{batch}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")


def _cuda_devices() -> list[int]:
    import torch

    return list(range(torch.cuda.device_count()))


def _ends(model: Any, tokenizer: Any) -> set[int]:
    given = model.generation_config.eos_token_id
    listed = given if isinstance(given, list) else [given]
    return {int(token) for token in (*listed, tokenizer.eos_token_id) if token is not None}
