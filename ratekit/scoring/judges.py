"""Rewards made of a language model's probabilities: the one that preference training leaves, and a judge of pairs."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ratekit.errors import InputError, shorten
from ratekit.schema import ANSWER_MASS, PROMPT, RESPONSE, SHOWN_FIRST, SHOWN_SECOND, prompt_text
from ratekit.scoring.adapters import LIKELIHOOD, PAIRWISE, Adapter
from ratekit.scoring.base import EMPTY, SCORED, CalledByScores, Scores
from ratekit.scoring.model import RewardModel

log = logging.getLogger("ratekit")

LEAST_PAIRS = 8  # before a judge's liking for a place is spoken of


class DpoReward(CalledByScores):
    """The reward that a model trained by preference (DPO) holds implicitly: beta log p(response)/p_reference(response).

    Rafailov et al. 2023 (arXiv 2305.18290), equation 5 without the part that depends on the prompt alone. Both models
    must read texts with the same tokenizer and template.

    Examples
    --------
    >>> reward = DpoReward("my-org/policy", "my-org/reference")  # doctest: +SKIP
    """

    def __init__(
        self,
        policy: str | Path,
        reference: str | Path,
        *,
        beta: float = 0.1,
        path: str = "auto",
        truncation: str = "prompt",
        trust_remote_code: bool = False,
    ) -> None:
        self.name, self.beta = str(policy), beta
        self.policy, self.reference = (
            RewardModel(model, LIKELIHOOD, path=path, truncation=truncation, trust_remote_code=trust_remote_code)
            for model in (policy, reference)
        )
        if self.policy.probe() != self.reference.probe():
            raise InputError(f"{policy} and {reference} do not read texts alike (tokenizer or chat template differ)")

    def scores(self, prompts: Sequence[Any], responses: Sequence[str]) -> Scores:
        """The rewards, and of each text whether and how it was read; the two log-likelihoods as parts."""
        policy, reference = (m.scores(prompts, responses) for m in (self.policy, self.reference))
        parts = {"log_p_policy": policy.rewards, "log_p_reference": reference.rewards}
        statuses = [b if a in SCORED else a for a, b in zip(policy.statuses, reference.statuses, strict=True)]
        return Scores(self.beta * (policy.rewards - reference.rewards), statuses, parts, policy.tokens)

    @property
    def fingerprint(self) -> dict[str, str]:
        """Both models' together."""
        policy, reference = self.policy.fingerprint, self.reference.fingerprint
        joined = {name: f"{policy[name]} / {reference[name]}" for name in policy}
        return {**joined, "adapter": f"dpo-beta={self.beta}-{joined['adapter']}"}


