"""A language model behind a server as a reward: a judge with a rubric and a scale, and a judge of pairs.

    judge:openai:MODEL                               helpful, correct and clear, from 1 to 10
    judge:openai:MODEL,rubric=FILE,scale=1-5         a rubric of your own, with {response} and perhaps {prompt}
    judge:openai:MODEL,criteria=clarity+truth,repeats=3
    pairwise:openai:MODEL,REFERENCES                 against the reference response of each prompt, in both orders

They ask through the client of rewriting: concurrency, retries, rates, the Batch API and the cache are its own. Every
reply is in the cache before it counts, and what is there is not asked again.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ratekit.errors import InputError, require_whole, shorten, unknown
from ratekit.redaction import redact
from ratekit.rewriting import base as replies
from ratekit.rewriting.base import FILTERED, LENGTH, STOP, Chat, Reply, Rewrite, ending
from ratekit.rewriting.cache import Cache, default_cache, fingerprint_of, spent_on
from ratekit.rewriting.cost import Meter, Prices
from ratekit.rewriting.options import Limits, Sampling
from ratekit.rewriting.stream import Asks, ChainRow, ask_chains
from ratekit.schema import SHOWN_FIRST, SHOWN_SECOND, Conversation
from ratekit.scoring.base import (
    EMPTY,
    FAILED,
    INCOMPLETE,
    NOT_TEXT,
    OK,
    REFUSED,
    SCORED,
    UNPARSABLE,
    CalledByScores,
    Scores,
)
from ratekit.scoring.judges import references_of
from ratekit.scoring.rubrics import PairQuestion, Rubric, Scale, rubric_file

log = logging.getLogger("ratekit")

_BLOCK = 20_000  # texts that a judge is handed at once


@dataclass
class _Asking(Asks):
    """One round of questions to a judge, as the client of rewriting asks them; its replies are read at once."""

    chat: Chat
    cache: Cache | None
    template_hash: str
    scale: str
    read: Any  # (Reply) -> what is read, as JSON, or None
    ask: Any  # (text, prompt) -> conversation
    round: int = 0
    retry_failed: bool = False
    said: dict[str, str] | None = None  # status -> the first such reply

    @property
    def fingerprint(self) -> str:
        """That of the chat, and which round it is."""
        return super().fingerprint + (f"|round={self.round}" if self.round else "")

    def conversation(self, text: str, target: bool, prompt: Any = None) -> Conversation:
        return list(self.ask(text, prompt))

    def judge(self, reply: Reply, source: str) -> Rewrite:
        """What a reply says, as JSON; or why nothing can be read in it."""
        end = ending(reply.finish_reason)
        if end == FILTERED:
            return Rewrite(None, REFUSED)
        if end not in (STOP, LENGTH) or reply.text is None:
            return Rewrite(None, FAILED)
        read = self.read(reply) if end == STOP else None
        if read is None:
            cut = "cut off: " if end == LENGTH else ""
            if self.said is not None:
                self.said.setdefault(UNPARSABLE, f"as in {cut}{shorten(redact(reply.text), 60)!r}")
            return Rewrite(None, UNPARSABLE)
        return Rewrite(json.dumps(read), OK)

    def named(self, target: bool) -> tuple[str, str]:
        return "judge", self.scale

    def answers(self, texts: Sequence[Any], prompts: Sequence[Any], meter: Meter) -> list[tuple[Any, str]]:
        """What was read for each text and its status; the cache's replies first."""
        found: list[tuple[Any, str]] = []

        def rows() -> Iterator[ChainRow]:
            for text, prompt in zip(texts, prompts, strict=True):
                yield ChainRow(text, True, prompt)

        def take(chain: replies.Chain) -> None:
            text, status = chain[0][0], chain[1][0]
            found.append((None if text is None else json.loads(text), status))

        ask_chains(self, rows(), 1, take, meter)
        return found

    def recall(self, texts: Sequence[Any], prompts: Sequence[Any], meter: Meter) -> None:
        """Put what the cache says was paid for these texts into the meter."""
        for text, prompt in zip(texts, prompts, strict=True):
            record = self.cache.get(self.key(self.conversation(text, True, prompt))) if self.cache is not None else None
            if record is not None:
                meter.recall(spent_on(record), bool(record.get("estimated")))


