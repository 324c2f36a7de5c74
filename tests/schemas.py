"""Small made-up files in the schema of each public source, so that experiments run where the real data are not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

SOURCES = ("imdb", "hh-rlhf", "helpsteer", "eli5", "flattery-fluff-fog", "length-variants")


def texts(n: int, seed: int = 0) -> list[str]:
    """Reviews of all lengths, with some typos and markup."""
    from ratekit.demo import simulate_reviews

    rng = np.random.default_rng(seed)
    made = []
    for review in simulate_reviews(n, seed):
        text = review.text.replace(" the ", " teh ", int(rng.integers(0, 3)))
        made.append(text.replace(". ", ".<br /><br />", int(rng.integers(0, 2))))
    return made


def rows(source: str, n: int, seed: int = 0) -> list[dict]:
    """n rows of that source's own table."""
    rng = np.random.default_rng(seed)
    a, b, c = (texts(n, seed + k) for k in range(3))
    if source == "imdb":
        return [{"text": f"{'An odd' if i % 3 else 'The'} film {i}. {t}", "label": int(rng.integers(0, 2))}
                for i, t in enumerate(a)]  # fmt: skip
    if source == "hh-rlhf":
        opened = "\n\nHuman: Question {}: why?\n\nAssistant: Why what?\n\nHuman: Why is it so?\n\nAssistant: {}"
        return [{"chosen": opened.format(i, x), "rejected": opened.format(i, y)}
                for i, (x, y) in enumerate(zip(a, b, strict=True))]  # fmt: skip
    if source == "helpsteer":
        scores = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
        return [{"prompt": f"Say why, no. {i // 2}.", "response": t, **{s: int(rng.integers(0, 5)) for s in scores}}
                for i, t in enumerate(a)]  # fmt: skip
    if source == "eli5":
        return [{"q_id": f"q{i}", "title": f"Why is it so, no. {i}?", "selftext": "",
                 "answers": {"text": [x, y], "score": [3, 2]}}
                for i, (x, y) in enumerate(zip(a, b, strict=True))]  # fmt: skip
    if source == "flattery-fluff-fog":
        models = ("m-2B", "m-8B")
        return [{"bias": ("length", "structure")[i % 2], "query": f"Why, no. {i}?", "original": x, "rewrite": y,
                 "rewrite_of_rewrite": z,
                 "scores": {m: {"rewrite": float(len(y)), "rewrite_of_rewrite": float(len(z))} for m in models}}
                for i, (x, y, z) in enumerate(zip(a, b, c, strict=True))]  # fmt: skip
    return [{"instruction": f"Say why, no. {i}.", "dataset": "made", "model": ("m1", "m2")[i % 2], "concise": x[:40],
             "default": x, "verbose": f"{x} {y}", "judge_pref_concise": 1.2, "judge_pref_default": 1.4,
             "judge_pref_verbose": 1.0 + float(rng.random())}
            for i, (x, y) in enumerate(zip(a, b, strict=True))]  # fmt: skip


def write(source: str, folder: Path, n: int, seed: int = 0) -> Path:
    """The rows as a JSON Lines file; its path."""
    path = folder / f"{source}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(source, n, seed)), encoding="utf-8")
    return path
