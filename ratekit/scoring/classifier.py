"""A `transformers` sequence classifier as a reward: one logit per (prompt, response).

Decoders see the conversation through the model's own chat template, encoders without one see the pair
(prompt, response). Texts that are too long are cut and counted (`n_truncated`): the prompt loses its beginning first,
the response keeps its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratekit.errors import InputError, WorkError, shorten
from ratekit.schema import Conversation, as_conversation, prompt_text


class SequenceClassifier:
    """The reward of a model folder or hub id, loaded when it is made.

    >>> reward = SequenceClassifier("sfairXC/FsfairX-LLaMA3-RM-v0.1")  # doctest: +SKIP
    >>> reward(["Why?"], ["Because."]).shape  # doctest: +SKIP
    (1,)

    model              local folder or hub id, with one output; safetensors only
    batch_size         texts in a forward pass; the texts are sorted by length first
    max_length         tokens; by default what the model and its tokenizer allow
    device             "cuda", "mps" or "cpu"; by default the first that is there
    dtype              by default the checkpoint's on a GPU and float32 on a CPU
    trust_remote_code  run code that comes with the model; off unless asked for

    Raises InputError where the model is no reward model (no single output) or cannot be loaded.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        batch_size: int = 16,
        max_length: int | None = None,
        device: str | None = None,
        dtype: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        import torch
        from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

        self.name, self.batch_size = str(model), batch_size
        accelerated = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        self.device = device or accelerated
        try:
            config = AutoConfig.from_pretrained(model, trust_remote_code=trust_remote_code)
            _refuse_what_is_no_reward(str(model), config)
            self.tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=trust_remote_code)
            self.model = AutoModelForSequenceClassification.from_pretrained(
                model,
                trust_remote_code=trust_remote_code,
                use_safetensors=True,
                dtype=dtype or ("float32" if self.device == "cpu" else "auto"),
            )
        except InputError:
            raise
        except Exception as e:  # transformers raises many kinds; all mean that there is no model to score with
            raise InputError(f"the reward model {str(model)!r} cannot be loaded: {shorten(e, 160)}") from None
        self.model.to(self.device).eval()
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        if getattr(self.model.config, "pad_token_id", None) is None:
            self.model.config.pad_token_id = self.tokenizer.pad_token_id  # how the model finds the last token
        self.tokenizer.truncation_side = "left"
        self.max_length = max_length or _longest(self.model.config, self.tokenizer)
        self.n_truncated = 0

    def __call__(self, prompts: Sequence[Any], responses: Sequence[str]) -> NDArray[np.float64]:
        """Rewards (n,) float64 of n responses to n prompts (conversations or strings)."""
        import torch

        encoded = self._encode([as_conversation(p) for p in prompts], responses)
        rewards = np.empty(len(encoded))
        by_length = sorted(range(len(encoded)), key=lambda i: -len(encoded[i]["input_ids"]))
        for start in range(0, len(by_length), self.batch_size):
            rows = by_length[start : start + self.batch_size]
            batch = self.tokenizer.pad([encoded[i] for i in rows], return_tensors="pt").to(self.device)
            with torch.inference_mode():
                try:
                    logits = self.model(**batch).logits
                except RuntimeError as e:
                    raise WorkError(f"{self.name}: the forward pass failed ({shorten(e, 160)})") from None
            rewards[rows] = logits[:, 0].double().cpu().numpy()
        return rewards

    def _encode(self, prompts: list[Conversation], responses: Sequence[str]) -> list[dict[str, Any]]:
        if not prompts:
            return []
        if self.tokenizer.chat_template:
            texts = [self.render(p, r) for p, r in zip(prompts, responses, strict=True)]
            encoded = self.tokenizer(texts, add_special_tokens=False)
        else:
            encoded = self.tokenizer([prompt_text(p) for p in prompts], list(responses))
        rows = [{name: encoded[name][i] for name in encoded} for i in range(len(prompts))]
        too_long = [i for i, row in enumerate(rows) if len(row["input_ids"]) > self.max_length]
        for i in too_long:
            if self.tokenizer.chat_template:
                rows[i] = {name: ids[-self.max_length :] for name, ids in rows[i].items()}
            else:
                rows[i] = self._cut_pair(prompt_text(prompts[i]), responses[i])
        self.n_truncated += len(too_long)
        return rows

    def render(self, prompt: Conversation, response: str) -> str:
        """What the model sees: the conversation in its chat template (which writes the special tokens itself)."""
        turns = [*prompt, {"role": "assistant", "content": response}]
        try:
            return str(self.tokenizer.apply_chat_template(turns, tokenize=False))
        except Exception as e:  # jinja errors: the template refuses this conversation
            raise InputError(
                f"{self.name}: its chat template refuses a conversation of roles "
                f"{', '.join(t['role'] for t in turns)} ({shorten(e, 80)})"
            ) from None

    def _cut_pair(self, prompt: str, response: str) -> dict[str, Any]:
        """The pair with the prompt cut first, from its start, then the response's start."""
        room = self.max_length - self.tokenizer.num_special_tokens_to_add(pair=True)
        ids = self.tokenizer(response, add_special_tokens=False)["input_ids"]
        response_only = len(ids) >= room
        return dict(
            self.tokenizer(
                "" if response_only else prompt,
                response,
                truncation="only_second" if response_only else "only_first",
                max_length=self.max_length,
            )
        )


def _refuse_what_is_no_reward(name: str, config: Any) -> None:
    kinds = getattr(config, "architectures", None) or []
    if kinds and not any("SequenceClassification" in k or "Reward" in k for k in kinds):
        raise InputError(
            f"{name!r} is a {kinds[0]}, not a reward model; a sequence classifier with one output was expected"
        )
    if config.num_labels != 1:
        raise InputError(
            f"{name!r} has {config.num_labels} outputs, and a reward has one; wrap it in a function "
            "(prompts, responses) -> rewards and pass that"
        )


def _longest(config: Any, tokenizer: Any) -> int:
    limits = [getattr(config, "max_position_embeddings", None), tokenizer.model_max_length]
    known = [int(limit) for limit in limits if limit and limit < 10**7]
    return min(known) if known else 4096