class Spread(NamedTuple):
    """How far a judge's scores of one text lie apart, and how far the texts do.

    Attributes
    ----------
    repeat_sd : float
        SD of the scores of one text that is asked about again, in points.
    text_sd : float
        SD of the texts' own mean scores, the judge's spread taken out.
    reliability : float
        Share of the variance of the mean of `repeats` scores that is the texts' own.
    n, repeats : int
        Texts that were scored more than once, and how often they were asked about.
    """

    repeat_sd: float
    text_sd: float
    reliability: float
    n: int
    repeats: int


def judge_spread(scores: ArrayLike) -> Spread:
    """A judge's own spread apart from the texts', by one-way analysis of variance.

    Parameters
    ----------
    scores : array_like, shape (n, k)
        One row per text, one column per repeat; NaN where a repeat could not be read.

    Notes
    -----
    Within a text the mean square W estimates the judge's variance; between texts B estimates W + k0 T, with T the
    texts' own variance and k0 = (N - sum n_i^2 / N) / (texts - 1) for n_i scores of text i (Searle, Casella and
    McCulloch 1992, *Variance Components*, section 3.6).

    Examples
    --------
    >>> judge_spread([[6, 8], [2, 4]]).repeat_sd ** 2  # each text's two scores differ by 2
    2.0000000000000004
    """
    x = np.asarray(scores, dtype=np.float64)
    n_of = np.isfinite(x).sum(axis=1)
    x, n_of = x[n_of > 0], n_of[n_of > 0]
    total, texts, repeats = int(n_of.sum()), len(n_of), int(x.shape[1]) if x.ndim == 2 else 0
    more = int((n_of > 1).sum())
    if texts < 2 or total <= texts:
        return Spread(float("nan"), float("nan"), float("nan"), more, repeats)
    means = np.nanmean(x, axis=1)
    within = float(np.nansum((x - means[:, None]) ** 2)) / (total - texts)
    grand = float(np.nansum(x)) / total
    between = float((n_of * (means - grand) ** 2).sum()) / (texts - 1)
    k0 = (total - float((n_of**2).sum()) / total) / (texts - 1)
    own = max(0.0, (between - within) / k0)
    whole = own + within / k0
    return Spread(within**0.5, own**0.5, own / whole if whole > 0 else float("nan"), more, repeats)


