"""A key, a password and a text, looked for in all that every command prints and writes."""

from __future__ import annotations

import http.server
import json
import threading
import traceback
from typing import ClassVar

import pytest
from rewriting_support import Server, labelled

import ratekit as rk
from ratekit.cli import main
from ratekit.cli.app import app

pytestmark = pytest.mark.commands

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
    "gate": "{scored} --max length=0.1 --junit {out}.xml --summary {out}.md",
    "leaderboard": "{card} --out {out}.html",
    "verify": "{audit}",
    "notebooks": "{out}",
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
    rk.audit(scored, (), out=place / "audit", progress=False)
    rk.card("words", rows, attributes=["length"], out=place / "card", progress=False)
    reference = {"prompt": rows["prompt"][0][0]["content"], "response": "Another."}
    (place / "references.jsonl").write_text(json.dumps(reference))
    return place


@pytest.mark.parametrize("name", [*names(app)])
def test_no_command_shows_a_secret_or_a_text(name, made, server, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    open_url = server.url.replace("//", f"//u:{PASSWORD}@")
    places = {"rows": made / "rows.parquet", "scored": made / "scored.parquet", "cache": made / "cache",
              "audit": made / "audit", "card": made / "card",
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


# --- servers that repeat what they are told --------------------------------------------------------------


class Echo(http.server.BaseHTTPRequestHandler):
    """Answers with the request itself: its line, its headers, its body."""

    code = 401
    heard: ClassVar[list[str]] = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode(errors="replace")
        said = f"{self.requestline} {self.headers} {body[:200]}"
        self.heard.append(said)
        answer = json.dumps({"error": {"message": said, "code": said}, "detail": said}).encode()
        self.send_response(self.code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module", params=[401, 200])
def echo(request):
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Told", (Echo,), {"code": request.param}))
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()


ASKING = {
    "a judge": "score {rows} -r judge:openai:m,base_url={url}/v1,max_retries=0 --out {out}",
    "a judge at an open address": "score {rows} -r judge:openai:m,base_url={open}/v1 --out {out}",
    "a judge by criteria": "audit --data {rows} -a length -r judge:openai:m,base_url={url}/v1,criteria=a+b,repeats=2,"
    "max_retries=0 --out {out}",
    "a judge on a card": "card --data {rows} -a length -r judge:openai:m,base_url={url}/v1,max_retries=0 --out {out}",
    "a judge of pairs": "score {rows} -r pairwise:openai:m,{references},base_url={url}/v1,max_retries=0 --out {out}",
    "a reward of a server": "score {rows} -r served:{url}/get_reward?token={password} --out {out}",
    "a pooling server": "score {rows} -r served:{open}/pooling,m --out {out}",
    "a classifying server": "check-reward served:{open}/classify?key={password},m",
    "a token in a path": "score {rows} -r served:{url}/x{password}0123456789/score,m --out {out}",
    "a rewriter": "audit --data {rows} -a length -r words --rewriter openai:m --base-url {url}/v1 --max-retries 0 "
    "--out {out}",
    "a proposer": "discover {rows} -r words --rewriter openai:m --proposer openai:m --base-url {url}/v1 "
    "--max-retries 0 --out {out}",
}  # fmt: skip


def hidden(shown):
    for canary in (KEY, TOKEN, PASSWORD):
        assert canary.lower() not in shown.lower(), canary


@pytest.mark.parametrize("who", ASKING)
def test_what_a_server_repeats_is_shown_without_secrets(who, made, echo, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("RATEKIT_CACHE", str(tmp_path / "replies"))
    open_url = echo.replace("//", f"//u:{PASSWORD}@")
    if "{open}" not in ASKING[who]:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
    places = {"rows": made / "rows.parquet", "references": made / "references.jsonl", "url": echo, "open": open_url,
              "password": PASSWORD, "out": tmp_path / "out"}  # fmt: skip
    code = main(ASKING[who].format(**places).split())
    out, err = capsys.readouterr()
    assert code in (0, 1, 2)
    assert "Traceback" not in err
    hidden(out + err)
    for path in [p for p in tmp_path.rglob("*") if p.is_file()]:
        hidden(path.read_bytes().decode("latin1"))


def test_neither_a_repr_nor_a_traceback_nor_a_page_shows_a_secret(made, echo, monkeypatch, caplog):
    from ratekit.scoring import make_reward

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    open_url = echo.replace("//", f"//u:{PASSWORD}@")
    rows = [{"prompt": "Why?", "response": "So."}, {"prompt": "Why?", "response": "No."}]
    urls = (f"{echo}/v1", f"{open_url}/v1", f"{echo}/v1?token={PASSWORD}")
    chats = [rk.OpenAIChat("m", url, max_retries=0) for url in urls]
    rewards = [rk.LLMJudge(chat) for chat in chats]
    rewards += [make_reward(f"served:{echo}/{path},m") for path in ("pooling", "get_reward", "classify")]
    for one in (*chats, *rewards, *(rk.ChatRewriter(chat, rk.ATTRIBUTES["length"]) for chat in chats)):
        hidden(repr(one) + str(one) + str(getattr(one, "fingerprint", "")))
    for reward in rewards:
        try:
            hidden(rk.score(rows, reward, name="r", progress=False).to_pandas().to_html())
        except (rk.InputError, rk.WorkError) as e:
            hidden("".join(traceback.format_exception(e)) + repr(e))
    hidden(caplog.text)
    assert all(any(canary in said for said in Echo.heard) for canary in (KEY, PASSWORD))  # there to be shown
