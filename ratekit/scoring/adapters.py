"""How a reward model is read: one literal each. What is not named here is guessed from its config, and said.

sees    chat       the conversation in the model's own chat template, the response as its last turn
        pair       tokenizer(prompt, response), as cross-encoders are trained
        response   the response alone
        question   a chat that asks a language model about the response
reads   logit      the only output
        positive   the output whose label says so (POSITIVE, pos)
        objectives `score`, and `rewards` as further columns (code of the model's own)
        yes_no     logit of the first answer ("Yes", "A") minus logit of the second as the next token
        token      logit of one named token as the next one, after the response (Nemotron)
        log_likelihood   log p(response | prompt)
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratekit.errors import InputError, require_known

log = logging.getLogger("ratekit")


@dataclass(frozen=True)
class Adapter:
    """How (prompt, response) becomes what the model sees, and what is read from it."""

    name: str
    sees: str
    reads: str = "logit"
    objectives: tuple[str, ...] = ()
    question: str = ""
    answers: tuple[str, str] = ("Yes", "No")
    token: str | int = ""


CHAT = Adapter("chat", "chat")
PAIR = Adapter("pair", "pair")
POSITIVE = Adapter("positive", "response", "positive")
ARMO = Adapter(
    "armo", "chat", "objectives",
    objectives=(
        "helpsteer-helpfulness", "helpsteer-correctness", "helpsteer-coherence", "helpsteer-complexity",
        "helpsteer-verbosity", "ultrafeedback-overall_score", "ultrafeedback-instruction_following",
        "ultrafeedback-truthfulness", "ultrafeedback-honesty", "ultrafeedback-helpfulness", "beavertails-is_safe",
        "prometheus-score", "argilla-overall_quality", "argilla-judge_lm", "code-complexity", "code-style",
        "code-explanation", "code-instruction-following", "code-readability",
    ),
)  # fmt: skip
JUDGE = Adapter(
    "judge", "question", "yes_no",
    question="Here is a conversation and the response to it.\n\n<conversation>\n{prompt}\n</conversation>\n\n"
    "<response>\n{response}\n</response>\n\nIs this a good response? Answer with Yes or No alone.",
)  # fmt: skip
PAIRWISE = Adapter(
    "pairwise", "question", "yes_no", answers=("A", "B"),
    question="Here is a conversation and two responses to it.\n\n<conversation>\n{prompt}\n</conversation>\n\n"
    "{response}\n\nWhich response is better? Answer with A or B alone.",
)  # fmt: skip
LIKELIHOOD = Adapter("log-likelihood", "chat", "log_likelihood")
NEMOTRON = Adapter("nemotron", "chat", "token", token=0)

ADAPTERS: dict[str, Adapter] = {a.name: a for a in (CHAT, PAIR, POSITIVE, ARMO, JUDGE, PAIRWISE, LIKELIHOOD, NEMOTRON)}

POSITIVE_LABELS, NEGATIVE_LABELS = ("positive", "pos"), ("negative", "neg")  # in any case

LANGUAGE_MODEL_READS = ("yes_no", "log_likelihood", "token")

# The hub's reward models whose reading is known.
HUB: dict[str, Adapter] = {
    "sfairXC/FsfairX-LLaMA3-RM-v0.1": CHAT,
    "NCSOFT/Llama-3-OffsetBias-RM-8B": CHAT,
    "Skywork/Skywork-Reward-V2-Llama-3.1-8B": CHAT,
    "Skywork/Skywork-Reward-V2-Llama-3.2-3B": CHAT,
    "Skywork/Skywork-Reward-V2-Qwen3-0.6B": CHAT,
    "Skywork/Skywork-Reward-V2-Qwen3-8B": CHAT,
    "RLHFlow/ArmoRM-Llama3-8B-v0.1": ARMO,
    "nvidia/Llama-3.1-Nemotron-70B-Reward-HF": NEMOTRON,
    "OpenAssistant/reward-model-deberta-v3-large-v2": PAIR,
    "distilbert/distilbert-base-uncased-finetuned-sst-2-english": POSITIVE,
}


def find_adapter(name: str, adapter: str | Adapter | None) -> Adapter | None:
    """The adapter asked for, or the one known for this hub id or for a folder that bears that model's name.

    Raises
    ------
    InputError
        For an unknown name.
    """
    if isinstance(adapter, str):
        return named_adapter(adapter)
    if adapter is not None or name in HUB or not Path(name).is_dir():
        return adapter or HUB.get(name)
    return next((known for hub_id, known in HUB.items() if hub_id.split("/")[-1] == Path(name).name), None)


def adapter_of(name: str, adapter: str | Adapter | None, config: Any, has_template: bool) -> Adapter:
    """The adapter asked for, or known, or that a config suggests; a guess is logged.

    Raises
    ------
    InputError
        For an unknown name, and for what is no reward model.
    """
    return find_adapter(name, adapter) or _guess(name, config, has_template)


def _guess(name: str, config: Any, has_template: bool) -> Adapter:
    kinds = getattr(config, "architectures", None) or []
    if kinds and not any("SequenceClassification" in k or "Reward" in k for k in kinds):
        raise InputError(
            f"{name!r} is a {kinds[0]}, not a reward model; a sequence classifier with one output was expected "
            f"(a language model can be asked: judge:{name}; one whose reward is the logit of a token is read with "
            "adapter='token:TOKEN')"
        )
    if config.num_labels == 1 and (bad := [v for v in _labels(config).values() if v in NEGATIVE_LABELS]):
        raise InputError(
            f"{name!r} has one output, whose label is {bad[0]!r}: it falls where the response is good; say how it is "
            "read (adapter='chat' or 'pair') to take it all the same"
        )
    if config.num_labels == 1 and has_template:
        adapter, because = CHAT, "one output and a chat template"
    elif config.num_labels == 1 and _is_encoder(config):
        adapter, because = PAIR, "one output and no chat template"
    elif config.num_labels == 1:
        raise InputError(
            f"{name!r} has no chat template, so it cannot be told how it was trained to read a conversation; put its "
            "template into chat_template.jinja in its folder, or say adapter='pair' if it read prompt + response"
        )
    elif positive_label(config) is not None:
        adapter, because = POSITIVE, f"the labels {', '.join(config.id2label.values())}"
    elif getattr(config, "auto_map", None):
        raise InputError(
            f"{name!r} is a {kinds[0] if kinds else 'model'} with code and a head of its own, and how it is read is "
            "not known; wrap it in a function (prompts, responses) -> rewards and pass that"
        )
    else:
        raise InputError(
            f"{name!r} has {config.num_labels} outputs, and a reward has one; wrap it in a function "
            "(prompts, responses) -> rewards and pass that"
        )
    level = logging.INFO if adapter is CHAT else logging.WARNING  # a chat template says how a model is to be read
    log.log(level, "%s is read as %r, guessed from %s", name, adapter.name, because)
    return adapter


def named_adapter(name: str) -> Adapter:
    """The adapter of that name, or `token:TOKEN` (a number is a token's id).

    Examples
    --------
    >>> named_adapter("token:0").token
    0
    """
    kind, colon, token = name.partition(":")
    if kind == "token" and colon and token:
        return Adapter(name, "chat", "token", token=int(token) if token.isdecimal() else token)
    require_known("adapter", name, ADAPTERS, "or token:TOKEN, the logit of one token")
    return ADAPTERS[name]


def positive_label(config: Any) -> int | None:
    """Which output of a two-class classifier is the good one."""
    named = [i for i, label in _labels(config).items() if label in POSITIVE_LABELS]
    return named[0] if len(named) == 1 else None


def _labels(config: Any) -> dict[int, str]:
    return {int(i): str(label).lower() for i, label in (getattr(config, "id2label", None) or {}).items()}


def _is_encoder(config: Any) -> bool:
    """Whether its tokens see what follows them; from the masked-language-model table, so that no weights are read."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    kind = getattr(config, "model_type", "")
    return kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES or kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
