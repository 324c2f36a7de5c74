"""A fake OpenAI-compatible chat server in a process of its own: it really rewrites (by rules), and fails on demand.

python tests/servers/chat_server.py '{"faults": {"500": 0.05}, "mean_ms": 20}'     # prints its port

GET /stats tells what it did: how many requests, which replies it sent whole, and which of those the client has read
for certain (because it used the same connection again). A text is known by the hash of its messages (`key`).
"""

import asyncio
import hashlib
import json
import logging
import math
import random
import sys
import time
from collections import Counter

from aiohttp import web

from ratekit.rewriting.rules import RULES

CONFIG = {
    "faults": {},  # kind -> share of the requests; see `fail`
    "mean_ms": 0.0,  # lognormal latency
    "sigma": 0.5,
    "rps": 0.0,  # requests a second beyond which it answers 429; 0 = no limit
    "then": "",  # "quota" or "401": what every request gets once `after` requests have come
    "after": 0,
    "usage": True,  # whether it says how many tokens a reply took
    "key": None,  # the only key that it accepts
    "model": None,  # the only model that it has
    "retry_after": 0.2,
    "fixed": "",  # the same reply to everyone
    "seed": 0,
}

stats = Counter()
sent = Counter()  # key -> replies sent whole
read = Counter()  # key -> of those, surely read by the client
requested = Counter()
again = []  # keys asked for again after their reply had surely been read
answered = {}  # key -> what the last whole reply was: "ok", "length", "refusal"
last_on = {}  # connection -> key of the reply sent on it last
bucket = {"tokens": 0.0, "at": time.monotonic()}


def key_of(messages):
    return hashlib.sha256(json.dumps(messages, sort_keys=True).encode()).hexdigest()[:16]


def rewritten(content):
    """The text between the tags, rewritten as the words before it ask."""
    head, _, rest = content.rpartition("<response>\n")
    text = rest.removesuffix("\n</response>") if head else content
    if not head and "adjust this re" in content.rpartition("\n\n")[2].lower():  # a wish that stands after the text
        text, _, head = content.rpartition("\n\n")
    if "more positive" in head or "more negative" in head:
        return RULES["sentiment"](text, "more positive" in head)
    if "vowel" in head or "consonant" in head:
        return RULES["starts-with-vowel"](text, "vowel" in head)
    out = RULES["length"](text, "shorter" not in head)
    return out if out != text else text + " Really."


def completion(text, reason="stop", refusal=None, prompt=""):
    message = {"role": "assistant", "content": text, "refusal": refusal}
    usage = {"prompt_tokens": len(prompt) // 4, "completion_tokens": len(text or "") // 4}
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "fake",
        "choices": [{"index": 0, "finish_reason": reason, "message": message}], "usage": usage,
    }  # fmt: skip


def error(status, message, code=None, headers=None):
    body = {"error": {"message": message, "type": code or "error", "code": code}}
    return web.json_response(body, status=status, headers=headers)


def over_the_limit():
    if not CONFIG["rps"]:
        return False
    now = time.monotonic()
    bucket["tokens"] = min(max(1.0, CONFIG["rps"] / 4), bucket["tokens"] + (now - bucket["at"]) * CONFIG["rps"])
    bucket["at"] = now
    if bucket["tokens"] < 1:
        return True
    bucket["tokens"] -= 1
    return False


def draw_fault(key):
    """The fault of this try of this text: the same in every run, another one at the next try."""
    u = random.Random(f"{CONFIG['seed']}|{key}|{requested[key]}").random()
    for kind, share in CONFIG["faults"].items():
        if u < share:
            return kind
        u -= share
    return None


