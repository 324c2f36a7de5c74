"""Secrets kept out of everything that is shown or stored: the one redaction that messages, reprs and records pass.

What counts as a secret: the value of every variable of the environment that is named as a key, token, secret or
password, the userinfo and the query of every address, a token in an address's path, and what stands after `Bearer` or
`Basic`. A server may echo any of them, so they are looked for anywhere in a text.
"""

from __future__ import annotations

import base64
import functools
import html
import json
import os
import re
from collections.abc import Iterator
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

HIDDEN = "***"

_SECRET_NAME = re.compile(
    r"(?:^|_)(?:key|token|secret|passphrase|credentials?)(?:_|\d|$)|apikey|passw(?:or)?d", re.IGNORECASE
)
_ADDRESS_NAME = re.compile(r"(?:^|_)(?:url|endpoint|proxy)$", re.IGNORECASE)
_NO_SECRETS = frozenset({"none", "null", "true", "false", "empty"})
_SHORTEST = 4  # characters of a secret
_ALONE = 8  # a shorter one is hidden only where it stands as a word of its own

# A user and a password before a host, with a scheme and without one. A password may hold slashes and spaces: after
# `user:` comes a port or else a password, which ends at the last @ of the line.
_LONG_USERINFO = re.compile(r"(://)[^\s/@:\[\]\"'<>]+:(?!\d{1,5}(?:[/?#\s\"',;)]|$))[^@\n\"'<>]{1,200}@")
_USERINFO = re.compile(r"(://)[^\s/?#\"'<>]*@")
_BARE_USERINFO = re.compile(r"(?<![\w@])[^\s:/@\"'<>()]+:(?!//)[^\s@\"'<>]+@(?=[\w.\[-])")
_QUERY = re.compile(r"([a-z][a-z0-9+.-]*://[^\s?#\"'<>]*)[?#][^\s\"'<>]*", re.IGNORECASE)
_PARAMETER = re.compile(
    r"((?:[?&]|\b)(?!(?:max|batch|prompt|completion|total)_\w*tokens=)[\w.-]*(?:key|token|secret|passw|signature|\bsig|auth|credential)[\w.-]*=)[^\s&#\"'<>,;)]+",
    re.IGNORECASE,
)
_PATH = re.compile(r"[a-z][a-z0-9+.-]*://[^\s?#\"'<>]*", re.IGNORECASE)
_PATH_TOKEN = re.compile(r"(?<=/)(?=[^/\s-]*\d)(?=[^/\s-]*[A-Za-z])[A-Za-z0-9_~%]{16,}(?=/|$)")
_BEARER = re.compile(r"\b(bearer|basic)(\s+)[A-Za-z0-9._~+/=*-]{4,}", re.IGNORECASE)
_KEY_LIKE = re.compile(r"(?<![\w-])(?:sk-(?=[\w*-]*\d)[\w*-]{12,}|hf_[A-Za-z0-9]{16,})")


class Address(str):
    """A server's address that does not show its secrets where an object is shown.

    Examples
    --------
    >>> Address("http://me:secret@host:8000/v1?token=x")
    'http://***@host:8000/v1?***'
    """

    def __repr__(self) -> str:
        return repr(redact(str(self)))


def redact(text: object, *addresses: str | None) -> str:
    """The text without secrets.

    Parameters
    ----------
    text
        Anything that is going to be shown or stored; its `str` is taken.
    *addresses
        Addresses in use: their userinfo, the values of their query and tokens in their path are hidden wherever they
        stand.

    Returns
    -------
    str
        The text with `***` in the place of each secret, in its raw, stripped, escaped, quoted and encoded (base64,
        hexadecimal) forms and in any case.

    Examples
    --------
    >>> redact("no connection to http://me:secret@host:8000/v1?token=x (refused)")
    'no connection to http://***@host:8000/v1?*** (refused)'
    >>> redact("ME:SECRET@HOST does not resolve", "http://me:secret@host")
    '***@HOST does not resolve'
    >>> redact("rows 3:4 of data/a@b.jsonl")
    'rows 3:4 of data/a@b.jsonl'
    """
    shown = str(text)
    for secret in _secrets(addresses):
        shown = _without(shown, secret)
    shown = _BEARER.sub(lambda m: m[1] + m[2] + HIDDEN, shown)
    shown = _KEY_LIKE.sub(HIDDEN, shown)
    if ":" in shown and "@" in shown:
        shown = _LONG_USERINFO.sub(rf"\1{HIDDEN}@", shown)
        shown = _USERINFO.sub(rf"\1{HIDDEN}@", shown)
        shown = _BARE_USERINFO.sub(f"{HIDDEN}@", shown)
    if "://" in shown:
        shown = _QUERY.sub(rf"\1?{HIDDEN}", shown)
        shown = _PATH.sub(lambda m: _PATH_TOKEN.sub(HIDDEN, m[0]), shown)
    return _PARAMETER.sub(rf"\1{HIDDEN}", shown) if "=" in shown else shown


def _secrets(addresses: tuple[str | None, ...]) -> list[str]:
    """Every secret that is known, the longest first, so that one within another leaves nothing behind."""
    found = set()
    known = list(addresses)
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name):
            found.add(value)
        elif _ADDRESS_NAME.search(name):
            known.append(value)
    for address in known:
        found.update(_of_address(address or ""))
    kept = {s for s in found if len(s.strip()) >= _SHORTEST and s.strip().lower() not in _NO_SECRETS}
    return sorted(kept, key=len, reverse=True)


def _of_address(address: str) -> Iterator[str]:
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
    except ValueError:
        return
    user, at, _ = parts.netloc.rpartition("@")
    if at:
        name, _, password = user.partition(":")
        yield from (user, password or name, unquote(password or name))
    for _, value in parse_qsl(parts.query):
        yield value
    yield from _PATH_TOKEN.findall(parts.path)


def _without(text: str, secret: str) -> str:
    seen = text.lower()
    for form in _forms(secret):
        if len(form) < _SHORTEST or form.lower() not in seen:
            continue
        pattern = re.escape(form)
        if len(form) < _ALONE:
            pattern = rf"(?<!\w){pattern}(?!\w)"
        text = re.sub(pattern, HIDDEN, text, flags=re.IGNORECASE)
        seen = text.lower()
    return text


@functools.lru_cache(maxsize=256)
def _forms(secret: str) -> tuple[str, ...]:
    """The ways in which a secret may be written, the raw one first."""
    return tuple(dict.fromkeys(_written(secret)))


def _written(secret: str) -> Iterator[str]:
    for form in (secret, secret.strip()):
        yield form
        yield repr(form)[1:-1]
        yield json.dumps(form)[1:-1]
        yield ascii(form)[1:-1]
        yield json.dumps(form)[1:-1].replace("/", "\\/")  # as PHP writes it
        yield json.dumps(form)[1:-1].replace("/", "\\u002f")
        yield html.escape(form)
        yield quote(form, safe="")
        yield quote(quote(form, safe=""), safe="")
        yield quote_plus(form)
        raw = form.encode("utf-8", "surrogatepass")
        yield "".join(f"%{byte:02x}" for byte in raw)
        yield raw.hex()
        yield from _in_base64(raw)


def _in_base64(raw: bytes) -> Iterator[str]:
    """What base64 makes of bytes wherever they stand in what is encoded, as behind the user in `user:password`."""
    for before in range(3):
        code = base64.b64encode(bytes(before) + raw).decode()
        inner = code[(0, 2, 3)[before] : 8 * (before + len(raw)) // 6]
        if len(inner) >= _ALONE:
            yield inner
            yield inner.translate({ord("+"): "-", ord("/"): "_"})
