"""A reward behind a server: a classifier that vLLM, text-embeddings-inference or the like answers for.

    reward = ServedReward("http://127.0.0.1:8000/classify", model="Skywork/Skywork-Reward-V2-Llama-3.1-8B")

    /classify   vLLM; {"model", "messages"} -> {"data": [{"probs": [reward]}]}
    /score      vLLM cross-encoders; {"model", "text_1", "text_2"} -> {"data": [{"score": reward}]}
    /predict    text-embeddings-inference; {"inputs": [[prompt, response]]} -> [[{"label", "score": reward}]]

The server is asked for the raw output (`use_activation: false`, `raw_scores: true`): a probability would squeeze the
effects of the best and the worst responses.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from ratekit.errors import InputError, WorkError, shorten
from ratekit.schema import Conversation, as_conversation, prompt_text
from ratekit.scoring.base import EMPTY, FAILED, NOT_FINITE, NOT_TEXT, OK, Scores

log = logging.getLogger("ratekit")


def _classify(model: str | None, prompt: Conversation, response: str) -> dict[str, Any]:
    turns = [*prompt, {"role": "assistant", "content": response}]
    return {"model": model, "messages": turns, "add_generation_prompt": False, "use_activation": False}


def _score(model: str | None, prompt: Conversation, response: str) -> dict[str, Any]:
    return {"model": model, "text_1": prompt_text(prompt), "text_2": response, "use_activation": False}


def _predict(model: str | None, prompt: Conversation, response: str) -> dict[str, Any]:
    return {"inputs": [[prompt_text(prompt), response]], "raw_scores": True, "truncate": False}


def _predicted(answer: Any) -> Any:
    first = answer[0]
    return (first[0] if isinstance(first, list) else first)["score"]


# endpoint -> (what is sent, where the reward stands in the answer)
ENDPOINTS: dict[str, tuple[Callable[..., dict[str, Any]], Callable[[Any], Any]]] = {
    "classify": (_classify, lambda answer: answer["data"][0]["probs"][0]),
    "score": (_score, lambda answer: answer["data"][0]["score"]),
    "predict": (_predict, _predicted),
}


class ServedReward:
    """The reward that a server gives, one request per text, `concurrency` of them at a time.

    url    of the endpoint; its last part is one of `ENDPOINTS`
    model  the name that the server has for it; by default the only one that it serves

    A key, where one is needed, comes from the environment (OPENAI_API_KEY). Requests that fail for a while are sent
    again (`max_retries` times); a text whose request fails all the same is null. WorkError where the server is not
    there, refuses the key or does not know the endpoint.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        concurrency: int = 16,
        timeout: float = 120.0,
        max_retries: int = 5,
    ) -> None:
        parts = urlsplit(url)
        base, _, self.endpoint = url.rstrip("/").rpartition("/")
        if parts.scheme not in ("http", "https") or self.endpoint not in ENDPOINTS:
            raise InputError(f"{url}: a served reward is http://HOST:PORT/ and one of {', '.join(ENDPOINTS)}")
        if parts.password or parts.username:
            raise InputError("a served reward takes no password in its address; set OPENAI_API_KEY")
        self.url, self.base, self.model = url, base, model
        self.concurrency, self.timeout, self.max_retries = concurrency, timeout, max_retries
        self.name = model or f"{parts.netloc}/{self.endpoint}"

    def __call__(self, prompts: Sequence[Any], responses: Sequence[str]) -> NDArray[np.float64]:
        """Rewards (n,) float64."""
        return self.scores(prompts, responses).rewards

    def scores(self, prompts: Sequence[Any], responses: Sequence[str]) -> Scores:
        """The rewards, and of each text whether it got one."""
        client = self._client()
        try:
            with ThreadPoolExecutor(self.concurrency) as pool:
                answers = list(pool.map(lambda pr: self._ask(client, *pr), zip(prompts, responses, strict=True)))
        finally:
            client.close()
        rewards = np.array([reward for reward, _ in answers], dtype=np.float64)
        return Scores(rewards, [status for _, status in answers], {}, np.zeros(len(rewards), dtype=np.int64))

    @property
    def fingerprint(self) -> dict[str, str]:
        """The address stands for the model: what the server runs is not known to us."""
        return {"model": self.name, "revision": self.url, "adapter": f"served-{self.endpoint}", "dtype": "unknown"}

    def _client(self) -> Any:
        import os

        import openai

        client = openai.OpenAI(
            api_key=os.environ.get("OPENAI_API_KEY") or "none",
            base_url=self.base,
            timeout=self.timeout,
            max_retries=self.max_retries,
        )
        if self.model is None and self.endpoint != "predict":
            try:
                served = client.get("/v1/models", cast_to=object)
                self.model = served["data"][0]["id"]  # type: ignore[index]
            except openai.APIConnectionError as e:
                raise WorkError(f"no answer from {self.base} ({shorten(e, 60)})") from None
            except (openai.OpenAIError, LookupError, TypeError):
                raise InputError(f"{self.base} does not say what it serves; name the model") from None
        return client

    def _ask(self, client: Any, prompt: Any, response: str) -> tuple[float, str]:
        import openai

        if not response.strip():
            return float("nan"), EMPTY
        body, read = ENDPOINTS[self.endpoint]
        try:
            response.encode("utf-8")
            answer = client.post(
                f"/{self.endpoint}", cast_to=object, body=body(self.model, as_conversation(prompt), response)
            )
            reward = float(read(answer))
        except UnicodeEncodeError:
            return float("nan"), NOT_TEXT
        except (openai.AuthenticationError, openai.PermissionDeniedError) as e:
            raise WorkError(f"{self.base} refused the key (status {e.status_code}); set OPENAI_API_KEY") from None
        except openai.NotFoundError:
            raise WorkError(f"{self.base} has no {self.endpoint} for the model {self.model!r}") from None
        except openai.APIConnectionError as e:
            raise WorkError(
                f"no answer from {self.base} after {self.max_retries + 1} tries ({shorten(e, 60)})"
            ) from None
        except (openai.OpenAIError, LookupError, TypeError, ValueError):
            return float("nan"), FAILED
        return (reward, OK) if np.isfinite(reward) else (float("nan"), NOT_FINITE)
