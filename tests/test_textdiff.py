"""Differences add up to both texts, and what is shown can do nothing."""

from __future__ import annotations

import html
import itertools
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekit.escaping import as_html, cut, visible
from ratekit.textdiff import changed_share, differences_html, word_differences

words = st.lists(st.sampled_from(["a", "good", "bad", "film.", "<b>", "\n", "isn't", "  "]), max_size=30).map(" ".join)


@given(words | st.text(max_size=60), words | st.text(max_size=60))
def test_pieces_add_up_to_both_texts(before, after):
    pieces = word_differences(before, after)
    assert "".join(p.text for p in pieces if p.kind != "added") == before
    assert "".join(p.text for p in pieces if p.kind != "removed") == after
    assert all(p.text for p in pieces)
    kinds = [p.kind for p in pieces]
    assert all(a != b for a, b in itertools.pairwise(kinds)), "neighbours of one kind stand apart"
    assert 0 <= changed_share(before, after) <= 1


def test_only_what_changed_is_marked():
    pieces = word_differences("The film was good, and long.", "The film was bad, and long.")
    assert [(p.kind, p.text) for p in pieces if p.kind != "same"] == [("removed", "good"), ("added", "bad")]
    assert changed_share("x y", "x y") == 0
    assert changed_share("x y", "p q") == 1


class Seen(HTMLParser):
    """The tags of a page and the text that a reader sees."""

    def __init__(self):
        super().__init__()
        self.tags, self.text = [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "\x1b[31mred\x1b[0m\x07",
    "abc\u202egnp.exe\u2066",
    "</bdi></div><b>",
    "\ud800 alone",
    "nul\x00 and \x85 and \u2028",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_and_does_nothing(text):
    for page in (as_html(text), differences_html(text, "harmless words"), differences_html("harmless words", text)):
        page.encode("utf-8")  # a lone surrogate would not go into a file
        seen = Seen()
        seen.feed(page)
        assert set(seen.tags) <= {"bdi", "div", "del", "ins", "span"}
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", page)
        assert visible(text) in seen.text
    assert html.escape(visible(text)) in as_html(text)


def test_signs_name_what_they_stand_for():
    assert visible("\x00\x1b\x7f") == "␀␛␡"
    assert visible("\u200f") == "⟨U+200F⟩"
    assert visible("a\r\nb\rc") == "a\nb␍c"
    family = "\U0001f468\u200d\U0001f469"
    assert visible(family) == family


def test_a_long_text_is_cut_and_says_so():
    page = as_html("x" * 100_000, limit=1000)
    assert page.count("x") == 1000
    assert "99,000 more characters" in page
    assert cut("abc", 3) == ("abc", "")
    both = differences_html("a " * 50_000, "b " * 50_000, limit=500)
    assert "before … 99,500 more" in both
    assert "after … 99,500 more" in both


def test_a_long_text_has_its_differences_in_their_places():
    sentences = [f"the cat {i} sat on the mat. " for i in range(4000)]
    before, after = "".join(sentences), "".join(sentences).replace("cat 7 ", "dog 7 ").replace("cat 3000 ", "dog 3000 ")
    changes = [p for p in word_differences(before, after) if p.kind != "same"]
    assert [(p.kind, p.text) for p in changes] == [("removed", "cat "), ("added", "dog ")] * 2