class LLMJudge(CalledByScores):
    """The score that a language model gives a response by a rubric: the mean over criteria and repeats.

    Parameters
    ----------
    chat : callable
        `rk.OpenAIChat(MODEL)`, `rk.BatchChat(MODEL, folder)` or any chat.
    rubric : Rubric
        What is asked, the scale and the criteria.
    repeats : int
        How often each text is asked about; the reward is the mean of the scores that could be read.
    cache : str or Path, optional
        Folder of the replies; by default none is kept on disk.
    meter : Meter, optional
        Counts what is used, and holds the budget.
    name : str, optional
        Of the reward; by default that of the model.

    Raises
    ------
    InputError
        For `repeats` below 1.

    Notes
    -----
    A reply in which no score of the scale can be read gives null with the status "unparsable", one that lacks a
    criterion "incomplete" (the criteria that it has keep their scores), a refusal "refused", and what a spent budget
    left out "not_attempted". With log-probabilities (``OpenAIChat(top_logprobs=20)``) and one criterion the score is
    the expected one. Each criterion is an objective of the reward, a column ``reward/<name>/<criterion>`` of its own.

    Examples
    --------
    >>> def chat(conversations):
    ...     for i, _ in enumerate(conversations):
    ...         yield Reply(i, "7", "stop")
    >>> LLMJudge(chat, name="always-7")(["Why?", "How?"], ["So.", "Thus."])
    array([7., 7.])
    """

    block = _BLOCK

    def __init__(
        self,
        chat: Chat,
        rubric: Rubric | None = None,
        *,
        repeats: int = 1,
        cache: str | Path | None = None,
        meter: Meter | None = None,
        name: str | None = None,
    ) -> None:
        require_whole("repeats", repeats, 1)
        self.chat, self.rubric, self.repeats = chat, rubric or Rubric(), repeats
        self.cache, self.meter = cache, meter or Meter()
        self.name = name or f"judge:{getattr(chat, 'model', 'chat')}"
        self._by_repeat: list[NDArray[np.float64]] = []

    def scores(self, prompts: Sequence[Any], responses: Sequence[str]) -> Scores:
        """The rewards, why there is none where there is none, and each criterion's score."""
        n, names = len(responses), self.rubric.criteria or ("",)
        statuses = _askable(responses)
        asked = [i for i, s in enumerate(statuses) if s == OK]
        values = np.full((n, self.repeats, len(names)), np.nan)
        failed: list[list[str]] = [[] for _ in range(n)]
        said: dict[str, str] = {}

        for k in range(self.repeats):
            asking = self._asking(k, said)
            answers = asking.answers([responses[i] for i in asked], [prompts[i] for i in asked], self.meter)
            for i, (found, status) in zip(asked, answers, strict=True):
                values[i, k] = [(found or {}).get(name, np.nan) for name in names]
                failed[i] += [status] if found is None else []
                missing = [name for name in names if found is not None and name not in found]
                if missing:
                    failed[i].append(INCOMPLETE)
                    said.setdefault(INCOMPLETE, f"no {', '.join(missing)}")
        by_name, rewards = _over_repeats(values, failed, statuses)
        if self.repeats > 1:
            self._by_repeat.append(values.mean(axis=2))
            log.info("%s: %s", self.name, said_spread(self.spread))
        parts = {name: by_name[:, j] for j, name in enumerate(names)} if self.rubric.criteria else {}
        return Scores(rewards, statuses, parts, np.zeros(n, dtype=np.int64), said)

    def _asking(self, k: int, said: dict[str, str] | None = None) -> _Asking:
        def read(reply: Reply) -> Any:
            found = self.rubric.read(reply.text or "", reply.logprobs)
            return dict(found.scores) or None

        return _Asking(
            _again(self.chat, k), _cache(self.cache, self.rubric.hash), self.rubric.hash, str(self.rubric.scale), read,
            lambda text, prompt: self.rubric.conversation(prompt, text), k, said=said,
        )  # fmt: skip

    def recall(self, prompts: Sequence[Any], responses: Sequence[str]) -> None:
        """Count what texts have cost that an earlier run scored, so that a budget is one over all runs."""
        for k in range(self.repeats if self.meter.budget is not None else 0):
            self._asking(k).recall(responses, prompts, self.meter)

    @property
    def spread(self) -> Spread:
        """How far the scores of one text lie apart, and how far the texts do, in what was scored so far."""
        return judge_spread(np.concatenate(self._by_repeat) if self._by_repeat else np.zeros((0, self.repeats)))

    @property
    def fingerprint(self) -> dict[str, str]:
        """The model, its parameters, the rubric and the repeats."""
        return _fingerprint(self.chat, f"judge-{self.rubric.hash}-x{self.repeats}")

    def record(self) -> dict[str, Any]:
        """What it was asked, for the record beside its scores."""
        rubric = self.rubric
        return {**self.fingerprint, "rubric": rubric.text, "scale": str(rubric.scale), "criteria": rubric.criteria,
                "repeats": self.repeats}  # fmt: skip


