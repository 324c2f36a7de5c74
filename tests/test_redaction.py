"""No secret in what is shown: keys of the environment and addresses, however they are written, and nothing else."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest

from ratekit.errors import InputError, WorkError
from ratekit.redaction import Address, redact

CANARY = "sk-CANARY/KEY+0123456789"
PASSWORD = "PASSWORD-canary"


@pytest.mark.parametrize(
    "form",
    [
        CANARY, CANARY.upper(), CANARY.lower(), CANARY + "\n", repr(CANARY + "\n"), repr(f"Bearer {CANARY}".encode()),
        json.dumps({"key": CANARY}), json.dumps(CANARY).replace("/", r"\/"), CANARY.replace("/", r"\u002f"),
        quote(quote(CANARY, safe=""), safe=""), "".join(f"%{byte:02X}" for byte in CANARY.encode()),
        quote(CANARY, safe=""), quote(CANARY, safe="").lower(), f"'{CANARY}'",
    ],
)  # fmt: skip
@pytest.mark.parametrize("end", ["", "\n", " \r\n"])
def test_a_key_of_the_environment_is_hidden_in_every_form(monkeypatch, form, end):
    monkeypatch.setenv("MY_API_KEY", CANARY + end)
    shown = redact(f"the server said {form}: no")
    assert "canary" not in shown.lower()
    assert shown.startswith("the server said ")
    assert shown.endswith(": no")


@pytest.mark.parametrize("user", ["", "u:", "us:", "use:"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode, bytes.hex])
def test_a_key_is_hidden_in_base64_wherever_it_stands_in_what_is_encoded(monkeypatch, user, encode):
    monkeypatch.setenv("PGPASSWORD", CANARY)
    code = encode(f"{user}{CANARY}".encode())
    code = code if isinstance(code, str) else code.decode()
    shown = redact(f"the header was {code}.")
    assert not any(code[i : i + 4] in shown for i in range(8, len(code) - 8))  # before it stands the user


@pytest.mark.parametrize(
    "address",
    [
        f"http://u:{PASSWORD}@host:8000/v1", f"HTTPS://U:{PASSWORD}@HOST/V1", f"u:{PASSWORD}@host:8000/v1",
        f"ftp://u:{PASSWORD}@host/", f"http://u:{PASSWORD}@exa mple/", f"http://u:{PASSWORD}/x@host/v1",
        f"http://u:a {PASSWORD}@host/v1", f"http://{PASSWORD}@host/v1", f"http://host/v1?token={PASSWORD}",
        f"http://host/v1?a=1&t={PASSWORD}#x", f"host:8000/v1?api_token={PASSWORD}", f"http:/u:{PASSWORD}@host/v1",
        "http://host/tokenCANARY0123456789/classify", f"http://host/#access={PASSWORD}",
        f"http://u:p@{PASSWORD}@host/",
    ],
)  # fmt: skip
def test_an_address_shows_neither_userinfo_nor_query(address):
    for text in (address, f"no answer from {address} after 3 tries", f"'{address}'", f"({address})"):
        assert "canary" not in redact(text).lower(), text
    assert "canary" not in repr(Address(address)).lower()
    assert Address(address) == address  # it is still the address


def test_what_an_address_in_use_holds_is_hidden_where_it_stands_alone():
    shown = redact("cannot resolve CANARYPW or canary-token", "http://u:CANARYPW@h/v1?t=canary-token")
    assert shown == "cannot resolve *** or ***"


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:8000/v1 does not answer", "https://huggingface.co/Qwen/Qwen3-4B-Instruct-2507",
        "https://host/v1/chat/completions (404: not found)", "a@b.org", "a:b",
        "http://[::1]:8000/v1", "task-based-evaluation-2024 sk-learn", "key: 3 of 4, tokens: 12 in",
        "http://host:8000, and mail me@home", "max_tokens=0: a positive number was expected",
    ],
)  # fmt: skip
def test_what_is_no_secret_stays(text, monkeypatch):
    monkeypatch.setenv("SHORT_TOKEN", "row")  # shorter than any key
    monkeypatch.setenv("LOCAL_API_KEY", "none")
    assert redact(text) == text


def test_a_short_key_is_hidden_as_a_word_alone(monkeypatch):
    monkeypatch.setenv("LOCAL_API_KEY", "test")
    assert redact("key test, tested") == "key ***, tested"


@pytest.mark.parametrize("fault", [InputError, WorkError])
def test_no_fault_of_ours_carries_a_secret(monkeypatch, fault):
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    assert str(fault(f"the server at http://u:{PASSWORD}@h/ said {CANARY}")) == "the server at http://***@h/ said ***"
    assert CANARY not in repr(fault(CANARY))