class PairwiseJudge(CalledByScores):
    """The log odds that a language model prefers a response to the reference response of its prompt.

    Both orders are asked and averaged, so that a judge that likes the first response whatever it says gives 0: half of
    [logit(A) - logit(B)] with the response first, and half of [logit(B) - logit(A)] with it second. A response that is
    its own reference has exactly 0.

    Parameters
    ----------
    model
        local folder or hub id of a language model with a chat template
    references
        prompt -> the response that others are compared with, or a data file with `prompt` and `response` (the first
        response of each prompt counts)
    adapter
        the question and the two answers; `{response}` becomes both responses, named by the answers

    Raises
    ------
    InputError
        For a prompt that has no reference.

    Examples
    --------
    >>> judge = PairwiseJudge("my-org/judge", {"Why is the sky blue?": "Because of the air."})  # doctest: +SKIP
    >>> judge(["Why is the sky blue?"], ["Air scatters blue light most."]).shape  # doctest: +SKIP
    (1,)
    """

    def __init__(
        self,
        model: str | Path,
        references: Mapping[str, str] | str | Path,
        *,
        adapter: Adapter = PAIRWISE,
        path: str = "auto",
        truncation: str = "prompt",
        trust_remote_code: bool = False,
    ) -> None:
        self.references = references_of(references)
        self.model = RewardModel(model, adapter, path=path, truncation=truncation, trust_remote_code=trust_remote_code)
        self.name = self.model.name
        self._gap_said = False

    def scores(self, prompts: Sequence[Any], responses: Sequence[str]) -> Scores:
        """The rewards, and of each text how it was read; as parts both orders and the answers' probability."""
        scores = self.compared(prompts, responses, [self.references.of(prompt) for prompt in prompts])
        gap, sd = position_gap(scores)
        if abs(gap) > sd and np.isfinite(scores.rewards).sum() >= LEAST_PAIRS and not self._gap_said:
            self._gap_said = True
            log.warning(
                "%s: the place in which a response is shown moves its log odds by %.3g, more than the rewards' SD of "
                "%.3g: what is averaged out drowns what is left", self.name, gap, sd,
            )  # fmt: skip
        return scores

    def compared(self, prompts: Sequence[Any], responses: Sequence[str], references: Sequence[str]) -> Scores:
        """The same, with the response given that each is compared with."""
        n, pairs = len(prompts), list(zip(responses, references, strict=True))
        both = self.model.scores(
            [*prompts, *prompts], [*(self._shown(a, b) for a, b in pairs), *(self._shown(b, a) for a, b in pairs)]
        )
        first, second = both.rewards[:n], -both.rewards[n:]
        statuses = [b if a in SCORED else a for a, b in zip(both.statuses[:n], both.statuses[n:], strict=True)]
        statuses = [s if r.strip() else EMPTY for s, r in zip(statuses, responses, strict=True)]
        scored = np.array([s in SCORED for s in statuses], dtype=bool)
        parts = {SHOWN_FIRST: np.where(scored, first, np.nan), SHOWN_SECOND: np.where(scored, second, np.nan)}
        mass = both.parts[ANSWER_MASS]
        parts[ANSWER_MASS] = np.where(scored, (mass[:n] + mass[n:]) / 2, np.nan)
        rewards = np.where(scored, (first + second) / 2, np.nan)
        return Scores(rewards, statuses, parts, both.tokens[:n] + both.tokens[n:])

    @property
    def fingerprint(self) -> dict[str, str]:
        """The model's, with a hash of the references."""
        own = self.model.fingerprint
        return {**own, "adapter": f"{own['adapter']}-against-{self.references.hash}"}

    def _shown(self, first: str, second: str) -> str:
        a, b = self.model.adapter.answers
        return f"<response {a}>\n{first}\n</response {a}>\n\n<response {b}>\n{second}\n</response {b}>"


@dataclass(frozen=True)
class References:
    """The response that others are compared with, by prompt.

    Examples
    --------
    >>> References({"Why?": "Because."}).of([{"role": "user", "content": "Why?"}])
    'Because.'
    """

    by_prompt: Mapping[str, str]

    def of(self, prompt: Any) -> str:
        """The reference response of a prompt. Raises InputError where there is none."""
        text = prompt_text(prompt)
        if text not in self.by_prompt:
            raise InputError(f"there is no reference response for the prompt {shorten(text, 60)!r}")
        return self.by_prompt[text]

    @property
    def hash(self) -> str:
        """Eight digits that tell these references from others."""
        return hashlib.sha256(repr(sorted(self.by_prompt.items())).encode("utf-8", "surrogatepass")).hexdigest()[:8]


def references_of(given: Mapping[str, str] | str | Path) -> References:
    """The references in a mapping, or in a data file with `prompt` and `response` (the first of each prompt counts)."""
    return References(dict(given) if isinstance(given, Mapping) else _read(given))


def position_gap(scores: Scores) -> tuple[float, float]:
    """What being shown first adds to a response's log odds, on average, and the SD of the rewards beside it."""
    first, second = scores.parts[SHOWN_FIRST], scores.parts[SHOWN_SECOND]
    there = np.isfinite(first) & np.isfinite(second)
    if not there.any():
        return 0.0, 0.0
    return float((first - second)[there].mean() / 2), float(scores.rewards[there].std())


def _read(path: str | Path) -> dict[str, str]:
    from ratekit.sources.loading import load

    ds = load(str(path), duplicates="keep")
    found: dict[str, str] = {}
    for prompt, response in zip(ds[PROMPT], ds[RESPONSE], strict=True):
        found.setdefault(prompt_text(prompt), response)
    return found
