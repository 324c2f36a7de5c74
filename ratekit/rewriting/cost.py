"""What rewriting costs: an estimate before, a count while it runs, a record afterwards."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ratekit.checkpoints import check_folder
from ratekit.errors import InputError
from ratekit.schema import Conversation

log = logging.getLogger("ratekit")

CHARACTERS_PER_TOKEN = 4.0  # English under the tokenizers of today's LLMs: 4 to 4.5
LATENCY = 3.0  # seconds that a reply is assumed to take where no rate is given


@dataclass(frozen=True)
class Prices:
    """Money per million tokens, in and out; the currency is the user's own.

    Examples
    --------
    >>> Prices(0.15, 0.60).cost(2_000_000, 500_000)
    0.6
    """

    per_million_in: float
    per_million_out: float

    def __post_init__(self) -> None:
        if not (0 <= self.per_million_in < math.inf and 0 <= self.per_million_out < math.inf):
            raise InputError(
                f"prices of {self.per_million_in:g} and {self.per_million_out:g} per million tokens: numbers from 0 "
                "were expected"
            )

    def cost(self, tokens_in: float, tokens_out: float) -> float:
        """Money for so many tokens."""
        return (tokens_in * self.per_million_in + tokens_out * self.per_million_out) / 1e6


@dataclass
class Meter:
    """What a run has used so far, the replies that its cache holds from earlier calls included.

    Parameters
    ----------
    prices
        Money per million tokens.
    budget
        Money after which no new request is made; it needs prices, and binds a run as a whole, however often it was
        begun again.
    """

    prices: Prices | None = None
    budget: float | None = None
    requests: int = 0
    retries: int = 0
    replies: int = 0
    unreadable: int = 0  # whole answers without a text, paid for all the same
    estimated: int = 0  # replies whose tokens the server did not say
    from_cache: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    rows: int = 0
    under_way: float = 0.0  # money that the requests under way are expected to cost
    last_fault: str | None = None
    stopped: str | None = None  # why rows were left out, if they were
    about: dict[str, Any] = field(default_factory=dict)  # of the rewriter: model, params, template
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        if self.budget is not None and self.prices is None:
            raise InputError("a budget is money, so it needs the prices per million tokens (--price-in, --price-out)")
        if self.budget is not None and not 0 <= self.budget < math.inf:
            raise InputError(f"budget={self.budget}: a number from 0 was expected")

    def add(self, usage: Mapping[str, int], estimated: bool = False, readable: bool = True) -> None:
        """Count one answer that came."""
        self.replies += readable
        self.unreadable += not readable
        self.recall(usage, estimated)

    def recall(self, usage: Mapping[str, int], estimated: bool = False) -> None:
        """Count tokens that were paid for before."""
        self.estimated += estimated
        self.tokens_in += usage.get("prompt", 0)
        self.tokens_out += usage.get("completion", 0)

    @property
    def cost(self) -> float | None:
        """Money so far; None without prices."""
        return self.prices.cost(self.tokens_in, self.tokens_out) if self.prices else None

    def expect(self, tokens_in: float, tokens_out: float) -> None:
        """Note a request that is under way (or, with negative numbers, no longer)."""
        if self.prices:
            self.under_way += self.prices.cost(tokens_in, tokens_out)

    def spent(self) -> bool:
        """Whether the budget is used up, by what came and what is expected of the requests under way."""
        return self.budget is not None and (self.cost or 0.0) + self.under_way >= self.budget

    def shown(self) -> str:
        """For a progress bar: replies a second, tokens, money.

        Examples
        --------
        >>> Meter(Prices(1, 2), replies=3, tokens_in=2_000_000, tokens_out=1500).shown().split(", ", 1)[1]
        '2M tokens in, 1.5k out, cost 2.003'
        """
        rate = self.replies / max(time.monotonic() - self.started, 1e-9)
        pace = f"{rate:.1f} replies/s" if rate >= 1 else f"{60 * rate:.2g} replies/min"
        parts = [pace, f"{_short(self.tokens_in)} tokens in", f"{_short(self.tokens_out)} out"]
        if self.cost is not None:
            parts.append(f"cost {self.cost:.4g}{' (estimated)' if self.estimated else ''}")
        return ", ".join(parts)

    def record(self) -> dict[str, Any]:
        """What was used, for the record of a run."""
        return {
            **self.about,
            "requests": self.requests,
            "retries": self.retries,
            "replies": self.replies,
            "unreadable": self.unreadable,
            "from_cache": self.from_cache,
            "tokens_estimated": self.estimated,
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
            "cost": self.cost,
            "seconds": round(time.monotonic() - self.started, 1),
            "last_fault": self.last_fault,
            "stopped": self.stopped,
        }


@dataclass(frozen=True)
class CostPlan:
    """What a rewriting run would ask for, before it asks.

    Parameters
    ----------
    calls
        requests to be made, repeated texts and what the cache holds left out
    from_cache
        replies that are in the cache already
    repeated
        rows whose next request is another row's too, and is made once
    tokens_in
        of the requests; tokens_out of the replies, taken to be as long as the texts at hand
    counted_by
        how the tokens were counted: a tokenizer, or that it is an estimate
    money
        None without prices; hours and the rate that they are reckoned with
    """

    rows: int
    depth: int
    calls: int
    from_cache: int
    repeated: int
    tokens_in: int
    tokens_out: int
    counted_by: str
    money: float | None
    hours: float
    rate: str

    def __str__(self) -> str:
        money = "not known (give --price-in and --price-out)" if self.money is None else f"{self.money:,.2f}"
        return "\n".join(
            [
                f"rows        {self.rows:,} at depth {self.depth}",
                f"calls       {self.calls:,} ({self.from_cache:,} in the cache, {self.repeated:,} repeated texts)",
                f"tokens in   {self.tokens_in:,} ({self.counted_by})",
                f"tokens out  {self.tokens_out:,} (taken to be as long as the texts)",
                f"money       {money}",
                f"hours       {self.hours:.2g} ({self.rate})",
            ]
        )


@dataclass(frozen=True)
class Pending:
    """A request to be made and how many passes it begins (itself included): later ones hang on its reply."""

    conversation: Conversation
    text: str
    passes: int


def cost_plan(
    rows: int, depth: int, pending: Sequence[Pending], from_cache: int, repeated: int, chat: Any,
    prices: Prices | None = None,
) -> CostPlan:  # fmt: skip
    """The plan for the `pending` requests; texts of later passes are taken to be as long as those at hand."""
    count, counted_by = token_counter(chat)
    passes = [p.passes for p in pending]
    texts = count([p.text for p in pending])
    prompts = count(["\n".join(turn["content"] for turn in p.conversation) for p in pending])
    calls = sum(passes)
    tokens_out = sum(n * k for n, k in zip(texts, passes, strict=True))
    tokens_in = sum((n + 8) * k for n, k in zip(prompts, passes, strict=True))  # 8: the chat template's own
    hours, rate = _hours(chat, calls, tokens_in + tokens_out, max(passes, default=0))
    money = prices.cost(tokens_in, tokens_out) if prices else None
    return CostPlan(rows, depth, calls, from_cache, repeated, tokens_in, tokens_out, counted_by, money, hours, rate)


def token_counter(chat: Any) -> tuple[Callable[[Sequence[str]], list[int]], str]:
    """A function that counts the tokens of texts, and what to say about it; nothing is downloaded for it."""
    tokenizer = getattr(chat, "tokenizer", None) or _local_tokenizer(str(getattr(chat, "model", "")))
    if tokenizer is not None:
        return lambda texts: [len(t) for t in _ids(tokenizer, texts)], "counted with the model's own tokenizer"
    return (
        lambda texts: [round(len(t) / CHARACTERS_PER_TOKEN) for t in texts],
        f"an estimate: {CHARACTERS_PER_TOKEN:.0f} characters a token",
    )


def _ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    return list(tokenizer(list(texts), add_special_tokens=False)["input_ids"]) if texts else []


def _local_tokenizer(model: str) -> Any:
    """The model's tokenizer, if it is a folder here or in the hub's cache on this machine."""
    if "/" not in model:
        return None
    try:
        from transformers import AutoTokenizer

        check_folder(model)
        return AutoTokenizer.from_pretrained(model, local_files_only=True)
    except Exception:  # not here, or no tokenizer: then it is an estimate, and says so
        return None


def _hours(chat: Any, calls: int, tokens: int, passes: int) -> tuple[float, str]:
    window = getattr(chat, "window_hours", None)
    if window:
        return window * passes, f"at most; a batch is done within {window:.0f} h, and a pass waits for the one before"
    rpm, tpm = getattr(chat, "rpm", None), getattr(chat, "tpm", None)
    minutes = [calls / rpm if rpm else 0.0, tokens / tpm if tpm else 0.0]
    if rpm or tpm:
        given = [f"{rpm:,.0f} requests" if rpm else "", f"{tpm:,.0f} tokens" if tpm else ""]
        return max(minutes) / 60, f"at {' and '.join(g for g in given if g)} a minute"
    concurrency = getattr(chat, "concurrency", 1)
    return calls * LATENCY / concurrency / 3600, f"at {concurrency} at once and {LATENCY:.0f} s a reply, a guess"


def _short(number: float) -> str:
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g}{name}"
    return f"{number:.0f}"
