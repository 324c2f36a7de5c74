"""A key, a password and a text, looked for in all that every command prints and writes."""

from __future__ import annotations

import pytest
from rewriting_support import Server, labelled

import ratekit as rk
from ratekit.cli import main
from ratekit.cli.app import app

KEY, TOKEN, PASSWORD, TEXT = "sk-CANARYkey0123456789", "hf_CANARYtoken0123456789", "CANARYpassword", "canaryOfTheText"
HOLD_TEXTS = ("dataset", "rewrites", "data", "cache", "rows.parquet", "scored.parquet", "page.html", "report.html")

# A call of each; a command that is not here is called with scored rows. {url} is a server that refuses the key and
# repeats it, {open} has a password in its address.
CALLS = {
    "demo": "--out {rows} --format none",
    "audit": "--data {rows} -a length -r words --rewriter openai:m --base-url {open} --out {out} --max-retries 0",
    "run": "--data {rows} -a length -r words --rewriter openai:m --base-url {url} --out {out}",
    "card": "--data {rows} -r words -a length --rewriter openai:m --base-url {url} --out {out}",
    "discover": "{rows} -r words --rewriter openai:m --proposer openai:m --base-url {url} --out {out}",
    "gate": "{scored} --max length=0.1",
    "report": "{scored} --out {out}/page.html",
    "reproduce": "imdb-length --n 20 --rewriter openai:m --base-url {url} -r vader --data-files {rows} --out {out}",
    "rewrite": "{rows} -a length --rewriter batch:m --base-url {url} --out {out}",
    "score": "{rows} -r served:{url}?token={password},m --out {out}",
    "estimate": "{scored} --out {out}",
    "diagnose": "{scored}",
    "contrast": "{scored} words vader",
    "sensitivity": "{scored}",
    "heterogeneity": "{scored} --by source",
    "spillover": "{scored}",
    "dose-response": "{scored}",
    "warranted": "{scored} --human preferred",
    "plan": "{scored} --se 0.05",
    "sequential": "{scored}",
    "attributes": "",
    "check-reward": "{cache}",
    "calibrate": "served:{open},m --n 10",
    "cache ls": "{cache}",
    "cache verify": "{cache}",
    "cache export": "{cache} --out {out}",
    "cache push": "owner/name {cache}",
    "cache rm": "{cache} --yes",
    "merge models": "{cache} {cache} -m soup --out {out}",
    "merge audit": "{cache} {cache} --data {scored} --out {out}",
    "merge methods": "",
}


def names(command, before=()):
    import typer

    command = typer.main.get_command(command) if command is app else command
    for name, below in command.commands.items():
        yield from names(below, (*before, name)) if hasattr(below, "commands") else [" ".join((*before, name))]


@pytest.fixture(scope="module")
def server():
    with Server("chat_server.py", key="another") as refusing:
        yield refusing


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    from ratekit.rewriting.cache import Cache, record_of

    place = tmp_path_factory.mktemp("canaries")
    rows = labelled(24).map(lambda row: {"response": f"{row['response']} {TEXT}.", "source": "a", "preferred": 1.0})
    rows.to_parquet(place / "rows.parquet")
    scored = rk.score(rk.rewrite(rows, "length", "rules", progress=False), ["words", "vader"], progress=False)
    scored.to_parquet(place / "scored.parquet")
    with Cache(place / "cache") as cache:
        about = {"model": "m", "params": "", "template": "", "attribute": "length", "phrase": "longer"}
        turns = [{"role": "user", "content": TEXT}]
        cache.put("a" * 32, record_of(**about, messages=turns, text=TEXT, finish_reason="stop", usage={}))
    return place


@pytest.mark.parametrize("name", [*names(app)])
def test_no_command_shows_a_secret_or_a_text(name, made, server, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    open_url = server.url.replace("//", f"//u:{PASSWORD}@")
    places = {"rows": made / "rows.parquet", "scored": made / "scored.parquet", "cache": made / "cache",
              "url": server.url, "open": open_url, "password": PASSWORD, "out": tmp_path / "out"}  # fmt: skip
    call = CALLS.get(name, "{scored}")
    if "{open}" in call:
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    else:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
    code = main([*name.split(), *call.format(**places).split()])
    out, err = capsys.readouterr()
    assert code in ((0, 3, 4) if name == "gate" else (0, 1, 2))
    assert "Traceback" not in err
    for canary in (KEY, TOKEN, PASSWORD):
        assert canary.lower() not in (out + err).lower(), canary
    assert TEXT not in out + err
    for path in [p for p in tmp_path.rglob("*") if p.is_file()]:
        written = path.read_bytes()
        assert not any(canary.encode() in written for canary in (KEY, TOKEN, PASSWORD)), path
        if not {*path.relative_to(tmp_path).parts} & {*HOLD_TEXTS}:
            assert TEXT.encode() not in written, path
