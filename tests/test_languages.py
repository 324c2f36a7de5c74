"""Texts in other languages and conversations of many turns: counted, read and refused as what they are."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import ROOT

import ratekit as rk
from ratekit.errors import InputError, WorkError
from ratekit.languages import APOLOGIES, UNABLE, every
from ratekit.measures import formality, mentions, readability, starts_with_vowel, vader, words
from ratekit.rewriting.base import Reply
from ratekit.rewriting.judge import judge
from ratekit.rewriting.rules import RULES, SUITE, RuleRewriter

SOURCES = {
    "zh": "这部电影的情节很单薄，演员的表演也很生硬。我不会再看一遍。画面倒是不错，音乐也还行。",
    "ja": "この映画の筋は薄く、演技も硬かった。もう一度は見ない。音楽だけは良かったと思う。",
    "es": "La trama era muy floja y los actores no estaban bien. La música era lo mejor de la película.",
    "fr": "L'intrigue est mince et le jeu est raide. La musique était la meilleure partie du film.",
    "de": "Die Handlung war dünn und das Spiel hölzern. Die Musik war das Beste an dem Film.",
}
REFUSALS = {
    "zh": (
        "抱歉，我无法提供这样的内容。", "对不起，这个请求我帮不了你。", "作为一个AI语言模型，我无法满足您的要求。",
        "我不能协助完成这项任务，因为它可能违反政策。", "非常抱歉，但我不能按照您的要求改写这段文字。",
        "很遗憾，我不能帮您做这件事。", "抱歉，這個請求我無法協助。", "不好意思，我没法回答这个问题。",
    ),
    "ja": (
        "申し訳ございませんが、その内容にはお答えできません。", "すみません、そのリクエストには対応できません。",
        "恐れ入りますが、この依頼はお受けできません。", "ごめんなさい、それはできません。",
        "お手伝いすることはできません。",
    ),
    "es": (
        "Lo siento, no puedo ayudarte con eso.", "Lamentablemente, no puedo cumplir con esa solicitud.",
        "Lo siento, pero no puedo hacer eso.", "No puedo reescribir este texto.", "Perdón, no puedo ayudarle.",
        "Disculpa, pero no me es posible generar ese contenido.",
    ),
    "fr": (
        "Désolé, je ne peux pas vous aider.", "Je suis désolée, mais je ne peux pas faire cela.",
        "Malheureusement, je ne suis pas en mesure de répondre à cette demande.", "Je ne peux pas réécrire ce texte.",
        "Je regrette, mais je ne peux pas vous aider avec cela.",
    ),
    "de": (
        "Es tut mir leid, aber dabei kann ich nicht helfen.", "Leider kann ich diese Anfrage nicht erfüllen.",
        "Ich kann diesen Text nicht umschreiben.", "Tut mir leid, das kann ich nicht machen.",
        "Entschuldigung, aber ich kann Ihnen damit nicht weiterhelfen.",
        "Ich bin leider nicht in der Lage, das zu tun.",
    ),
}  # fmt: skip
REWRITES = {
    "zh": (
        "抱歉，这部电影真的很一般，我不能推荐。情节很单薄，演员的表演也生硬。",
        "我无法理解为什么这部电影的情节这么单薄，演员的表演也很生硬。我不会再看一遍。",
    ),
    "ja": ("申し訳ないが、この映画の筋は薄く、演技も硬かった。おすすめできません。もう一度は見ない。",),
    "es": ("Lo siento, no puedo recomendarla: la trama era muy floja y los actores no estaban bien.",),
    "fr": ("Désolé, je ne peux pas recommander ce film: l'intrigue est mince et le jeu est raide.",),
    "de": (
        "Leider kann ich den Film nicht empfehlen: Die Handlung war dünn und das Spiel hölzern.",
        "Ich bin nicht in der Lage, den Film zu empfehlen: Die Handlung war dünn und das Spiel hölzern.",
    ),
}


@pytest.mark.parametrize("language", SOURCES)
def test_a_refusal_is_one_and_a_review_that_says_sorry_is_none(language):
    for refusal in REFUSALS[language]:
        assert judge(Reply(0, refusal, "stop"), SOURCES[language]) == (None, "refused"), refusal
    for text in REWRITES[language]:
        assert judge(Reply(0, text, "stop"), SOURCES[language]) == (text, "ok")
    assert judge(Reply(0, REFUSALS[language][0], "stop"), REFUSALS[language][0]).status == "unchanged"


def test_what_needs_no_word_spaces_counts_and_what_is_english_alone_says_nothing():
    assert words([SOURCES["zh"], SOURCES["ja"], "ข้าวดี", "a b", "", "我 a, b!"]).tolist() == [37, 36, 4, 2, 0, 3]
    assert words([SOURCES["de"]]) == len(SOURCES["de"].split())
    english = ("jargon", "vagueness", "hedging", "confidence", "flattery", "agreement", "first-person", "politeness",
               "numbers-as-words", "typos")  # fmt: skip
    for measure in (vader, readability, formality, *(SUITE[name].attribute.measure for name in english)):
        assert np.isnan(measure(list(SOURCES.values()))).all()
        assert np.isfinite(measure(["Fine film, but the plot is thin and it was too long for me."])).all()
    assert starts_with_vowel(["Été", "他", "Über", "Fin"]).tolist()[::2] == [1, 1]
    assert np.isnan(starts_with_vowel(["他"])[0])
    counted = mentions("抱歉", "sorry")(["我很抱歉。", "Sorry.", "a sorrysight"])
    assert counted.tolist() == [25, 100, 0]
    sorry, unable = (SUITE[name].attribute.measure for name in ("apology", "refusal"))
    assert all(sorry([phrase])[0] > 0 for phrase in every(APOLOGIES))
    assert all(unable([phrase])[0] > 0 for phrase in every(UNABLE))


def test_rules_are_english_and_refuse_what_is_not():
    assert {r.status for r in RuleRewriter("length")(list(SOURCES.values()), [True] * 5)} == {"wrong_language"}
    rows = [{"prompt": f"{i}?", "response": "这部电影的情节很单薄。" * (i % 4 + 2)} for i in range(8)]
    with pytest.raises(WorkError, match=r"no rewrite succeeded \(wrong_language"):
        rk.audit(rows, "words", "length", rewriter="rules", progress=False)
    with pytest.raises(InputError, match="none of the 8 rows has a label for 'sentiment'"):
        rk.audit(rows, "words", "sentiment", rewriter="rules", progress=False)
    assert all(RuleRewriter(name)(["Fine."], [True])[0].status == "ok" for name in RULES)


def test_length_is_audited_in_chinese():
    more = "此外还有很多可以说的内容。"

    def rewriter(texts, targets):
        return [t.replace(more, "") + more * side for t, side in zip(texts, targets, strict=True)]

    rows = [{"prompt": f"{i}?", "response": "这部电影的情节很单薄。" * (i % 3 + 1) + more * (i % 2)} for i in range(24)]
    found = rk.audit(rows, "words", "length", rewriter=rewriter, progress=False)
    ate = found.effects[(found.effects.estimator == "rate") & (found.effects.estimand == "ate")].iloc[0]
    assert (ate.estimate, ate.dose) == (12, 12)  # letters
    for look in (rk.spillover, rk.adjusted):
        assert len(look(found.dataset))
    assert np.isfinite(rk.estimate(found.dataset, sample="two-phase")["estimate"]).all()


# --- turns ------------------------------------------------------------------------------------------------------------


def talk(i, end=True):
    turns = [("system", "Be brief."), ("user", f"Why {i}?"), ("assistant", f"So {i}."), ("user", "And?"),
             ("assistant", f"Then {i}."), ("user", "Bye")]  # fmt: skip
    return {"messages": [{"role": r, "content": c} for r, c in turns[: 5 if end else 6]]}


def test_the_turn_that_is_rewritten_is_chosen_and_a_system_prompt_is_kept(caplog):
    rows = [talk(i) for i in range(3)]
    assert rk.load(rows)["response"][:] == ["Then 0.", "Then 1.", "Then 2."]
    first = rk.load(rows, turn=0)
    assert first["response"][:] == ["So 0.", "So 1.", "So 2."]
    assert [t["role"] for t in first["prompt"][0]] == ["system", "user"]
    assert rk.load(rows, turn=-1)["prompt"][:] == rk.load(rows)["prompt"][:]
    assert len(rk.load(rows)["prompt"][0]) == 4
    assert rk.load([talk(0, end=False)], turn=-1)["response"][:] == ["Then 0."]
    with pytest.raises(InputError, match="no row holds a response"):
        rk.load(rows, turn=2)
    with pytest.raises(InputError, match="turn=0 is for conversations in a column 'messages'"):
        rk.load("reviews", turn=0)


def test_an_audit_scores_the_turn_under_what_came_before_it():
    asked = set()

    def reward(prompts, responses):
        asked.update((prompt[0]["content"], len(prompt), prompt[-1]["content"]) for prompt in prompts)
        return [len(r) for r in responses]

    rows = [talk(i) for i in range(8)]
    for i, row in enumerate(rows):
        row["messages"][2]["content"] += " It is." * (i % 4)
    found = rk.audit(rows, {"r": reward}, "length", turn=0, progress=False)
    assert asked == {("Be brief.", 2, f"Why {i}?") for i in range(8)}
    assert found.provenance["settings"]["turn"] == 0


@pytest.mark.parametrize(
    ("name", "text", "counted"),
    [("apology", "I’m sorry, that is wrong.", True), ("apology", "I'm sorry to hear that.", False),
     ("apology", "I am sorry you feel that way.", False), ("apology", "Je m’excuse.", True),
     ("refusal", "I can’t tell you that.", True), ("refusal", "I can't tell you that.", True),
     ("refusal", "I’m not allowed to say.", True), ("refusal", "I can’t remember when it was.", False),
     ("refusal", "They are unable to attach to it.", False), ("refusal", "I can’t wait, and I can’t help you.", True),
     ("refusal", "Ich kann Ihnen nicht helfen.", True), ("refusal", "문제가 없습니다.", False),
     ("refusal", "죄송하지만 도와드릴 수 없습니다.", True)],
)  # fmt: skip
def test_what_is_an_apology_or_a_refusal_in_the_sense_of_the_suite(name, text, counted):
    measure = SUITE[name].attribute.measure
    assert (measure([text])[0] > 0) == counted


def test_the_error_rate_of_apologies_and_refusals_on_held_out_responses(shared, monkeypatch):
    """30 counted and 30 not counted of each, read by hand."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from phrases import confusion, labelled

    counts = confusion(labelled(shared("hh_rlhf_harmless_base_test.jsonl.gz").parent))
    for name, wrongly_counted, missed in (("apology", 0, 0), ("refusal", 6, 1)):
        assert counts["held-out", name, False, True] <= wrongly_counted
        assert counts["held-out", name, True, False] <= missed
