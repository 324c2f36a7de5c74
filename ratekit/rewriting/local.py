"""A chat with a model on this machine, by `transformers`: each reply comes when it ends, and frees its place.

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

from ratekit.checkpoints import check_folder, check_template
from ratekit.errors import InputError, WorkError, require_whole, shorten
from ratekit.rewriting.base import Reply
from ratekit.rewriting.slots import fits, generate
from ratekit.schema import Conversation

log = logging.getLogger("ratekit")

LEAST_ROOM = 32_768  # tokens


@dataclass
class LocalChat:
    """A chat with the model in a local folder or of a hub id, loaded at the first call.

    Parameters
    ----------
    model : str
        A folder, or an id of the hub.
    max_tokens : int
        New ones at most; a reply that has not ended by then has finish_reason "length".
    temperature : float
        0 is greedy; above it, sampling that `seed` and the text decide, whatever was drawn before. The default is that
        of the other chats.
    seed : int
        Of the sampling.
    top_p : float, optional
        Share of the probability that is sampled from.
    batch_tokens : int, optional
        Tokens (of texts and what may be generated) that are held at a time; halved where memory runs out. By default
        32,768, or on one GPU what half of its free memory holds of their keys and values, where that is more.
    device : str, optional
        "cuda", "mps" or "cpu"; by default what is there.
    dtype : str, optional
        Of the weights; by default float32 on a CPU, else the model's own.

    Raises
    ------
    InputError
        Where the model cannot be loaded or has no chat template.

    Examples
    --------
    >>> chat = LocalChat("Qwen/Qwen3-4B-Instruct-2507", max_tokens=512)
    >>> replies = list(chat([[{"role": "user", "content": "Hello"}]]))  # doctest: +SKIP
    """

    model: str
    max_tokens: int = 2048
    temperature: float = 0.7
    seed: int = 0
    top_p: float | None = None
    batch_tokens: int | None = None
    device: str | None = None
    dtype: str | None = None
    at_once: int = field(default=256, repr=False)  # texts taken from the run at a time, so that processes can share

    paid = True  # not in money, but in hours

    def __post_init__(self) -> None:
        for name, least in {"max_tokens": 1, "seed": 0, "at_once": 1}.items():
            require_whole(name, getattr(self, name), least)
        if self.batch_tokens is not None:
            require_whole("batch_tokens", self.batch_tokens, 1)

    @property
    def params(self) -> str:
        """What a reply depends on besides the model and the messages."""
        sampling = f",seed={self.seed}" if self.temperature > 0 else ""
        sampling += f",top_p={self.top_p}" if self.temperature > 0 and self.top_p is not None else ""
        return f"transformers,max_tokens={self.max_tokens},temperature={self.temperature}{sampling}"

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer, padding on the left. Raises InputError."""
        from transformers import AutoTokenizer

        check_folder(self.model)
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.model)
        except Exception as e:  # transformers raises many kinds; all mean that there is no model to ask
            raise InputError(f"the model {self.model!r} cannot be loaded: {shorten(e, 160)}") from None
        if not tokenizer.chat_template:
            raise InputError(f"{self.model!r} has no chat template: it is no chat model")
        check_template(tokenizer, self.model)
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
            model: Any
            model, report = AutoModelForCausalLM.from_pretrained(
                self.model,
                use_safetensors=True,
                output_loading_info=True,
                dtype=self.dtype or ("float32" if device == "cpu" else "auto"),
                device_map="auto" if spread else None,
            )
        except Exception as e:
            raise InputError(f"the model {self.model!r} cannot be loaded: {shorten(e, 160)}") from None
        if lacking := sorted(report["missing_keys"]):
            raise InputError(
                f"the model {self.model!r} holds no {lacking[0]}, as a {type(model).__name__} has: it would be random, "
                "and so would be the rewrites; is it a chat model?"
            )
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
        """Yield each reply when it ends; the longest texts are begun first."""
        ids = [self._encode(conversation) for conversation in conversations]
        longest = int(getattr(self._loaded.config, "max_position_embeddings", None) or 10**9)
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        for i in [i for i in order if len(ids[i]) >= longest]:
            log.warning(
                "%s: a text of %d tokens is longer than it reads (%d)", Path(self.model).name, len(ids[i]), longest
            )
            yield Reply(i, None, "error")
        order = [i for i in order if len(ids[i]) < longest]
        refill = bool(order) and fits(self._loaded)
        self.batch_tokens = self.batch_tokens or _room(self._loaded)
        while order:
            room = min(self.max_tokens, longest - len(ids[order[0]]))
            size = max(1, self.batch_tokens // (len(ids[order[0]]) + room))
            made = self._refilled(order, ids, longest, size) if refill else self._in_batches(order[:size], ids, room)
            try:
                for i, tokens in made:
                    order.remove(i)
                    yield self._reply(i, tokens, len(ids[i]))
            except _out_of_memory():
                self._halve(size, len(ids[order[0]]))
            except RuntimeError as e:
                raise WorkError(
                    f"{self.model}: the generation failed ({shorten(e, 160)}); what arrived is kept"
                ) from None

    def _encode(self, conversation: Conversation) -> list[int]:
        tokenizer = self.tokenizer
        try:
            text = tokenizer.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
        except Exception as e:  # jinja and templates raise many kinds; every text is asked about in the same form
            raise InputError(f"the chat template of {self.model!r} refuses the question ({shorten(e, 160)})") from None
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    def _refilled(
        self, order: list[int], ids: list[list[int]], longest: int, size: int
    ) -> Iterator[tuple[int, list[int]]]:
        begun = list(order)
        made = generate(
            self._loaded, [ids[i] for i in begun], [min(self.max_tokens, longest - len(ids[i])) for i in begun], size,
            self._ends, self.temperature, self.top_p or 1.0, [self._seed_of([ids[i]]) for i in begun],
        )  # fmt: skip
        return ((begun[k], tokens) for k, tokens in made)

    def _in_batches(self, batch: list[int], ids: list[list[int]], room: int) -> Iterator[tuple[int, list[int]]]:
        """By the model's own `generate`, for caches that `slots.generate` does not know."""
        import torch

        model = self._loaded
        padded = self.tokenizer.pad({"input_ids": [ids[i] for i in batch]}, return_tensors="pt").to(model.device)
        sampling: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if self.temperature > 0:
            sampling = {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p or 1.0, "top_k": 0}
        with torch.inference_mode(), torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))):
            torch.manual_seed(self._seed_of([ids[i] for i in batch]))
            made = model.generate(**padded, max_new_tokens=room, pad_token_id=self.tokenizer.pad_token_id, **sampling)
        for i, tokens in zip(batch, made[:, padded["input_ids"].shape[1] :].tolist(), strict=True):
            stop = next((k for k, token in enumerate(tokens) if token in self._ends), len(tokens) - 1)
            yield i, tokens[: stop + 1]

    def _reply(self, i: int, tokens: list[int], read: int) -> Reply:
        ended = tokens[-1] in self._ends
        text = self.tokenizer.decode(tokens[:-1] if ended else tokens, skip_special_tokens=True)
        return Reply(i, text, "stop" if ended else "length", {"prompt": read, "completion": len(tokens)})

    def _halve(self, size: int, longest: int) -> None:
        import torch

        torch.cuda.empty_cache()
        if size == 1:
            raise WorkError(f"{self.model}: out of memory with one text of {longest} tokens")
        assert self.batch_tokens is not None
        self.batch_tokens = max(1, self.batch_tokens // 2)

    @cached_property
    def _ends(self) -> set[int]:
        given = self._loaded.generation_config.eos_token_id
        listed = given if isinstance(given, list) else [given]
        return {int(token) for token in (*listed, self.tokenizer.eos_token_id) if token is not None}

    def _seed_of(self, batch: list[list[int]]) -> int:
        text = f"{self.seed}|{batch}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")


def _room(model: Any) -> int:
    """Tokens to hold at a time: half of a GPU's free memory, in keys and values of every layer."""
    import torch

    if model.device.type != "cuda" or torch.cuda.device_count() > 1:
        return LEAST_ROOM
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    each = 2 * config.num_hidden_layers * heads * width * model.dtype.itemsize
    free, _ = torch.cuda.mem_get_info(model.device)
    return max(LEAST_ROOM, int(free // 2 // each))


def _out_of_memory() -> type[Exception]:
    import torch

    return torch.OutOfMemoryError
