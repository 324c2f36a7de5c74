"""A reward behind a server: a scorer that vLLM, SGLang, text-embeddings-inference or OpenRLHF answers for.

    reward = ServedReward("http://127.0.0.1:8000/classify", model="Skywork/Skywork-Reward-V2-Llama-3.1-8B")

    /classify    vLLM; {"model", "messages"} -> {"data": [{"probs": [reward]}]}, SGLang -> [{"embedding": [reward]}]
    /pooling     vLLM; {"model", "messages"} -> {"data": [{"data": [reward]}]}
    /score       vLLM cross-encoders; {"model", "text_1", "text_2"} -> {"data": [{"score": reward}]}
    /predict     text-embeddings-inference; {"inputs": [[prompt, response]]} -> [[{"label", "score": reward}]]
    /get_reward  OpenRLHF; {"query": [text], "prompts": [prompt]} -> {"rewards": [reward]}

Each also under /v1. The server is asked for the raw output (`use_activation: false`, `raw_scores: true`): a probability
would squeeze the effects of the best and the worst responses. One number is read of each text: the only output, or the
one whose label says positive; anything else is refused.
"""

from __future__ import annotations

import contextlib
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from ratekit.checkpoints import check_folder, check_template
from ratekit.errors import InputError, WorkError, shorten
from ratekit.redaction import redact
from ratekit.rewriting.options import key_from_environment
from ratekit.schema import Conversation, as_conversation, prompt_text
from ratekit.scoring.adapters import NEGATIVE_LABELS, POSITIVE_LABELS
from ratekit.scoring.base import EMPTY, FAILED, NOT_ATTEMPTED, NOT_FINITE, NOT_TEXT, OK, CalledByScores, Scores

log = logging.getLogger("ratekit")

Body = dict[str, Any]


def _chat(model: str | None, prompt: Conversation, response: str, text: str | None) -> Body:
    asked = {"model": model, "use_activation": False}
    if text is not None:  # vLLM and SGLang name it differently, and each passes over the other's name
        return {**asked, "input": text, "text": text, "add_special_tokens": False}
    turns = [*prompt, {"role": "assistant", "content": response}]
    return {**asked, "messages": turns, "add_generation_prompt": False}


def _pair(model: str | None, prompt: Conversation, response: str, text: str | None) -> Body:
    return {"model": model, "text_1": prompt_text(prompt), "text_2": response, "use_activation": False}


def _predict(model: str | None, prompt: Conversation, response: str, text: str | None) -> Body:
    return {"inputs": [[prompt_text(prompt), response]], "raw_scores": True, "truncate": False}


def _query(model: str | None, prompt: Conversation, response: str, text: str | None) -> Body:
    asked = prompt_text(prompt)
    return {"query": [f"{asked}\n{response}" if text is None else text], "prompts": [asked], "labels": [""]}


class _Unread(ValueError):
    """An answer that holds no number for the text."""


class _Outputs(ValueError):
    """An answer with several outputs, none of which is named as the good one: the model is no reward."""


def _only(values: Any, what: str) -> Any:
    if not isinstance(values, list) or len(values) != 1:
        n = f"{len(values)} of them" if isinstance(values, list) else "none"
        raise _Unread(f"one {what} was expected, and there is {n}")
    return values[0]


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Unread(f"a number was expected, not {shorten(value, 40)!r}")
    return float(value)


def _outputs(values: Any, label: Any = None) -> float:
    """The number of one text: the only output, or that of the class named positive; `label` names the largest."""
    if not isinstance(values, list) or not values:
        raise _Unread("there is no list of outputs")
    numbers = [_number(value) for value in values]
    if len(numbers) == 1:
        return numbers[0]
    named = str(label).lower()
    largest = numbers.index(max(numbers))
    if named in POSITIVE_LABELS and numbers.count(max(numbers)) == 1:
        return numbers[largest]
    if named in NEGATIVE_LABELS and len(numbers) == 2 and numbers[0] != numbers[1]:
        return numbers[1 - largest]
    raise _Outputs(f"it has {len(numbers)} outputs, and none is named positive")


def _read_classify(answer: Any) -> float:
    if isinstance(answer, dict) and "data" in answer:
        item = _only(answer["data"], "result")
        n, told = len(item["probs"]), item.get("num_classes")
        if told not in (None, n):
            raise _Unread(f"{n} outputs of {shorten(told, 20)} classes")
        return _outputs(item["probs"], item.get("label"))
    item = answer if isinstance(answer, dict) else _only(answer, "result")
    return _outputs(item["embedding"])


