"""The reward that preference training leaves in a language model: its log-likelihood against a reference model's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratekit.errors import InputError
from ratekit.scoring.adapters import LIKELIHOOD
from ratekit.scoring.base import SCORED, Scores
from ratekit.scoring.model import RewardModel


class DpoReward:
    """The reward that a model trained by preference (DPO) holds implicitly: beta log p(response)/p_reference(response).

    >>> reward = DpoReward("my-org/policy", "my-org/reference")  # doctest: +SKIP

    Rafailov et al. 2023 (arXiv 2305.18290), equation 5 without the part that depends on the prompt alone. Both models
    must read texts with the same tokenizer and template.
    """

    def __init__(
        self,
        policy: str | Path,
        reference: str | Path,
        *,
        beta: float = 0.1,
        path: str = "auto",
        trust_remote_code: bool = False,
    ) -> None:
        self.name, self.beta = str(policy), beta
        self.policy, self.reference = (
            RewardModel(model, LIKELIHOOD, path=path, trust_remote_code=trust_remote_code)
            for model in (policy, reference)
        )
        if self.policy.probe() != self.reference.probe():
            raise InputError(f"{policy} and {reference} do not read texts alike (tokenizer or chat template differ)")

    def __call__(self, prompts: Sequence[Any], responses: Sequence[str]) -> NDArray[np.float64]:
        """Rewards (n,) float64."""
        return self.scores(prompts, responses).rewards

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