async def fail(kind, request, text):
    stats[kind] += 1
    if kind == "429":
        return error(429, "slow down", "rate_limit_exceeded")
    if kind == "429-after":
        return error(429, "slow down", "rate_limit_exceeded", {"Retry-After": str(CONFIG["retry_after"])})
    if kind in ("500", "503"):
        return error(int(kind), "boom")
    if kind == "json":
        return web.Response(text='{"choices": [{"mess', content_type="application/json")
    if kind == "choices":
        return web.json_response({"id": "x", "object": "chat.completion", "choices": []})
    if kind == "hang":
        await asyncio.sleep(60)
        return error(504, "too late")
    if kind == "cut":
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "100000"})
        await response.prepare(request)
        await response.write(b'{"choices": [')
        request.transport.close()
        return response
    if kind == "quota":
        return error(429, "You exceeded your current quota", "insufficient_quota")
    if kind == "filter":
        return error(400, "The response was filtered", "content_filter")
    if kind == "too-long":
        return error(400, "This model's maximum context length is 8 tokens", "context_length_exceeded")
    raise AssertionError(kind)


async def chat(request):
    connection = request.transport.get_extra_info("peername")
    if (before := last_on.pop(connection, None)) is not None:
        read[before] += 1
    body = await request.json()
    stats["requests"] += 1
    key = key_of(body["messages"])
    requested[key] += 1
    if read[key]:
        again.append(key)
    if CONFIG["key"] and request.headers.get("Authorization") != f"Bearer {CONFIG['key']}":
        given = request.headers.get("Authorization", "")
        return error(401, f"Incorrect API key provided: {given}", "invalid_api_key")
    if CONFIG["model"] and body["model"] != CONFIG["model"]:
        return error(404, f"The model {body['model']} does not exist", "model_not_found")
    if CONFIG["then"] and stats["requests"] > CONFIG["after"]:
        if CONFIG["then"] == "401":
            return error(401, "Incorrect API key provided", "invalid_api_key")
        return error(429, "You exceeded your current quota", "insufficient_quota")
    if over_the_limit():
        stats["over-the-limit"] += 1
        return error(429, "slow down", "rate_limit_exceeded", {"Retry-After": str(CONFIG["retry_after"])})
    if CONFIG["mean_ms"]:
        mean, sigma = CONFIG["mean_ms"] / 1000, CONFIG["sigma"]
        await asyncio.sleep(random.lognormvariate(math.log(mean) - sigma**2 / 2, sigma))
    content = body["messages"][-1]["content"]
    text = CONFIG["fixed"] or rewritten(content)
    kind = draw_fault(key)
    if kind is not None and kind not in ("length", "refusal", "refusal-text", "bad-reason"):
        return await fail(kind, request, text)
    if kind == "length":
        data = completion(text[: len(text) // 2], "length", prompt=content)
    elif kind == "bad-reason":
        data = completion(text, None, prompt=content)
    elif kind == "refusal":
        data = completion(None, "stop", refusal="I can't do that.", prompt=content)
    elif kind == "refusal-text":
        data = completion("I'm sorry, but I can't help with that request.", prompt=content)
    else:
        data = completion(text, prompt=content)
    if not CONFIG["usage"]:
        del data["usage"]
    response = web.json_response(data)
    await response.prepare(request)
    await response.write_eof()
    stats["sent"] += 1
    sent[key] += 1
    answered[key] = {None: "ok", "length": "length", "bad-reason": "unended"}.get(kind, "refusal")
    if kind is not None:
        stats[kind] += 1
    last_on[connection] = key
    return response


async def show(request):
    twice = [key for key, n in sent.items() if n > 1]
    return web.json_response(
        {**stats, "n_keys": len(sent), "sent_twice": len(twice), "again_after_read": len(again), "answered": answered}
    )


async def configure(request):
    for counts in (stats, sent, read, requested, answered, again):
        counts.clear()
    CONFIG.update(await request.json())
    return web.json_response(CONFIG)


async def main():
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # clients that are killed are no news
    if len(sys.argv) > 1:
        CONFIG.update(json.loads(sys.argv[1]))
    app = web.Application(client_max_size=2**26)
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_get("/stats", show)
    app.router.add_post("/configure", configure)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096)
    await site.start()
    print(site._server.sockets[0].getsockname()[1], flush=True)
    while True:
        await asyncio.sleep(3600)


if __name__ == "__main__":
    asyncio.run(main())
