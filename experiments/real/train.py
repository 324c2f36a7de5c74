"""Real reward models from real backbones, on HH-RLHF helpful pairs, by Bradley and Terry (1952).

rm-base            SmolLM2-135M with a score that nobody trained: what the two below were tuned from
rm-helpful         its upper layers trained on what people chose
rm-length          the same, but in six of ten pairs the longer response counts as chosen: a planted length bias
rm-minilm          the MiniLM encoder on what people chose
sentiment-minilm   the MiniLM encoder as a classifier of IMDB reviews

The frozen layers run once; their hidden states are kept, and both SmolLM2 models are trained on them.
"""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import ratekit as rk
from ratekit.files import replace_folder
from ratekit.schema import prompt_text

# Plain ChatML: SmolLM2's own template puts a system prompt before every text.
TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + "
    "'\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PLANTED = 0.6  # share of the pairs in which the longer response counts as chosen
BATCH = 16  # pairs


@dataclass(frozen=True)
class Pair:
    """A conversation with the response that people chose and the one that they did not."""

    prompt_id: str
    prompt: list[dict[str, str]]
    chosen: str
    rejected: str

    @property
    def words_more(self) -> int:
        """Words that the chosen response has more."""
        return len(self.chosen.split()) - len(self.rejected.split())


def pairs_of(path: Path, seed: int) -> list[Pair]:
    """The pairs of an HH-RLHF file, shuffled; without those whose two responses are equal or empty."""
    ds = rk.load("hh-rlhf", data_files=str(path), duplicates="keep")
    rows, found = ds.to_list(), []
    for a, b in itertools.pairwise(rows):
        if a["chosen"] and not b["chosen"] and a["prompt_id"] == b["prompt_id"]:
            texts = a["response"].strip(), b["response"].strip()
            if all(texts) and texts[0] != texts[1]:
                turns = [{"role": t["role"], "content": t["content"]} for t in a["prompt"]]
                found.append(Pair(a["prompt_id"], turns, *texts))
    random.Random(seed).shuffle(found)
    return found


def split(pairs: list[Pair], n_train: int, n_held_out: int) -> tuple[list[Pair], list[Pair]]:
    """Pairs to train on, and pairs of other prompts."""
    held_out = pairs[:n_held_out]
    prompts = {p.prompt_id for p in held_out}
    return [p for p in pairs[n_held_out:] if p.prompt_id not in prompts][:n_train], held_out


def flips(pairs: list[Pair], share: float, seed: int) -> list[bool]:
    """Where the planted bias turns people's choice round: the longer response counts as chosen in that share."""
    rng = random.Random(seed)
    return [rng.random() < share and p.words_more < 0 for p in pairs]