def _read_pooling(answer: Any) -> float:
    values = _only(answer["data"], "result")["data"]
    return _outputs(values if isinstance(values, list) else [values])


def _read_predict(answer: Any) -> float:
    classes = _only(answer, "result") if isinstance(answer, list) and isinstance(answer[0], list) else answer
    if not isinstance(classes, list) or not classes:
        raise _Unread("there is no list of classes")
    if len(classes) == 1:
        return _number(classes[0]["score"])
    good = [c for c in classes if str(c.get("label")).lower() in POSITIVE_LABELS]
    if len(good) != 1:
        names = ", ".join(str(c.get("label")) for c in classes)
        raise _Outputs(f"it has {len(classes)} outputs ({shorten(names, 60)}), and not one is named positive")
    return _number(good[0]["score"])


def _label_alone(answer: Any) -> str:
    """The label of an answer of one output; "" where there are more, or it has none."""
    item = answer.get("data") if isinstance(answer, dict) else answer
    while isinstance(item, list) and len(item) == 1:
        item = item[0]
    if not isinstance(item, dict) or len(item.get("probs") or "1") > 1:
        return ""
    return str(item.get("label") or "")


# endpoint -> (what is sent, how the reward is read from the answer)
ENDPOINTS: dict[str, tuple[Callable[..., Body], Callable[[Any], float]]] = {
    "classify": (_chat, _read_classify),
    "pooling": (_chat, _read_pooling),
    "score": (_pair, lambda answer: _number(_only(answer["data"], "result")["score"])),
    "predict": (_predict, _read_predict),
    "get_reward": (_query, lambda answer: _number(_only(answer["rewards"], "reward"))),
}


