"""A reward model in training, audited as it goes: a planted length bias rises, and falls when the data lose it.

    python experiments/training.py        # -> training.csv, training.md, training.png

A one-layer GPT-2 learns from pairs of simulated reviews by the Bradley-Terry loss. In the first half of the steps the
winner is drawn from a utility that grows with sentiment and with every word; in the second half words cost as much as
they paid before, as in data that are debiased by what was preferred too often.
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import GPT2Config, GPT2ForSequenceClassification, Trainer, TrainingArguments

import ratekit as rk
from ratekit.demo import DEMO_PROMPT, UTILITY_PER_SENTIMENT, UTILITY_PER_WORD, simulate_reviews, train_tokenizer

HERE = Path(__file__).parent


class Pairs(torch.utils.data.Dataset):
    """Tokenized pairs, the winner first; the sign of the length bias turns half way."""

    def __init__(self, n: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        reviews = simulate_reviews(2 * n, seed)
        self.tokenizer = train_tokenizer([r.text for r in reviews[:400]])
        self.pairs = []
        for k, (one, other) in enumerate(zip(reviews[::2], reviews[1::2], strict=True)):
            per_word = UTILITY_PER_WORD if k < n / 2 else -UTILITY_PER_WORD
            gap = UTILITY_PER_SENTIMENT * 2 * (one.positive - other.positive) + per_word * (one.n_words - other.n_words)
            wins = rng.random() < 1 / (1 + np.exp(-gap))
            self.pairs.append([self.ids(r.text) for r in ((one, other) if wins else (other, one))])

    def ids(self, text: str) -> list[int]:
        """The tokens of a review as the model sees it."""
        turns = [{"role": "user", "content": DEMO_PROMPT}, {"role": "assistant", "content": text}]
        return self.tokenizer(self.tokenizer.apply_chat_template(turns, tokenize=False))["input_ids"]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, k: int) -> list[list[int]]:
        return self.pairs[k]

    def collate(self, pairs: list[list[list[int]]]) -> dict[str, torch.Tensor]:
        """A batch: all winners, then all losers."""
        rows = [p[0] for p in pairs] + [p[1] for p in pairs]
        return dict(self.tokenizer.pad({"input_ids": rows}, return_tensors="pt"))


class PairTrainer(Trainer):
    """Bradley-Terry on batches of winners and losers, in the order of the data."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        """-log sigmoid(reward of the winner - reward of the loser)."""
        won, lost = model(**inputs).logits[:, 0].chunk(2)
        loss = -torch.nn.functional.logsigmoid(won - lost).mean()
        return (loss, None) if return_outputs else loss

    def _get_train_sampler(self, *_: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)


class Timed(rk.AuditCallback):
    """Remembers the processor's seconds of each audit, which other work on the machine does not change."""

    cpu: tuple[float, ...] = ()

    def _audit(self, *given: Any) -> None:
        begun = time.process_time()
        super()._audit(*given)
        self.cpu = (*self.cpu, time.process_time() - begun)


def tiny(tokenizer: Any) -> GPT2ForSequenceClassification:
    """A reward model of one layer."""
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=1024, n_embd=64, n_layer=1, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0, pad_token_id=tokenizer.pad_token_id, num_labels=1,
    )  # fmt: skip
    return GPT2ForSequenceClassification(config)


def trained(out: Path, *, steps: int = 80, every: int = 10, n: int = 80, seed: int = 0, **how: Any) -> Any:
    """The callback after training."""
    torch.manual_seed(seed)
    data = Pairs(16 * steps, seed)
    arguments = TrainingArguments(
        str(out), per_device_train_batch_size=16, learning_rate=3e-3, lr_scheduler_type="constant", max_steps=steps,
        report_to=[], logging_steps=every, save_strategy="no", disable_tqdm=True, use_cpu=True, seed=seed,
        remove_unused_columns=False, label_names=[],
    )  # fmt: skip
    trainer = PairTrainer(tiny(data.tokenizer), arguments, data.collate, data, processing_class=data.tokenizer)
    callback = Timed(trainer, rk.load("reviews", attribute="length"), every=every, n=n, **how)
    trainer.add_callback(callback)
    trainer.train()
    return callback


def draw(table: pd.DataFrame, steps: int, path: Path) -> None:
    """The picture of the table: the effect at each step, with its interval."""
    import matplotlib.pyplot as plt

    blue = rk.plots.MARKS["rate"].color
    fig, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
    ax.axhline(0, color="0.6", linewidth=0.8)
    ax.axvline(steps / 2, color="0.6", linestyle=":", label="debiased data begin")
    ax.fill_between(table["step"], table["low"], table["high"], color=blue, alpha=0.2, lw=0, label="95 % interval")
    ax.plot(table["step"], table["estimate"], color=blue, marker="o", markersize=3, label="RATE")
    ax.set(xlabel="training step", ylabel="effect of length (SD)")
    fig.legend(loc="outside upper center", ncols=3, frameon=False)
    fig.savefig(path, dpi=150)


def main() -> None:
    """Train, and write the table and the figure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--steps", type=int, default=80)
    given = parser.parse_args()
    logging.getLogger("ratekit").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    callback = trained(given.out / "training-run", steps=given.steps)
    table = callback.table
    table.drop(columns="seconds").round(4).to_csv(given.out / "training.csv", index=False)
    draw(table, given.steps, given.out / "training.png")
    at = table.set_index("step")["estimate"]
    half = int(given.steps / 2)
    (given.out / "training.md").write_text(
        "# A reward model audited while it is trained\n\n"
        f"`python experiments/training.py`: {given.steps} steps of 16 pairs, {len(table)} audits of 80 rows. The\n"
        f"effect of length is {at.iloc[0]:+.2f} SD before training, {at.loc[half]:+.2f} after the half with the\n"
        f"planted bias, and {at.iloc[-1]:+.2f} at the end, after the half against it. An audit takes "
        f"{np.median(callback.cpu):.1f} s of one core (median;\n0.3M parameters, 320 texts of about 100 words).\n\n"
        "![The effect of length by training step](training.png)\n",
        encoding="utf-8",
    )  # fmt: skip
    print((given.out / "training.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
