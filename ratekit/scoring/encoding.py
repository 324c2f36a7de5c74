"""(prompt, response) -> token ids, as the adapter says; what is too long is cut where it hurts least.

By default the prompt is cut first and from its start; then the response, from its start: the response is what is
judged, and a rewrite that makes it longer would otherwise lose exactly what it added. `truncation="response"` cuts the
response's end first, as a tokenizer's `truncation=True` does. What frames them (the template's own tokens, the
beginning-of-sequence token, the end) is never cut.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any

from ratekit.checkpoints import check_template
from ratekit.errors import InputError, require_known, shorten
from ratekit.schema import Conversation, as_conversation, prompt_text
from ratekit.scoring.adapters import Adapter
from ratekit.scoring.base import EMPTY, FAILED, NOT_TEXT, OK, TEMPLATE_REFUSES, TOO_LONG, TRUNCATED
from ratekit.scoring.readout import Encoded

log = logging.getLogger("ratekit")


class TemplateError(ValueError):
    """The chat template refuses a conversation."""


TRUNCATIONS = ("prompt", "response")


class Encoder:
    """Texts for one model. `max_length` is in tokens, the frame included; `truncation` is what is cut first."""

    def __init__(
        self, tokenizer: Any, adapter: Adapter, name: str, max_length: int, truncation: str = "prompt"
    ) -> None:
        require_known("truncation", truncation, TRUNCATIONS)
        self.tokenizer, self.adapter, self.name, self.max_length = tokenizer, adapter, name, max_length
        self.truncation = truncation
        self.templated = adapter.sees in ("chat", "question")
        if self.templated and not tokenizer.chat_template:
            raise InputError(f"{name!r} has no chat template; the adapter {adapter.name!r} needs one")
        if self.templated:
            check_template(tokenizer, name)
        own = tokenizer("a")["input_ids"]
        bos = tokenizer.bos_token_id
        self._bos = bos if bos is not None and own and own[0] == bos else None

    def __call__(self, prompts: Sequence[Any], responses: Sequence[str]) -> tuple[list[Encoded | None], list[str]]:
        """Per text: its tokens, or None where there are none to score, and its status."""
        n = len(prompts)
        encoded: list[Encoded | None] = [None] * n
        statuses = [OK] * n
        refusal = ""
        conversations: dict[int, Conversation] = {}
        for i, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            conversation = as_conversation(prompt)
            if not response.strip():
                statuses[i] = EMPTY
            elif not _is_text(response, *(t["content"] for t in conversation)):
                statuses[i] = NOT_TEXT
            else:
                conversations[i] = conversation
        frames: dict[int, tuple[str, str | None]] = {}
        for i, conversation in conversations.items():
            try:
                frames[i] = self._texts(conversation, responses[i])
            except TemplateError as e:
                statuses[i], refusal = TEMPLATE_REFUSES, refusal or str(e)
        try:
            made: list[Encoded | None] = [*self._tokenized(list(frames.values()))]
        except Exception:  # one text that a tokenizer fails on is no reason to lose the others
            made = [self._tokenized_alone(frame) for frame in frames.values()]
        for i, ids in zip(frames, made, strict=True):
            if ids is None:
                statuses[i], refusal = FAILED, refusal or "its tokenizer fails on a text"
            elif len(ids.ids) > self.max_length:
                cut = self._cut(conversations[i], responses[i])
                statuses[i] = TRUNCATED if cut else TOO_LONG
                encoded[i] = cut
            else:
                encoded[i] = ids
        if refusal:
            log.warning("%s: %s", self.name, refusal)
        if self.adapter.reads == "log_likelihood":
            for i, text in enumerate(encoded):
                encoded[i] = text and text._replace(start=self._start(conversations[i], text))
        return encoded, statuses

    def render(self, prompt: Any, response: str) -> str:
        """What the model sees, as text: the conversation in its chat template, or the parts its tokenizer joins."""
        first, second = self._texts(as_conversation(prompt), response)
        return first if second is None else f"{first}{self.tokenizer.sep_token or ' | '}{second}"

    def faults(self) -> list[str]:
        """What the chat template does to a conversation that would change the scores unnoticed."""
        if self.adapter.sees != "chat":
            return []
        prompt, found = as_conversation("What?"), []
        answer = "First line.\n\n    Second line: {x} <b>&amp;</b>"
        try:
            if answer not in self.render(prompt, answer):
                found.append("its chat template changes the response's text")
            for mark, what in (("\n", "line break"), (" ", "space")):
                if self.render(prompt, answer + mark) == self.render(prompt, answer):
                    found.append(f"its chat template drops a {what} at the response's end")
            if self.render(prompt, answer) == self.render(as_conversation("Which?"), answer):
                found.append("its chat template drops the prompt")
        except TemplateError as e:
            return [str(e)]
        bos = self.tokenizer.bos_token_id
        ids = self._tokenized([self._texts(prompt, answer)])[0].ids
        if bos is not None and list(ids[:2]) == [bos, bos]:
            found.append(f"its texts begin with {self.tokenizer.bos_token} twice")
        return found

    def _texts(self, prompt: Conversation, response: str) -> tuple[str, str | None]:
        sees = self.adapter.sees
        if sees == "response":
            return response, None
        if sees == "pair":
            return prompt_text(prompt), response
        if sees == "question":
            fields = {"{prompt}": prompt_text(prompt), "{response}": response}
            question = _filled(self.adapter.question, fields)
            return self._template([{"role": "user", "content": question}], answer=True), None
        return self._template([*prompt, {"role": "assistant", "content": response}]), None

    def _template(self, turns: Conversation, answer: bool = False) -> str:
        try:
            return str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=answer))
        except Exception as e:  # jinja and templates raise many kinds; all mean that this conversation is refused
            roles = ", ".join(t["role"] for t in turns)
            raise TemplateError(f"the chat template refuses a conversation of {roles} ({shorten(e, 80)})") from None

    def _tokenized(self, texts: list[tuple[str, str | None]]) -> list[Encoded]:
        """In one batch. A template writes its special tokens itself; the first one is there once, not twice."""
        if not texts:
            return []
        firsts, seconds = [first for first, _ in texts], [second for _, second in texts]
        if self.templated:
            rows = self.tokenizer(firsts, add_special_tokens=False, verbose=False)["input_ids"]
            bos = [] if self._bos is None else [self._bos]
            return [Encoded(tuple(r if r[:1] == bos else bos + r)) for r in rows]
        pairs = None if self.adapter.sees == "response" else seconds
        made = self.tokenizer(firsts, pairs, verbose=False)
        types = made.get("token_type_ids") or [()] * len(texts)
        return [Encoded(tuple(ids), tuple(t)) for ids, t in zip(made["input_ids"], types, strict=True)]

    def _tokenized_alone(self, text: tuple[str, str | None]) -> Encoded | None:
        try:
            return self._tokenized([text])[0]
        except Exception as e:
            log.info("%s: a text cannot be tokenised (%s)", self.name, shorten(e, 80))
            return None

    def _start(self, prompt: Conversation, text: Encoded) -> int:
        """Where the response begins: after what the prompt and the template's opening of an answer have in common."""
        opened = self._tokenized([(self._template(prompt, answer=True), None)])[0].ids
        n = next((i for i, (a, b) in enumerate(zip(opened, text.ids, strict=False)) if a != b), len(opened))
        return max(1, min(n, len(text.ids) - 1))

    # --- too long -------------------------------------------------------------------------------------------

    def _cut(self, prompt: Conversation, response: str) -> Encoded | None:
        """As much of the conversation as fits; None where even the frame does not."""
        turns = [dict(t) for t in prompt]
        while True:
            try:
                text = self._tokenized([self._texts(turns, response)])[0]
            except TemplateError:
                return None
            over = len(text.ids) - self.max_length
            if over <= 0:
                return text
            if self.truncation == "response" and (kept := self._to_end(response, over)) and kept != response:
                response = kept
            elif turns and turns[0]["content"] and self.adapter.sees != "response":
                shorter = self._from_start(turns[0]["content"], over)
                if shorter or len(turns) == 1:
                    turns[0]["content"] = shorter
                else:  # a question goes with its answer, so that the turns still alternate
                    turns = turns[2:] if len(turns) > 2 and turns[1]["role"] == "assistant" else turns[1:]
            else:
                response = self._from_start(response, over)
                if not response:
                    return None

    def _from_start(self, text: str, n: int) -> str:
        """`text` without its first n tokens."""
        ends = self._ends(text)
        return text[max(1, ends[n - 1]) :] if n < len(ends) else ""

    def _to_end(self, text: str, n: int) -> str:
        """`text` without its last n tokens, but with its first one."""
        ends = self._ends(text)
        return text[: ends[max(0, len(ends) - n - 1)]]

    def _ends(self, text: str) -> list[int]:
        """Where each token of a text ends; about, with a tokenizer that does not say it."""
        if self.tokenizer.is_fast:
            spans = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            return [end for _, end in spans["offset_mapping"]]
        n = max(1, len(self.tokenizer.tokenize(text)))
        return [(i + 1) * len(text) // n for i in range(n)]


def _filled(template: str, fields: dict[str, str]) -> str:
    return re.sub("|".join(map(re.escape, fields)), lambda m: fields[m[0]], template)


def _is_text(*texts: str) -> bool:
    try:
        for text in texts:
            text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