class PairwiseLLMJudge(CalledByScores):
    """How often a language model prefers a response to its prompt's reference response: 1 always, 0 never.

    Parameters
    ----------
    chat : callable
        `rk.OpenAIChat(MODEL)` or any chat.
    references : mapping or path
        Prompt -> the response that others are compared with, or a data file with `prompt` and `response`.
    question : PairQuestion
        What is asked.
    repeats, cache, meter, name
        As for `LLMJudge`.

    Notes
    -----
    Both orders are asked; a tie counts half. The reward is the mean of the two orders, so that a judge that takes the
    first response whatever it says gives 0.5. The two orders are objectives (`shown_first`, `shown_second`), from
    which `rk.position` gives the effect of position. A text of which one order could not be read is null.

    Examples
    --------
    >>> def first(conversations):
    ...     for i, _ in enumerate(conversations):
    ...         yield Reply(i, "A", "stop")
    >>> PairwiseLLMJudge(first, {"Why?": "Because."}, name="first")(["Why?"], ["So."])
    array([0.5])
    """

    block = _BLOCK

    def __init__(
        self,
        chat: Chat,
        references: Mapping[str, str] | str | Path,
        question: PairQuestion | None = None,
        *,
        repeats: int = 1,
        cache: str | Path | None = None,
        meter: Meter | None = None,
        name: str | None = None,
    ) -> None:
        require_whole("repeats", repeats, 1)
        self.chat, self.references, self.question = chat, references_of(references), question or PairQuestion()
        self.repeats, self.cache, self.meter = repeats, cache, meter or Meter()
        self.name = name or f"pairwise:{getattr(chat, 'model', 'chat')}"

    def scores(self, prompts: Sequence[Any], responses: Sequence[str]) -> Scores:
        """The rewards, why there is none where there is none, and both orders."""
        n, statuses = len(responses), _askable(responses)
        others = [self.references.of(prompt) for prompt in prompts]
        asked = [i for i, s in enumerate(statuses) if s == OK]
        values = np.full((n, self.repeats, 2), np.nan)
        failed: list[list[str]] = [[] for _ in range(n)]
        said: dict[str, str] = {}
        for k in range(self.repeats):
            for order in (0, 1):
                shown = [(responses[i], others[i])[:: 1 - 2 * order] for i in asked]
                answers = self._asking(k, said).answers(
                    [responses[i] for i in asked], [(prompts[i], pair) for i, pair in zip(asked, shown, strict=True)],
                    self.meter,
                )  # fmt: skip
                for i, (found, status) in zip(asked, answers, strict=True):
                    if found is None:
                        failed[i].append(status)
                    else:
                        values[i, k, order] = found if order == 0 else 1 - found
        orders, rewards = _over_repeats(values, failed, statuses)
        scored = np.array([s in SCORED for s in statuses], dtype=bool)
        parts = {name: np.where(scored, orders[:, j], np.nan) for j, name in enumerate((SHOWN_FIRST, SHOWN_SECOND))}
        return Scores(rewards, statuses, parts, np.zeros(n, dtype=np.int64), said)

    def _asking(self, k: int, said: dict[str, str] | None = None) -> _Asking:
        return _Asking(
            _again(self.chat, k), _cache(self.cache, self.question.hash), self.question.hash, "A-B-tie",
            lambda reply: self.question.read(reply.text or ""),
            lambda text, prompt: self.question.conversation(prompt[0], *prompt[1]), k, said=said,
        )  # fmt: skip

    def recall(self, prompts: Sequence[Any], responses: Sequence[str]) -> None:
        """Count what texts have cost that an earlier run scored, so that a budget is one over all runs."""
        others = [self.references.of(prompt) for prompt in prompts]
        for k in range(self.repeats if self.meter.budget is not None else 0):
            for order in (1, -1):
                shown = [pair[::order] for pair in zip(responses, others, strict=True)]
                self._asking(k).recall(responses, list(zip(prompts, shown, strict=True)), self.meter)

    @property
    def fingerprint(self) -> dict[str, str]:
        """The model, its parameters, the question and the references."""
        return _fingerprint(self.chat, f"pairwise-{self.question.hash}-x{self.repeats}-against-{self.references.hash}")


