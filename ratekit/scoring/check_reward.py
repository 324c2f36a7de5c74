"""Does a reward model give one text one score? And what does it really see?

Users of reward models report scores that change with the batch size. Here a model is asked: the same texts alone, in
batches of several sizes, in another order, padded on either side, and on the fast path.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ratekit.errors import InputError
from ratekit.schema import prompt_text
from ratekit.scoring import make_reward
from ratekit.scoring.forward import TOLERANCE, score_scale
from ratekit.scoring.judges import PairwiseJudge, position_gap
from ratekit.scoring.model import LEAST_MASS, PROBE, RewardModel
from ratekit.scoring.readout import last_token

if TYPE_CHECKING:
    import pandas as pd

PASS, FAIL, NOTE = "pass", "FAIL", "note"


class _Check(NamedTuple):
    """One question asked of a model, whether it passed, and what was seen."""

    check: str
    result: str
    seen: str


def check_reward(
    model: str | Path | RewardModel | PairwiseJudge,
    *,
    texts: Sequence[tuple[Any, str]] = PROBE,
    reference: tuple[Any, str, float] | None = None,
    adapter: str | None = None,
    revision: str | None = None,
    dtype: str | None = None,
    trust_remote_code: bool = False,
) -> pd.DataFrame:
    """A table of checks of a reward model: columns check, result ("pass", "FAIL" or "note") and seen.

    Parameters
    ----------
    texts
        (prompt, response) pairs to check with; by default eight short ones
    reference
        a prompt, a response and the score that the model's card gives for them
    adapter
        how it is read, where that is not known and should not be guessed
    revision, dtype
        as of `RewardModel`

    Raises
    ------
    InputError
        Where the model cannot be loaded, and for an option that it cannot use.

    Examples
    --------
    >>> table = check_reward("path/to/model")  # doctest: +SKIP
    >>> (table.result == "FAIL").any()  # doctest: +SKIP
    False
    """
    import pandas as pd

    found: Any = make_reward(
        model, adapter=adapter, revision=revision, dtype=dtype, trust_remote_code=trust_remote_code
    )
    reward = found.model if isinstance(found, PairwiseJudge) else found
    if not isinstance(reward, RewardModel):
        raise InputError(f"{model} is not a model that is run here, so there is nothing to check")
    checks = [*_scores(reward, texts), *_reading(reward), *_long(reward)]
    if reward.adapter.reads == "yes_no":
        checks.append(_mass(reward, texts))
    if isinstance(found, PairwiseJudge):
        checks.append(_position(found, texts))
    if reference is not None:
        checks.append(_reference(found, *reference))
    return pd.DataFrame(checks, columns=["check", "result", "seen"])


def _scores(reward: RewardModel, texts: Sequence[tuple[Any, str]]) -> list[_Check]:
    encoded = [t for t in reward.encode([p for p, _ in texts], [r for _, r in texts])[0] if t is not None]
    if not encoded:
        raise InputError("none of the texts to check with can be read")
    forward = reward.forward
    alone = forward.one_by_one(encoded)
    allowed = TOLERANCE[reward.dtype] * score_scale(alone)

    def compared(name: str, others: list[np.ndarray], otherwise: str = "") -> _Check:
        worst = max(float(np.abs(other - alone).max()) for other in others)
        same = worst <= allowed
        return _Check(
            name, PASS if same else NOTE if otherwise else FAIL, f"differs by {worst:.1e}{'' if same else otherwise}"
        )

    def in_batches(size: int, side: str = "right") -> np.ndarray:
        return np.concatenate([forward._whole(encoded[i : i + size], side) for i in range(0, len(encoded), size)])

    finite = bool(np.isfinite(alone).all())
    shown = ", ".join(f"{v:.4g}" for v in alone[:, 0])
    return [
        _Check("scores are finite and not all the same", PASS if finite and alone[:, 0].std() > 0 else FAIL, shown),
        compared("batch sizes 2, 3 and all, as one by one", [in_batches(n) for n in (2, 3, len(encoded))]),
        compared("in reverse order, as one by one", [forward(encoded[::-1])[::-1]]),
        compared(
            "padded on the left, as one by one", [in_batches(len(encoded), "left")],
            "; pad on the right, as is done here",
        ),
        compared(f"the path that ratekit takes ({forward.path}), as one by one", [forward(encoded)]),
    ]  # fmt: skip


def _reading(reward: RewardModel) -> list[_Check]:
    prompt, response = PROBE[0]
    text = reward.encode([prompt], [response])[0][0]
    assert text is not None
    seen = reward.tokenizer.decode(text.ids)
    checks = [
        _Check("what it sees", NOTE, repr(seen)),
        *(_Check("template round trip", FAIL, fault) for fault in reward.encode.faults()),
    ]
    if len(checks) == 1:
        checks.append(_Check("template round trip", PASS, f"read as {reward.adapter.name}"))
    bos = reward.tokenizer.bos_token
    if reward.encode.templated and bos is not None and text.ids[0] == reward.tokenizer.bos_token_id:
        rendered = reward.encode.render(prompt, response)
        if not rendered.startswith(bos):
            checks.append(
                _Check("beginning of sequence", NOTE, f"{bos} is put before texts, as its tokenizer does; its template "
                      "writes none, and other programs that use the template alone score without it")
            )  # fmt: skip
    pad, eos = reward.tokenizer.pad_token_id, reward.tokenizer.eos_token_id
    read = len(text.ids) - 1
    if reward.adapter.reads in ("logit", "positive"):
        read = reward.forward.readout.rows(text)[0]
    said = f"reads {reward.tokenizer.convert_ids_to_tokens(text.ids[read])!r}, token {read + 1} of {len(text.ids)}"
    if pad is not None and pad == eos:
        said += "; padding and end-of-sequence are one token"
    skipped = reward.forward.readout.causal and last_token(reward.model, text.ids) != len(text.ids) - 1
    if skipped:
        said += "; the last token is the padding token, so that the one before is read, as transformers does"
    return [*checks, _Check("end and padding tokens", NOTE if skipped or pad == eos else PASS, said)]


def _mass(reward: RewardModel, texts: Sequence[tuple[Any, str]]) -> _Check:
    """What the two answers have of the probability of the next token."""
    encoded = [t for t in reward.encode([p for p, _ in texts], [r for _, r in texts])[0] if t is not None]
    mass = reward.forward(encoded)[:, 1]
    a, b = reward.adapter.answers
    said = f"{a!r} and {b!r} have {mass.min():.2g} to {mass.max():.2g} of the probability, median {np.median(mass):.2g}"
    return _Check("the answers are what it would say", PASS if np.median(mass) >= LEAST_MASS else FAIL, said)


def _position(judge: PairwiseJudge, texts: Sequence[tuple[Any, str]]) -> _Check:
    """Each text against the first one of its prompt, in both orders."""
    first: dict[str, str] = {}
    for prompt, response in texts:
        first.setdefault(prompt_text(prompt), response)
    others = [(p, r) for p, r in texts if first[prompt_text(p)] != r]
    prompts, responses = [p for p, _ in others], [r for _, r in others]
    gap, sd = position_gap(judge.compared(prompts, responses, [first[prompt_text(p)] for p in prompts]))
    said = f"being shown first adds {gap:.3g} to the log odds; the rewards' SD is {sd:.3g}"
    return _Check("the place in which a response is shown", PASS if abs(gap) <= sd else FAIL, said)


def _long(reward: RewardModel) -> list[_Check]:
    limit = reward.encode.max_length
    words = " ".join(f"word{i}" for i in range(limit))
    texts, statuses = reward.encode([words], [words])
    text, status = texts[0], statuses[0]
    whole = reward.encode(["What?"], [words.rsplit(" ", 5)[-1]])[0][0]
    if text is None or whole is None:
        return [_Check("longer than it reads", FAIL, f"not even the end of a text fits into {limit} tokens")]
    tail = min(3, len(whole.ids))
    kept = text.ids[-tail:] == whole.ids[-tail:] and len(text.ids) <= limit
    said = f"{status} to {len(text.ids)} of at most {limit} tokens; the response's end is {'kept' if kept else 'LOST'}"
    return [_Check("longer than it reads", PASS if kept else FAIL, said)]


def _reference(reward: RewardModel | PairwiseJudge, prompt: Any, response: str, score: float) -> _Check:
    got = float(reward([prompt], [response])[0])
    close = abs(got - score) <= 0.01 * max(1.0, abs(score))
    return _Check("the card's reference score", PASS if close else FAIL, f"{got:.5g} here, {score:.5g} on the card")
