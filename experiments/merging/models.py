"""The study's reward models: a two-layer BERT, its training, and a cache of what was trained, as safetensors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import logsigmoid
from transformers import BertConfig, BertForSequenceClassification
from world import MAX_TOKENS, PAD, VOCABULARY_SIZE, Pairs

State = dict[str, torch.Tensor]

CONFIG = BertConfig(
    vocab_size=VOCABULARY_SIZE, max_position_embeddings=MAX_TOKENS, hidden_size=32, intermediate_size=64,
    num_hidden_layers=2, num_attention_heads=4, num_labels=1, hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0, pad_token_id=PAD,
)  # fmt: skip
MODEL = BertForSequenceClassification(CONFIG).eval()
PEAK_RATE, WARM_UP, PAIRS_PER_STEP = 1e-3, 50, 64


def fresh(seed: int) -> State:
    """New random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return {name: t.detach().clone() for name, t in BertForSequenceClassification(CONFIG).state_dict().items()}


def rewards(state: Mapping[str, torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
    """The rewards of token ids, (n,), differentiable in the weights."""
    ids = ids[:, : int((ids != PAD).sum(dim=1).max())]
    given = {"input_ids": ids, "attention_mask": (ids != PAD).long()}
    return torch.func.functional_call(MODEL, dict(state), kwargs=given).logits[:, 0]


def pair_loss(state: Mapping[str, torch.Tensor], pairs: Pairs) -> torch.Tensor:
    """The Bradley-Terry loss, -log sigmoid(r_chosen - r_rejected), a mean in nats."""
    chosen, rejected = rewards(state, torch.cat(pairs)).chunk(2)
    return -logsigmoid(chosen - rejected).mean()


def batch(pairs: Pairs, generator: torch.Generator, size: int = PAIRS_PER_STEP) -> Pairs:
    """Pairs drawn with replacement."""
    rows = torch.randint(len(pairs.chosen), (size,), generator=generator)
    return Pairs(pairs.chosen[rows], pairs.rejected[rows])


def train(start: State, pairs: Pairs, steps: int, seed: int, *, of: int | None = None, done: int = 0) -> State:
    """`steps` of AdamW from `start`: warm-up, then linear decay to 0 over `of` steps, of which `done` are past."""
    state = {name: t.clone().requires_grad_(True) for name, t in start.items()}
    optimizer = torch.optim.AdamW(state.values(), lr=PEAK_RATE, weight_decay=0.01)
    generator = torch.Generator().manual_seed(seed)
    total = of or steps
    for step in range(done, done + steps):
        optimizer.param_groups[0]["lr"] = PEAK_RATE * min(1.0, (step + 1) / WARM_UP) * (1 - step / total)
        loss = pair_loss(state, batch(pairs, generator))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {name: t.detach().clone() for name, t in state.items()}


class Cache:
    """Trained weights by what they were trained from, with and on: changing any of it trains anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def train(
        self, name: str, start: State, pairs: Pairs, steps: int, seed: int, *, of: int | None = None, done: int = 0
    ) -> State:
        """`train`, or what it gave the last time."""
        how = [steps, seed, PEAK_RATE, WARM_UP, PAIRS_PER_STEP, CONFIG.to_json_string(), *([done, of] if of else [])]
        key = hashlib.sha256("|".join(map(str, how)).encode())
        for tensor in (*(start[name] for name in sorted(start)), *pairs):  # files hold them in an order of their own
            key.update(tensor.numpy().tobytes())
        path = self.folder / f"{name}-{key.hexdigest()[:12]}.safetensors"
        if not path.exists():
            part = path.with_suffix(".part")
            save_file(train(start, pairs, steps, seed, of=of, done=done), part)
            part.replace(path)
        return load_file(path)  # its tensors in the file's order, whether trained now or before