def said_spread(of: Spread) -> str:
    """The spread in words.

    Examples
    --------
    >>> said_spread(Spread(0.8, 1.9, 0.94, 200, 3))
    'the scores of one text asked about again have an SD of 0.8, the texts one of 1.9; the mean of 3 is 94 % the texts'
    """
    if not np.isfinite(of.repeat_sd):
        return "too few texts were scored more than once to tell the judge's own spread"
    shared = f"the mean of {of.repeats} is {100 * of.reliability:.0f} % the texts"
    return (
        f"the scores of one text asked about again have an SD of {of.repeat_sd:.2g}, the texts one of "
        f"{of.text_sd:.2g}; {shared}"
    )


def _askable(responses: Sequence[str]) -> list[str]:
    return [EMPTY if not r.strip() else OK if r.isascii() or _is_text(r) else NOT_TEXT for r in responses]


def _is_text(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _over_repeats(
    values: NDArray[np.float64], failed: list[list[str]], statuses: list[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of values (n, repeats, parts) each part over the repeats that could be read, and the mean of all parts.

    That is null where a part is missing; then the commonest of what `failed` becomes the text's status.
    """
    read = np.isfinite(values)
    n, total = read.sum(axis=1), np.where(read, values, 0.0).sum(axis=1)
    parts = np.asarray(np.where(n > 0, total / np.maximum(n, 1), np.nan))
    rewards = parts.mean(axis=1)
    for i, status in enumerate(statuses):
        if status == OK and not np.isfinite(rewards[i]):
            statuses[i] = Counter(failed[i]).most_common(1)[0][0] if failed[i] else FAILED
    return parts, rewards


def _again(chat: Any, k: int) -> Chat:
    """The chat for repeat `k`: a seed that is sent differs with it."""
    seed = getattr(chat, "seed", None)
    return chat if seed is None or k == 0 else replace(chat, seed=seed + k)


def _cache(folder: str | Path | None, template: str) -> Cache | None:
    """The replies to one question; each has a folder of its own."""
    return None if folder is None else Cache(Path(folder).expanduser() / template)


def _fingerprint(chat: Any, adapter: str) -> dict[str, str]:
    params = str(getattr(chat, "params", "")) or fingerprint_of(chat)
    where = redact(str(getattr(chat, "url", "")))
    return {
        "model": str(getattr(chat, "model", "chat")), "revision": f"{where} {params}".strip(), "adapter": adapter,
        "dtype": "unknown",
    }  # fmt: skip


# --- by name ----------------------------------------------------------------------------------------------------------

CHATS = ("openai", "batch")
_OWN = ("rubric", "scale", "criteria", "repeats", "price_in", "price_out", "budget")


def is_asked(rest: str) -> bool:
    """Whether what follows "judge:" or "pairwise:" names a chat behind a server.

    Examples
    --------
    >>> is_asked("openai:gpt-4o-mini"), is_asked("my-org/judge")
    (True, False)
    """
    return rest.partition(":")[0] in CHATS and ":" in rest


def judge_name(spec: str) -> str:
    """The name of a judge's column: its form and model, and its rubric's file where it has one.

    Examples
    --------
    >>> judge_name("judge:openai:gpt-4o-mini,rubric=prompts/clear.txt,scale=1-5")
    'judge:gpt-4o-mini-clear'
    """
    form, _, rest = spec.partition(":")
    model, *more = rest.partition(":")[2].split(",")
    rubric = next((Path(part.partition("=")[2]).stem for part in more if part.startswith("rubric=")), "")
    return f"{form}:{model}" + (f"-{rubric}" if rubric else "")


def judge_of(spec: str) -> LLMJudge | PairwiseLLMJudge:
    """The judge that ``judge:openai:MODEL,...`` or ``pairwise:openai:MODEL,REFERENCES,...`` names.

    Raises
    ------
    InputError
        For an unknown option or a value that is none, a rubric that is not there or has no {response}, a scale of
        words without numbers, a missing file of references. Nothing is asked.
    """
    form, _, rest = spec.partition(":")
    kind, _, said = rest.partition(":")
    model, *more = said.split(",")
    if not model:
        raise InputError(f"{spec}: which model? Write {form}:{kind}:MODEL, as in {form}:{kind}:gpt-4o-mini")
    references = more.pop(0) if form == "pairwise" and more and "=" not in more[0] else None
    given: dict[str, str] = {}
    for part in filter(None, more):
        name, equals, value = part.partition("=")
        if not equals:
            raise InputError(f"{spec}: {part!r} is no option; write NAME=VALUE, as in scale=1-5")
        given[name] = value
    own = {name: given.pop(name) for name in _OWN if name in given}
    meter = _meter(spec, own)
    repeats = _number(spec, "repeats", own.pop("repeats", "1"), int)
    chat = _chat(kind, model, given, spec)
    cache = default_cache() / "judgements"
    name = judge_name(spec)
    text = rubric_file(own["rubric"]) if "rubric" in own else None
    if form == "pairwise":
        if references is None or not Path(references).expanduser().exists():
            raise InputError(f"{spec}: a file of reference responses is needed; write pairwise:{kind}:MODEL,REFERENCES")
        extra = [n for n in ("scale", "criteria") if n in own]
        if extra:
            raise InputError(f"{spec}: a judge of pairs has no {extra[0]}; it says A, B or tie")
        question = PairQuestion() if text is None else PairQuestion(text)
        return PairwiseLLMJudge(
            chat, Path(references).expanduser(), question, repeats=repeats, cache=cache, meter=meter, name=name
        )
    scale = Scale.of(own.get("scale", "1-10"))
    criteria = tuple(c.strip() for c in own.get("criteria", "").split("+") if c.strip())
    rubric = Rubric(scale=scale, criteria=criteria) if text is None else Rubric(text, scale, criteria)
    return LLMJudge(chat, rubric, repeats=repeats, cache=cache, meter=meter, name=name)


def _meter(spec: str, own: dict[str, str]) -> Meter:
    prices = [_number(spec, n, own.pop(n), float) if n in own else None for n in ("price_in", "price_out")]
    budget = _number(spec, "budget", own.pop("budget"), float) if "budget" in own else None
    if (prices[0] is None) != (prices[1] is None):
        raise InputError(f"{spec}: give both prices or none: price_in=, price_out=")
    return Meter(Prices(*prices) if prices[0] is not None else None, budget)  # type: ignore[arg-type]


def _chat(kind: str, model: str, given: dict[str, str], spec: str) -> Any:
    from ratekit.rewriting.batch import BatchChat
    from ratekit.rewriting.openai_chat import OpenAIChat

    made: Any = OpenAIChat if kind == "openai" else BatchChat
    taken = {f.name for f in fields(made)} & {
        "base_url", "top_logprobs", *(f.name for f in (*fields(Sampling), *fields(Limits)))
    }  # fmt: skip
    hints = get_type_hints(made)
    options: dict[str, Any] = {"max_tokens": 64} if "max_tokens" not in given else {}
    for name, value in given.items():
        if name not in taken:
            raise unknown(f"option of {spec.partition(',')[0]}", name, sorted({*taken, *_OWN}))
        kinds = str(hints[name])
        convert = float if "float" in kinds else int if "int" in kinds else str
        options[name] = None if value == "none" else _number(spec, name, value, convert)
    if "@" in options.get("base_url", "") or "?" in options.get("base_url", ""):
        raise InputError("a judge takes no password and no query in base_url=; set OPENAI_BASE_URL and OPENAI_API_KEY")
    if made is BatchChat:
        return BatchChat(model, default_cache() / "batches", **options)
    return OpenAIChat(model, **options)


def _number(spec: str, name: str, value: str, kind: Any) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise InputError(f"{spec.partition(',')[0]}: {name}={value!r} is not a number") from None