class ServedReward(CalledByScores):
    """The reward that a server gives, one request per text, `concurrency` of them at a time.

    A key, where one is needed, comes from the environment (OPENAI_API_KEY). Requests that fail for a while are sent
    again (`max_retries` times); a text whose request fails all the same is null, with what the server said. Where the
    work is stopped (Ctrl-C, SIGTERM, a refused key), no request is sent any more, those under way are waited for
    `grace` seconds at most, and what was answered in the last call is in `answered`; a second Ctrl-C ends at once.

    Parameters
    ----------
    url
        Of the endpoint; its last part is one of `ENDPOINTS`.
    model
        The name that the server has for it; by default the only one that it serves.
    tokenizer
        A folder or hub id with the model's chat template, for servers that take text instead of messages (SGLang,
        OpenRLHF); by default messages are sent, and the server uses the template.

    Raises
    ------
    InputError
        Where the address is none, the server has several models or another one, or the model has several outputs.
    WorkError
        Where the server is not there, refuses the key or does not know the endpoint.

    Examples
    --------
    >>> ServedReward("http://127.0.0.1:8000/v1/score", model="my-reranker").name
    'my-reranker'
    """

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        tokenizer: str | None = None,
        concurrency: int = 16,
        timeout: float = 120.0,
        max_retries: int = 5,
        grace: float = 60.0,
    ) -> None:
        parts = urlsplit(url)
        self.base, _, self.endpoint = url.rstrip("/").rpartition("/")
        if parts.password or parts.username or parts.query or parts.fragment:
            raise InputError("a served reward takes no password and no query in its address; set OPENAI_API_KEY")
        if parts.scheme not in ("http", "https") or self.endpoint not in ENDPOINTS:
            raise InputError(f"{redact(url)}: a served reward is http://HOST:PORT/ and one of {', '.join(ENDPOINTS)}")
        self.url, self.root = url, self.base.removesuffix("/v1")
        self.wanted, self.tokenizer = model, tokenizer
        self.concurrency, self.timeout, self.max_retries, self.grace = concurrency, timeout, max_retries, grace
        self.name = model or f"{parts.netloc}/{self.endpoint}"
        self._low, self._high, self._warned = np.inf, -np.inf, False
        self.answered: Scores | None = None  # what the last call had got, where it was stopped
        self._labels: dict[str, str] = {}  # of the first answer of one output

    def scores(self, prompts: Sequence[Any], responses: Sequence[str]) -> Scores:
        """The rewards, and of each text whether it got one."""
        model = self.model
        if self.tokenizer is not None:
            _ = self._template  # a fault of it is the call's, not one text's
        client, self.answered = self._client(self.base), None
        pairs = list(zip(prompts, responses, strict=True))
        answers = [(float("nan"), NOT_ATTEMPTED, "")] * len(pairs)

        def ask(i: int) -> None:
            answers[i] = self._ask(client, model, *pairs[i])

        try:
            _each(len(pairs), ask, self.concurrency, self.grace)
        except BaseException:
            self.answered = self._joined(list(answers))
            raise
        finally:
            client.close()
        return self._joined(answers)

    def _joined(self, answers: Sequence[tuple[float, str, str]]) -> Scores:
        rewards = np.array([reward for reward, _, _ in answers], dtype=np.float64)
        reasons: dict[str, str] = {}
        for _, status, why in answers:
            if why:
                reasons.setdefault(status, why)
        self._look(rewards)
        tokens = np.zeros(len(rewards), dtype=np.int64)
        return Scores(rewards, [status for _, status, _ in answers], {}, tokens, reasons)

    @cached_property
    def served(self) -> dict[str, str]:
        """What the server says it serves: `model`, and more that tells it from another one; empty where it is mute."""
        import openai

        client = self._client(self.root)
        try:
            for path, read in _ABOUT.items():
                try:
                    found = read(client.get(path, cast_to=object))
                except openai.APIConnectionError as e:
                    raise WorkError(f"no answer from {redact(self.base)} ({shorten(redact(e), 60)})") from None
                except (openai.OpenAIError, LookupError, TypeError, AttributeError):
                    continue
                return self._chosen(found)
        finally:
            client.close()
        return {}

    def _chosen(self, found: list[dict[str, str]]) -> dict[str, str]:
        names = ", ".join(one["model"] for one in found)
        mine = [one for one in found if self.wanted in (None, one["model"])]
        if not mine:
            raise InputError(f"{redact(self.base)} does not serve {self.wanted!r}; it serves {shorten(names, 120)}")
        if len(mine) > 1:
            raise InputError(f"{redact(self.base)} serves {shorten(names, 120)}; name one (served:URL,MODEL)")
        return mine[0]

    @property
    def model(self) -> str | None:
        """The name of the model in requests; None where the server takes none."""
        found = self.served.get("model") or self.wanted
        if found is None and "model" in ENDPOINTS[self.endpoint][0](None, [], "", None):
            raise InputError(f"{redact(self.base)} does not say what it serves; name the model (served:URL,MODEL)")
        return found

    @property
    def fingerprint(self) -> dict[str, str]:
        """The address and what is served there; empty where the server does not say, so that nothing is kept."""
        served = self.served or ({"model": self.wanted} if self.wanted else {})
        if not served:
            return {}
        more = " ".join(f"{name}={value}" for name, value in sorted(served.items()) if name != "model")
        reads = f"served-{self.endpoint}" + (f"-{self.tokenizer}" if self.tokenizer else "")
        return {
            "model": served["model"],
            "revision": f"{self.url} {more}".strip(),
            "adapter": reads,
            "dtype": "unknown",
        }

    def _client(self, base: str) -> Any:
        import openai

        key = key_from_environment() or "none"
        return openai.OpenAI(api_key=key, base_url=base, timeout=self.timeout, max_retries=self.max_retries)

    @cached_property
    def _template(self) -> Any:
        from transformers import AutoTokenizer

        check_folder(str(self.tokenizer))
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.tokenizer)
        except Exception as e:  # transformers raises many kinds
            raise InputError(f"the tokenizer {self.tokenizer!r} cannot be loaded ({shorten(e, 80)})") from None
        check_template(tokenizer, self.tokenizer)
        return tokenizer

    def _ask(self, client: Any, model: str | None, prompt: Any, response: str) -> tuple[float, str, str]:
        """The reward, its status, and what the server said where there is none."""
        import openai

        nothing = float("nan")
        if not response.strip():
            return nothing, EMPTY, ""
        body, read = ENDPOINTS[self.endpoint]
        turns, text, answer = as_conversation(prompt), None, None
        try:
            response.encode("utf-8")
            if self.tokenizer is not None:
                spoken = [*turns, {"role": "assistant", "content": response}]
                text = self._template.apply_chat_template(spoken, tokenize=False)
            answer = client.post(f"/{self.endpoint}", cast_to=object, body=body(model, turns, response, text))
            reward = read(answer)
            self._check_label(_label_alone(answer))
        except UnicodeEncodeError:
            return nothing, NOT_TEXT, ""
        except (openai.AuthenticationError, openai.PermissionDeniedError) as e:
            raise WorkError(
                f"{redact(self.base)} refused the key (status {e.status_code}); set OPENAI_API_KEY"
            ) from None
        except openai.NotFoundError as e:
            raise WorkError(
                f"{redact(self.base)} has no {self.endpoint} for the model {model!r} ({_words(e, self.base)})"
            ) from None
        except openai.APIConnectionError as e:
            raise WorkError(
                f"no answer from {redact(self.base)} after {self.max_retries + 1} tries ({shorten(redact(e), 60)})"
            ) from None
        except openai.OpenAIError as e:
            return nothing, FAILED, f"the server said: {_words(e, self.base)}"
        except _Outputs as e:
            raise InputError(
                f"{redact(self.url)} is no reward model: {e}; it answered {shorten(redact(answer, self.base), 120)}"
            ) from None
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as e:
            why = str(e) if isinstance(e, _Unread) else "the answer has another shape"
            return nothing, FAILED, f"{why}; it answered {shorten(redact(answer, self.base), 120)}"
        return (reward, OK, "") if np.isfinite(reward) else (nothing, NOT_FINITE, "")

    def _check_label(self, label: str) -> None:
        """Raise where the only output is the bad class's, or another one's than before: the likeliest alone comes."""
        if label.lower() in NEGATIVE_LABELS:
            raise _Outputs(f"its one output is that of {label}")
        first = self._labels.setdefault("first", label) if label else label
        if first != label:
            raise _Outputs(f"it gives one output, that of {first} for one text and of {label} for another")

    def _look(self, rewards: NDArray[np.float64]) -> None:
        """Say it once where raw scores look like probabilities: some servers do not know that raw ones can be asked."""
        finite = rewards[np.isfinite(rewards)]
        self._low, self._high = (f(finite, initial=b) for f, b in ((np.min, self._low), (np.max, self._high)))
        if len(finite) and self._low >= 0 and self._high <= 1 and not self._warned:
            self._warned = True
            log.warning(
                "%s: every score lies between 0 and 1 (%.3g to %.3g), as probabilities do, although raw ones were "
                "asked for; they squeeze the effects of the best and the worst responses",
                self.name, self._low, self._high,
            )  # fmt: skip


