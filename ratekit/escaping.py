"""Text from data, made fit to be shown: nothing in it acts on the page or the terminal, and nothing hides.

A response may hold markup, terminal codes or marks that turn the reading direction. They are part of what a reward
model reads, so they are shown as signs, never obeyed and never dropped.
"""

from __future__ import annotations

import base64
import html
import re
import unicodedata

# Controls get their picture from Unicode's own block; these two are layout that a reader expects to see as layout.
_LAYOUT = "\n\t"
# Joiners that scripts and emoji need; every other format character changes how its neighbours are shown.
_KEPT_FORMATS = "\u200c\u200d\u00ad"
_BEGINS = re.compile(r"[$\\]")  # a formula


def visible(text: str) -> str:
    r"""The text with each control and direction mark written as a sign, and lone surrogates named.

    Line breaks and tabs stay; a carriage return before a line break is dropped: readers take the two for one.

    Examples
    --------
    >>> visible("\x1b[31mred\x1b[0m")
    '␛[31mred␛[0m'
    >>> visible("abc\u202edef")
    'abc⟨U+202E⟩def'
    >>> visible("two\nlines")
    'two\nlines'
    """
    text = text.replace("\r\n", "\n")
    if text.isascii() and text.isprintable():
        return text
    return "".join(_sign(c) for c in text)


def _sign(character: str) -> str:
    code = ord(character)
    if character in _LAYOUT or character in _KEPT_FORMATS or 0x20 <= code < 0x7F:
        return character
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return f"⟨U+{code:04X}⟩"
    return character


def cut(text: str, limit: int) -> tuple[str, str]:
    """The text's first `limit` characters, and a note of what was left out ("" where nothing was).

    Examples
    --------
    >>> cut("abcdef", 4)
    ('abcd', ' … 2 more characters')
    >>> cut("abc", 4)
    ('abc', '')
    """
    if len(text) <= limit:
        return text, ""
    return text[:limit], f" … {len(text) - limit:,} more characters"


def escaped(text: str) -> str:
    r"""The text as HTML on one level: markup is shown, and no dollar or backslash of it begins a formula.

    MathJax, KaTeX and the viewers that use them look for a formula's two ends in one run of text, which a tag ends.

    Examples
    --------
    >>> escaped("<b>")
    '&lt;b&gt;'
    >>> print(escaped(r"from $5 to $6, \(x\)"))
    from <span>$</span>5 to <span>$</span>6, <span>\</span>(x<span>\</span>)
    """
    return _BEGINS.sub(r"<span>\g<0></span>", html.escape(visible(text)))


def data_uri(kind: str, data: bytes) -> str:
    """A file's bytes as an address, for a page that needs no other file.

    Examples
    --------
    >>> data_uri("text/csv", b"n")
    'data:text/csv;base64,bg=='
    """
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def as_html(text: str, limit: int = 20_000) -> str:
    """The text as HTML that shows it and does nothing else, isolated from the reading direction around it.

    Longer texts are cut at `limit` characters, and say so.

    Examples
    --------
    >>> as_html("<b>bold</b>")
    '<bdi>&lt;b&gt;bold&lt;/b&gt;</bdi>'
    """
    kept, note = cut(text, limit)
    said = f'<span class="rk-cut">{html.escape(note)}</span>' if note else ""
    return f"<bdi>{escaped(kept)}</bdi>{said}"
