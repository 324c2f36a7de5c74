"""From a model's states to numbers: which rows of a text are read, and what is made of them.

Two ways to the same numbers: `from_hidden` reads single rows (packed path), `from_whole` takes the output of the
model's own forward (padded path, and the reference for the packed one).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


class Encoded(NamedTuple):
    """A text as the model gets it: token ids, segment ids (pairs), and where the response begins."""

    ids: tuple[int, ...]
    types: tuple[int, ...] = ()
    start: int = 0


@dataclass(frozen=True)
class Readout:
    """How a model is read.

    Parameters
    ----------
    rows
        text -> the positions whose last hidden state is read
    from_hidden
        (states (m, width), texts, rows of each text) -> (n, k); None where only the whole forward will do
    from_whole
        (the model's output, texts, first column of each text) -> (n, k)
    """

    rows: Callable[[Encoded], Sequence[int]]
    from_hidden: Callable[[Any, Sequence[Encoded], Sequence[Sequence[int]]], Any] | None
    from_whole: Callable[[Any, Sequence[Encoded], Sequence[int]], Any]
    causal: bool


def classifier(model: Any) -> Readout:
    """The logits of a sequence classifier: the last token's row for decoders, the first one's for encoders."""
    head, first = _head(model)

    def rows(text: Encoded) -> Sequence[int]:
        return (0,) if first else (last_token(model, text.ids),)

    def from_hidden(states: Any, texts: Sequence[Encoded], rows: Sequence[Sequence[int]]) -> Any:
        return head(states)  # type: ignore[misc]

    def from_whole(output: Any, texts: Sequence[Encoded], offsets: Sequence[int]) -> Any:
        return output.logits

    return Readout(rows, from_hidden if head else None, from_whole, causal=not first)


def objectives(model: Any) -> Readout:
    """A multi-objective head: its `score` in the first column, its `rewards` in the others."""
    import torch

    def from_whole(output: Any, texts: Sequence[Encoded], offsets: Sequence[int]) -> Any:
        return torch.cat([output.score.reshape(len(texts), 1), output.rewards.reshape(len(texts), -1)], 1)

    return Readout(lambda text: (len(text.ids) - 1,), None, from_whole, causal=True)


def yes_no(model: Any, yes: int, no: int) -> Readout:
    """logit(yes) - logit(no) of the token that a language model would say next; then the two's probability."""
    import torch

    def answered(logits: Any) -> Any:
        both = logits[:, [yes, no]].float()
        mass = torch.exp(torch.logsumexp(both, 1) - torch.logsumexp(logits.float(), 1))
        return torch.stack([both[:, 0] - both[:, 1], mass], 1)

    return _next_token(model, answered)


def token_logit(model: Any, token: int) -> Readout:
    """The logit of one token as the next one."""
    return _next_token(model, lambda logits: logits[:, [token]].float())


def _next_token(model: Any, read: Callable[[Any], Any]) -> Readout:
    """What `read` makes of the logits (texts, vocabulary) of the token after each text."""

    def from_hidden(states: Any, texts: Sequence[Encoded], rows: Sequence[Sequence[int]]) -> Any:
        return read(_vocabulary(model, states))

    def from_whole(output: Any, texts: Sequence[Encoded], offsets: Sequence[int]) -> Any:
        last = [o + len(t.ids) - 1 for o, t in zip(offsets, texts, strict=True)]
        return read(output.logits[range(len(texts)), last])

    return Readout(lambda text: (len(text.ids) - 1,), from_hidden, from_whole, causal=True)


def log_likelihood(model: Any) -> Readout:
    """log p(response | prompt): the log-probabilities of the response's tokens, summed."""
    import torch

    def rows(text: Encoded) -> Sequence[int]:
        return range(text.start - 1, len(text.ids) - 1)

    def of_tokens(logits: Any, tokens: Any) -> Any:
        return torch.log_softmax(logits.float(), -1).gather(1, tokens[:, None])[:, 0]

    def from_hidden(states: Any, texts: Sequence[Encoded], rows: Sequence[Sequence[int]]) -> Any:
        said = torch.tensor([t.ids[r + 1] for t, rs in zip(texts, rows, strict=True) for r in rs], device=states.device)
        parts = [
            of_tokens(_vocabulary(model, states[i : i + 256]), said[i : i + 256]) for i in range(0, len(said), 256)
        ]
        owners = torch.tensor([k for k, rs in enumerate(rows) for _ in rs], device=states.device)
        sums = torch.zeros(len(texts), dtype=torch.float64, device="cpu")
        return sums.index_add_(0, owners.cpu(), torch.cat(parts).double().cpu())[:, None]

    def from_whole(output: Any, texts: Sequence[Encoded], offsets: Sequence[int]) -> Any:
        sums = []
        for k, (text, offset) in enumerate(zip(texts, offsets, strict=True)):
            logits = output.logits[k, offset + text.start - 1 : offset + len(text.ids) - 1]
            sums.append(of_tokens(logits, torch.tensor(text.ids[text.start :], device=logits.device)).double().sum())
        return torch.stack(sums)[:, None]

    return Readout(rows, from_hidden, from_whole, causal=True)


def last_token(model: Any, ids: Sequence[int]) -> int:
    """The token that `transformers` reads: the last one that is not the checkpoint's padding token."""
    pad = model.config.get_text_config().pad_token_id
    for i in range(len(ids) - 1, -1, -1):
        if ids[i] != pad:
            return i
    return 0


def _head(model: Any) -> tuple[Callable[[Any], Any] | None, bool]:
    """What a classifier puts on the row that it reads, and whether that is the first row (encoders) or the last."""
    parts = {name for name, _ in model.named_children()} - {model.base_model_prefix, "dropout", "drop"}
    base = model.base_model
    if parts == {"score"}:
        return model.score, False
    if parts == {"pre_classifier", "classifier"}:  # DistilBERT
        return lambda states: model.classifier(model.pre_classifier(states).relu()), True
    if parts == {"classifier"} and getattr(base, "pooler", None) is not None and hasattr(base.pooler, "dense"):  # BERT
        return lambda states: model.classifier(base.pooler(states[:, None])), True
    if parts == {"classifier"} and hasattr(model.classifier, "out_proj"):  # RoBERTa, ELECTRA
        return lambda states: model.classifier(states[:, None]), True
    return None, True


def _vocabulary(model: Any, states: Any) -> Any:
    """The logits of the vocabulary, as the model's own forward makes them."""
    import torch

    logits = model.get_output_embeddings()(states)
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap
