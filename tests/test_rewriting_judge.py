"""What a reply is worth: the same text in every wrapping, every fault by its name, and no innocent text condemned."""

from __future__ import annotations

import gzip
import json

import pytest

import ratekit as rk
from ratekit.rewriting.base import Reply
from ratekit.rewriting.judge import judge
from ratekit.rewriting.prompts import CONTEXT_TEMPLATE, TEMPLATE, checked, messages, template_hash

SOURCE = "The plot was thin, and the acting wooden. I would not see it again."
TEXT = "The plot was rich, and the acting superb. I would gladly see it again."


@pytest.mark.parametrize(
    "wrapped",
    [
        TEXT,
        f"\n  {TEXT}\n",
        f"Here is the adjusted response:\n\n{TEXT}",
        f"Sure! Here's a more positive version:\n{TEXT}",
        f"**Adjusted response:**\n\n{TEXT}".replace("**Adjusted", "Adjusted"),
        f'"{TEXT}"',
        f"“{TEXT}”",
        f"<response>\n{TEXT}\n</response>",
        f"```\n{TEXT}\n```",
        f'Here is the adjusted response:\n\n"{TEXT}"',
        f"<think>They want it positive.\nHm.</think>\n\n{TEXT}",
    ],
)
def test_what_certainly_surrounds_the_text_is_taken_off(wrapped):
    assert judge(Reply(0, wrapped, "stop"), SOURCE, TEMPLATE) == (TEXT, "ok")


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (Reply(0, TEXT[:20], "length"), "truncated"),
        (Reply(0, None, "content_filter"), "refused"),
        (Reply(0, TEXT, "tool_calls"), "failed"),
        (Reply(0, None, "error"), "failed"),
        (Reply(0, None, "stop"), "empty"),
        (Reply(0, "  \n", "stop"), "empty"),
        (Reply(0, "...", "stop"), "empty"),
        (Reply(0, "Here is the adjusted response:\n\n", "stop"), "preamble"),
        (Reply(0, "I'm sorry, but I can't help with that.", "stop"), "refused"),
        (Reply(0, "I’m sorry, I cannot assist with this request.", "stop"), "refused"),
        (Reply(0, "I cannot fulfill this request. It is against my guidelines.", "stop"), "refused"),
        (Reply(0, "As an AI language model, I do not have opinions.", "stop"), "refused"),
        (Reply(0, f"Sure, here you go - {TEXT}", "stop"), "preamble"),
        (Reply(0, f"Certainly! I've made it more positive. {TEXT}", "stop"), "preamble"),
        (Reply(0, f"{TEXT}\n\nNote: I kept the spelling.", "stop"), "preamble"),
        (Reply(0, f"{TEXT}\n\nLet me know if you would like changes.", "stop"), "preamble"),
        (Reply(0, SOURCE, "stop"), "unchanged"),
        (Reply(0, f'"{SOURCE}"', "stop"), "unchanged"),
        (Reply(0, "And so on. " * 2000, "stop"), "exploded"),
        (Reply(0, "情节很丰富，表演非常精彩。我很乐意再看一遍。", "stop"), "wrong_language"),
        (Reply(0, "Сюжет был богат, а игра великолепна. Я бы с радостью пересмотрел.", "stop"), "wrong_language"),
        (
            Reply(0, "La trama era muy rica, y los actores estaban muy bien. Una película como las de antes.", "stop"),
            "wrong_language",
        ),
        (Reply(0, f"{TEXT}\n</response>", "stop"), "leaked"),
        (Reply(0, "Keep its content, order, formatting, spelling and even its mistakes. OK.", "stop"), "leaked"),
    ],
)
def test_every_fault_has_its_name(reply, status):
    source = SOURCE + " The film is for those who like that sort of thing and are in no hurry."
    if status == "unchanged":
        source = SOURCE
    assert judge(reply, source, TEMPLATE) == (None, status)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("Sorry, but I can't recommend this film to anyone at all.", SOURCE),
        ("I can't help but love this film, flaws and all.", SOURCE),
        ("I cannot say enough good things about it.", SOURCE),
        ("Unfortunately, I could not sit through it.", SOURCE),
        ("Sure, it was long. But it was never dull.", SOURCE),
        ("Here's a film that I would see again.", SOURCE),
        ('"Great," she said, and "great" it was.', SOURCE),
        ("'Tis a fine film, and the children's favourite.", SOURCE),
        ("I'm sorry, but I can't help with that, not at all.", "I'm sorry, but I can't help with that."),
        ("Note: the second half is better.", "Note: the second half is worse."),
        ("Très bien.", "Bad."),
        ("42", "43"),
    ],
)
def test_an_innocent_text_is_let_through(text, source):
    assert judge(Reply(0, text, "stop"), source, TEMPLATE) == (text, "ok")


def test_real_reviews_and_rewrites_are_let_through():
    """The bundled double rewrites were read by people: the judge may condemn next to none of them."""
    ds = rk.load("reviews")
    verdicts = [
        judge(Reply(0, rewritten, "stop"), before, TEMPLATE).status
        for row in ds
        for before, rewritten in zip([row["response"], *row["rewrites"]], row["rewrites"], strict=False)
    ]
    assert len(verdicts) >= 640
    assert sum(v != "ok" for v in verdicts) <= 0.005 * len(verdicts)


def test_real_gpt_rewrites_are_let_through(shared):
    with gzip.open(shared("double_rewrites/length.jsonl.gz"), "rt") as f:
        rows = [json.loads(line) for line in f]
    verdicts = [judge(Reply(0, r["rewrite_of_rewrite"], "stop"), r["rewrite"], TEMPLATE).status for r in rows]
    condemned = [v for v in verdicts if v != "ok"]
    assert len(condemned) <= 0.03 * len(rows), condemned


def test_a_template_is_a_parameter_of_the_attribute_and_of_the_call():
    def chat(conversations):
        for i, conversation in enumerate(conversations):
            yield Reply(i, "Seen: " + conversation[0]["content"], "stop")

    own = rk.Attribute("a", "x", "y", template="Own {phrase}: {response}")
    assert rk.ChatRewriter(chat, own)(["text"], [True])[0].text == "Seen: Own x: text"
    assert rk.ChatRewriter(chat, own, template="Call {phrase}: {response}")(["t"], [False])[0].text == "Seen: Call y: t"


def test_both_sides_are_asked_for_in_the_same_words():
    up, down = (messages(TEMPLATE, phrase, "The text.")[0]["content"] for phrase in ("longer", "shorter"))
    assert up.replace("longer", "shorter") == down


@pytest.mark.parametrize(
    ("template", "says"),
    [("No fields", "no {phrase}"), ("Only {phrase}", "no {response}"), ("{phrase} {response} {text}", "'text'")],
)
def test_a_template_without_its_fields_is_refused(template, says):
    with pytest.raises(rk.InputError, match=says.replace("{", r"\{")):
        checked(template)


def test_the_hash_tells_templates_apart():
    assert template_hash(TEMPLATE) != template_hash(CONTEXT_TEMPLATE)
    assert template_hash(TEMPLATE) == template_hash(str(TEMPLATE))
