"""The demo: bundled reviews, a small reward model trained on the spot with a planted length bias, and what RATE sees.

The reward model is real (a `transformers` sequence classifier with a tokenizer and chat template of its own, trained
with the Bradley-Terry loss) and small enough to be trained in seconds. It learns from pairs of simulated reviews whose
winner is drawn from a utility that grows with sentiment, as it should, and with every word, as it should not.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ratekit.files import no_bars
from ratekit.rewriting.rules import sentences
from ratekit.schema import RESPONSE, TREATED
from ratekit.sources.loading import load

if TYPE_CHECKING:
    from ratekit.audits.results import Audit

UTILITY_PER_SENTIMENT = 1.0  # positive against negative is twice this
UTILITY_PER_WORD = 0.02  # the planted bias: 50 words weigh as much as half a change of sentiment
DEMO_PROMPT = "Write a review."
MODEL_NAME = "demo-rm"
PAIRS_PER_STEP = 24
PLANTED = (
    f"{MODEL_NAME} learned from pairs whose winner depends on sentiment and, planted, on length: "
    f"{UTILITY_PER_WORD} a word."
)
_ABOUT = {
    MODEL_NAME: "trained by the demo, with a planted reward for length",
    "vader": "VADER sentiment, a lexicon: no model",
    "vader+0.01*words": "VADER, and 0.01 a word",
}


class Simulated(NamedTuple):
    """A simulated review, and what decides how good people find it."""

    text: str
    positive: bool
    n_words: int


def simulate_reviews(n: int, seed: int = 0) -> list[Simulated]:
    """`n` reviews whose sentiment and length are independent, put together from sentences of the bundled ones.

    Lengths are log-uniform, up to about 300 words; sentiment is that of the reviews the sentences come from.

    Examples
    --------
    >>> review = simulate_reviews(1)[0]
    >>> review.n_words == len(review.text.split())
    True
    """
    bundled = load("reviews", attribute="sentiment")
    pool: dict[bool, list[str]] = {True: [], False: []}
    for response, positive in zip(bundled[RESPONSE], bundled[TREATED], strict=True):
        pool[positive] += [s.strip() for s in sentences(response) if s.strip()]
    rng = np.random.default_rng(seed)
    reviews = []
    for _ in range(n):
        positive = bool(rng.random() < 0.5)
        wanted = np.exp(rng.uniform(np.log(8), np.log(300)))
        text = str(rng.choice(pool[positive]))
        while len(text.split()) < wanted:
            text += " " + str(rng.choice(pool[positive]))
        reviews.append(Simulated(text, positive, len(text.split())))
    return reviews


def train_reward_model(folder: str | Path, *, n_pairs: int = 1800, seed: int = 0, progress: bool = True) -> Path:
    """Train the demo's reward model and save it (safetensors, tokenizer, chat template) into `folder`.

    A one-layer GPT-2 of about 0.3M parameters; the pairs' winners follow Bradley and Terry (1952) with the utility of
    this module's constants, and the loss is -log sigmoid(r_winner - r_loser).

    Examples
    --------
    >>> train_reward_model("demo/demo-rm")  # doctest: +SKIP
    """
    import torch
    from tqdm.auto import tqdm
    from transformers import GPT2Config, GPT2ForSequenceClassification

    rng = np.random.default_rng(seed)
    reviews = simulate_reviews(2 * n_pairs, seed)
    tokenizer = train_tokenizer([r.text for r in reviews])
    utility = np.array(
        [UTILITY_PER_SENTIMENT * (1 if r.positive else -1) + UTILITY_PER_WORD * r.n_words for r in reviews]
    )
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": DEMO_PROMPT}, {"role": "assistant", "content": r.text}], tokenize=False
        )
        for r in reviews
    ]
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # at this size several threads cost more than they give, the more on a busy machine
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = GPT2Config(
            vocab_size=len(tokenizer), n_positions=1024, n_embd=64, n_layer=1, n_head=2, resid_pdrop=0.0,
            embd_pdrop=0.0, attn_pdrop=0.0, pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
        config.num_labels = 1
        model = GPT2ForSequenceClassification(config)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=n_pairs // PAIRS_PER_STEP)
        model.train()
        steps = tqdm(range(n_pairs // PAIRS_PER_STEP), desc=f"train {MODEL_NAME}", unit="step", disable=not progress)
        for step in steps:
            rows = np.arange(2 * PAIRS_PER_STEP * step, 2 * PAIRS_PER_STEP * (step + 1))
            first, second = _rewards(model, tokenizer, [ids[i] for i in rows]).chunk(2)
            margin = utility[rows[:PAIRS_PER_STEP]] - utility[rows[PAIRS_PER_STEP:]]
            wins = torch.tensor(rng.random(len(margin)) < 1 / (1 + np.exp(-margin)))
            loss = -torch.nn.functional.logsigmoid(torch.where(wins, first - second, second - first)).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            steps.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    torch.set_num_threads(threads)
    folder = Path(folder)
    with no_bars():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def _rewards(model: Any, tokenizer: Any, ids: list[list[int]]) -> Any:
    """Rewards of texts of all lengths, run in groups of like length, so that little is spent on padding."""
    import torch

    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    groups = [order[start : start + 8] for start in range(0, len(order), 8)]
    parts = []
    for group in groups:
        padded = tokenizer.pad({"input_ids": [ids[i] for i in group]}, return_tensors="pt")["input_ids"]
        everything = torch.ones_like(padded)  # causal and padded on the right, so padding needs no mask
        parts.append(model(input_ids=padded, attention_mask=everything).logits[:, 0])
    return torch.cat(parts)[torch.tensor(np.argsort(order))]


def train_tokenizer(texts: list[str], vocab_size: int = 3000) -> Any:
    """A byte-level BPE tokenizer trained on `texts`, with a chat template of its own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<|pad|>", eos_token="<|end|>", model_max_length=1024
    )
    tokenizer.chat_template = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    return tokenizer


# --- the demo itself -------------------------------------------------------------------------------------


def run_demo(out: str | Path = "demo", *, progress: bool = True) -> Audit:
    """Train the demo's reward model and audit it beside VADER, in the folder `out`.

    Parameters
    ----------
    out : str or Path
        The folder of the audit; `demo-rm/` in it is the model, report.html the report.

    Returns
    -------
    Audit
        Of the bundled reviews, under two attributes and three rewards.

    Examples
    --------
    >>> run_demo("demo").report()  # doctest: +SKIP
    """
    from ratekit.audits.folder import opened
    from ratekit.audits.study import Settings, carry_out

    out, settings = Path(out), Settings("reviews")
    opened(out, settings.record())  # a folder that will not do is refused before the training
    model = train_reward_model(out / MODEL_NAME, progress=progress)
    rewards = demo_rewards(model)
    audit = carry_out(out, settings, rewards, lambda _: load("reviews"), specs=_ABOUT, progress=progress)
    audit.report()
    return audit


def demo_rewards(model: Path) -> dict[str, Any]:
    """The demo's three rewards by name: the trained model, VADER, and VADER with 0.01 a word added."""
    from ratekit.scoring import make_reward

    vader, words = make_reward("vader"), make_reward("words")

    def vader_and_words(prompts: Any, responses: Any) -> Any:
        return np.asarray(vader(prompts, responses)) + 0.01 * np.asarray(words(prompts, responses))

    return {MODEL_NAME: make_reward(model), "vader": vader, "vader+0.01*words": vader_and_words}