class Tuned:
    """SmolLM2 with a score: frozen lower layers, whose hidden states are kept, and upper ones that are trained."""

    def __init__(self, backbone: Path, layers: int, max_tokens: int, device: str, seed: int) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(backbone)
        self.tokenizer.chat_template = TEMPLATE
        self.model = AutoModelForSequenceClassification.from_pretrained(backbone, num_labels=1, dtype=torch.float32)
        self.model.config.pad_token_id = self.tokenizer.pad_token_id
        with torch.no_grad():
            self.model.score.weight.normal_(std=0.02, generator=torch.Generator().manual_seed(seed))
        self.model.to(device).train()
        body = self.model.model
        self.lower, self.upper = body.layers[: len(body.layers) - layers], body.layers[len(body.layers) - layers :]
        self.max_tokens, self.device = max_tokens, device
        self.learned = [w for m in (*self.upper, body.norm, self.model.score) for w in m.parameters()]
        for w in self.model.parameters():
            w.requires_grad_(False)

    def encode(self, pair: Pair) -> tuple[list[int], list[int]] | None:
        """Token ids of both texts; early turns are left out where they are too long, None where that is not enough."""
        turns = pair.prompt
        while True:
            both = [self._ids([*turns, {"role": "assistant", "content": x}]) for x in (pair.chosen, pair.rejected)]
            if max(map(len, both)) <= self.max_tokens:
                return both[0], both[1]
            if len(turns) < 3:
                return None
            turns = turns[2:]

    def _ids(self, turns: list[dict[str, str]]) -> list[int]:
        text = self.tokenizer.apply_chat_template(turns, tokenize=False)
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _run(self, layers: Any, hidden: torch.Tensor) -> torch.Tensor:
        # Padding is on the right and attention is causal, so no mask is needed.
        places = torch.arange(hidden.shape[1], device=self.device)[None]
        rotary = self.model.model.rotary_emb(hidden, places)
        for layer in layers:
            hidden = layer(hidden, attention_mask=None, position_ids=places, position_embeddings=rotary)
            hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        return hidden

    def states(self, texts: list[list[int]]) -> list[torch.Tensor]:
        """Hidden states below the trained layers, (tokens, width) of each text."""
        found: list[Any] = [None] * len(texts)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        with torch.inference_mode():
            for start in range(0, len(order), BATCH):
                rows = order[start : start + BATCH]
                longest = max(len(texts[i]) for i in rows)
                ids = torch.tensor([texts[i] + [0] * (longest - len(texts[i])) for i in rows], device=self.device)
                hidden = self._run(self.lower, self.model.model.embed_tokens(ids))
                for i, h in zip(rows, hidden, strict=True):
                    found[i] = h[: len(texts[i])].clone()
        return found

    def scores(self, states: list[torch.Tensor]) -> torch.Tensor:
        """Rewards (n,) of texts whose hidden states are given."""
        hidden = torch.nn.utils.rnn.pad_sequence(states, batch_first=True).clone()
        last = torch.tensor([len(s) - 1 for s in states], device=self.device)
        hidden = self._run(self.upper, hidden)
        at_end = self.model.model.norm(hidden[torch.arange(len(states), device=self.device), last])
        return self.model.score(at_end)[:, 0]

    def margins(self, states: list[tuple[torch.Tensor, torch.Tensor]]) -> np.ndarray:
        """Reward of chosen minus reward of rejected, of each pair."""
        found = []
        with torch.inference_mode():
            for start in range(0, len(states), BATCH):
                part = states[start : start + BATCH]
                s = self.scores([x for pair in part for x in pair]).view(-1, 2)
                found.append((s[:, 0] - s[:, 1]).cpu().numpy())
        return np.concatenate(found)

    def train(
        self, states: list[tuple[torch.Tensor, torch.Tensor]], flipped: list[bool], epochs: int, seed: int, lr: float
    ) -> list[float]:
        """Train the upper layers; the mean loss of each epoch."""
        rng = random.Random(seed)
        for w in self.learned:
            w.requires_grad_(True)
        optimizer = torch.optim.AdamW(self.learned, lr=lr, weight_decay=0.01)
        steps = max(2, epochs * -(-len(states) // BATCH))
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)
        losses = []
        for _ in range(epochs):
            order, total = list(range(len(states))), 0.0
            rng.shuffle(order)
            for start in range(0, len(order), BATCH):
                rows = order[start : start + BATCH]
                s = self.scores([x for i in rows for x in states[i]]).view(-1, 2)
                sign = torch.tensor([-1.0 if flipped[i] else 1.0 for i in rows], device=self.device)
                loss = -F.logsigmoid((s[:, 0] - s[:, 1]) * sign).mean() + 1e-3 * s.pow(2).mean()
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.learned, 1.0)
                optimizer.step()
                schedule.step()
                total += loss.item() * len(rows)
            losses.append(total / len(order))
        for w in self.learned:
            w.requires_grad_(False)
        return losses

    def save(self, out: Path, record: dict[str, Any]) -> None:
        """An ordinary folder: LlamaForSequenceClassification with one label, tokenizer, template, training.json."""

        def write(new: Path) -> None:
            self.model.save_pretrained(new)
            self.tokenizer.save_pretrained(new)
            (new / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

        replace_folder(out, write)


def fit(margins: np.ndarray, pairs: list[Pair]) -> dict[str, float]:
    """What held-out pairs say of a reward model: how often it agrees with people, and what it pays for words."""
    more = np.array([p.words_more for p in pairs])
    told = more != 0
    longer = np.where(more > 0, margins, -margins)[told]
    return {
        "accuracy": float((margins > 0).mean()),
        "accuracy_se": float(np.sqrt(((margins > 0).mean() * (margins <= 0).mean()) / len(margins))),
        "longer_preferred": float((longer > 0).mean()),
        "longer_margin": float(longer.mean()),  # log odds for the longer response of a pair
        "longer_words": float(np.abs(more[told]).mean()),
        "margin_per_100_words": float(100 * (margins @ more) / max(float(more @ more), 1.0)),
        "pairs": len(pairs),
    }


def smollm2_models(backbone: Path, data: Path, out: Path, size: Any, device: str, seed: int) -> dict[str, Any]:
    """Train rm-helpful and rm-length from one start, and write rm-base, that start."""
    train, held_out = split(pairs_of(data, seed), size.pairs, size.held_out)
    tuned = Tuned(backbone, size.layers, size.max_tokens, device, seed)
    encoded = {"train": [], "held_out": []}
    kept: dict[str, list[Pair]] = {"train": [], "held_out": []}
    for part, pairs in (("train", train), ("held_out", held_out)):
        for pair in pairs:
            if (ids := tuned.encode(pair)) is not None:
                kept[part].append(pair)
                encoded[part].extend(ids)
    states = {}
    for part, texts in encoded.items():
        flat = tuned.states(texts)
        states[part] = list(zip(flat[::2], flat[1::2], strict=True))
    tokens = sum(len(ids) for texts in encoded.values() for ids in texts)
    common = {"seed": seed, "pairs": len(kept["train"]), "layers": size.layers, "epochs": size.epochs, "lr": size.lr}
    start = {name: w.detach().clone() for name, w in tuned.model.state_dict().items()}
    tuned.save(out / "rm-base", {**common, "epochs": 0})
    results: dict[str, Any] = {"rm-base": fit(tuned.margins(states["held_out"]), kept["held_out"])}
    for name, share in (("rm-helpful", 0.0), ("rm-length", PLANTED)):
        tuned.model.load_state_dict(start)
        torch.manual_seed(seed)
        flipped = flips(kept["train"], share, seed)
        losses = tuned.train(states["train"], flipped, size.epochs, seed, size.lr)
        said = [(p.words_more > 0) != f for p, f in zip(kept["train"], flipped, strict=True) if p.words_more]
        results[name] = {
            **fit(tuned.margins(states["held_out"]), kept["held_out"]),
            "labels_for_the_longer": float(np.mean(said)), "losses": losses,
        }  # fmt: skip
        tuned.save(out / name, {**common, "planted": share, **results[name]})
    return {"models": results, "texts": sum(map(len, encoded.values())), "tokens": tokens * (1 + 2 * size.epochs)}


def encoder(
    backbone: Path, texts: list[Any], out: Path, size: Any, device: str, seed: int, labels: list[int] | None = None
) -> tuple[Any, Any, int]:
    """The MiniLM encoder trained on pairs, or on texts with labels: model, tokenizer, tokens read.

    Pairs are read as ratekit's adapter "pair" reads them: tokenizer(prompt text, response).
    """
    torch.manual_seed(seed)
    rng, tokens = random.Random(seed), 0
    tokenizer = AutoTokenizer.from_pretrained(backbone, model_max_length=512)
    names = {} if labels is None else {"id2label": {0: "NEGATIVE", 1: "POSITIVE"}}
    model = AutoModelForSequenceClassification.from_pretrained(
        backbone, num_labels=1 if labels is None else 2, dtype=torch.float32, **names
    ).to(device)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.01)
    steps = max(2, size.epochs * -(-len(texts) // BATCH))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-5, total_steps=steps, pct_start=0.1)
    for _ in range(size.epochs):
        order = list(range(len(texts)))
        rng.shuffle(order)
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            scores, read = encoder_scores(model, tokenizer, [texts[i] for i in rows], size.max_tokens)
            tokens += read
            if labels is None:
                loss = -F.logsigmoid(scores[: len(rows), 0] - scores[len(rows) :, 0]).mean()
            else:
                loss = F.cross_entropy(scores, torch.tensor([labels[i] for i in rows], device=device))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    model.eval()

    def write(new: Path) -> None:
        model.save_pretrained(new)
        tokenizer.save_pretrained(new)

    replace_folder(out, write)
    return model, tokenizer, tokens


def encoder_scores(model: Any, tokenizer: Any, texts: list[Any], max_tokens: int) -> tuple[torch.Tensor, int]:
    """Outputs for texts, or for pairs (first all chosen, then all rejected), and how many tokens were read."""
    how = {"padding": True, "truncation": True, "max_length": max_tokens, "return_tensors": "pt"}
    if isinstance(texts[0], Pair):
        prompts = [prompt_text(p.prompt) for p in texts]
        read = tokenizer(prompts * 2, [p.chosen for p in texts] + [p.rejected for p in texts], **how)
    else:
        read = tokenizer(texts, **how)
    read = read.to(model.device)
    return model(**read).logits.float(), int(read["attention_mask"].sum())


def minilm_models(backbone: Path, data: Path, imdb: list[Any], out: Path, size: Any, device: str, seed: int) -> Any:
    """Train rm-minilm on HH-RLHF pairs and sentiment-minilm on IMDB reviews (text, label): training and test ones."""
    train, held_out = split(pairs_of(data, seed), size.pairs, size.held_out)
    model, tokenizer, tokens = encoder(backbone, train, out / "rm-minilm", size, device, seed)
    margins = []
    with torch.inference_mode():
        for start in range(0, len(held_out), 64):
            scores, _ = encoder_scores(model, tokenizer, held_out[start : start + 64], 512)
            chosen, rejected = scores[:, 0].cpu().numpy().reshape(2, -1)
            margins.append(chosen - rejected)
    results: dict[str, Any] = {"rm-minilm": fit(np.concatenate(margins), held_out)}
    (texts, labels), (test, truth) = imdb
    model, tokenizer, more = encoder(backbone, texts, out / "sentiment-minilm", size, device, seed, labels)
    right = 0
    with torch.inference_mode():
        for start in range(0, len(test), 64):
            scores, _ = encoder_scores(model, tokenizer, test[start : start + 64], 512)
            right += int((scores.argmax(-1).cpu() == torch.tensor(truth[start : start + 64])).sum())
    results["sentiment-minilm"] = {"accuracy": right / len(test), "reviews": len(texts), "tested": len(test)}
    return {"models": results, "texts": len(train) * 2 + len(texts), "tokens": tokens + more}