def _each(n: int, ask: Callable[[int], None], concurrency: int, grace: float) -> None:
    """`ask` of 0 .. n - 1 in threads; what it raises ends it, as Ctrl-C does, once what is under way has ended.

    That is waited for `grace` seconds at most, and not after a second Ctrl-C: a daemon thread holds no process up.
    """
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    ended: queue.SimpleQueue[None] = queue.SimpleQueue()
    stopped, errors = threading.Event(), list[BaseException]()
    for i in range(n):
        todo.put(i)

    def work() -> None:
        try:
            while not stopped.is_set():
                ask(todo.get_nowait())
        except queue.Empty:
            pass
        except BaseException as e:
            errors.append(e)
            stopped.set()
        finally:
            ended.put(None)

    left = min(concurrency, n)
    for _ in range(left):
        threading.Thread(target=work, name="ratekit-served", daemon=True).start()
    until, interrupt = math.inf, None
    try:
        while left and time.monotonic() < until:
            try:
                with contextlib.suppress(queue.Empty):
                    ended.get(timeout=0.2)
                    left -= 1
            except KeyboardInterrupt as e:
                if interrupt is not None:
                    raise
                interrupt = e
                stopped.set()
                log.warning(
                    "stopping: %d requests are under way at most and are waited for, %g s at most; Ctrl-C again ends "
                    "at once", left, grace,
                )  # fmt: skip
            if stopped.is_set():
                until = min(until, time.monotonic() + grace)
    finally:
        stopped.set()
    for error in (interrupt, *errors):
        if error is not None:
            raise error


# Where servers say what they serve -> how that is read: one mapping per model.
_ABOUT: dict[str, Callable[[Any], list[dict[str, str]]]] = {
    "/v1/models": lambda said: [
        {"model": str(one["id"]), **({"root": str(one["root"])} if one.get("root") else {})} for one in said["data"]
    ],
    "/info": lambda said: [{"model": str(said["model_id"]), "sha": str(said.get("model_sha"))}],
    "/get_model_info": lambda said: [{"model": str(said["model_path"])}],
}


def _words(error: Any, address: str) -> str:
    """What a server said when it refused, in its own words."""
    said = getattr(error, "body", None)
    for _ in range(3):
        if isinstance(said, dict):
            said = next((said[key] for key in ("error", "message", "detail", "msg") if said.get(key)), said)
        elif isinstance(said, list) and said:
            said = said[0]
    return shorten(redact(said if said else error, address), 160)
