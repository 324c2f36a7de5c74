"""A fake of the OpenAI Batch API in a process of its own: /v1/files and /v1/batches, with a scripted end per batch.

python tests/servers/batch_server.py '{"ends": ["expired", "completed"]}'     # prints its port

The k-th batch ends as `ends[k]` says (the last one for all later): completed, expired, cancelled (half of the
requests answered), failed (none), partial (every fourth answered with a 500 in the error file), rejected (the first
answered with a 400), silent (an error and no response), overloaded (an error with status 200), never. Batches are
looked at `looks` times before they end. Each reply ends in `letters`, unescaped.
"""

import asyncio
import json
import sys

from aiohttp import web

CONFIG = {"ends": ["completed"], "looks": 1, "die_after_batch": 0, "letters": ""}
files: dict[str, bytes] = {}
batches: dict[str, dict] = {}
asked: dict[str, int] = {}


def answer(line):
    text = line["body"]["messages"][-1]["content"]
    text = text.rpartition("<response>\n")[2].removesuffix("\n</response>")
    body = {
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": f"{text} More.{CONFIG['letters']}"},
            }
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5},
    }
    return {"custom_id": line["custom_id"], "response": {"status_code": 200, "body": body}, "error": None}


async def upload(request):
    form = await request.post()
    name = f"file-{len(files)}"
    files[name] = form["file"].file.read()
    return web.json_response({"id": name, "object": "file", "bytes": len(files[name]), "created_at": 1,
                              "filename": "x", "purpose": "batch", "status": "processed"})  # fmt: skip


async def content(request):
    return web.Response(body=files[request.match_info["id"]])


def shown(batch):
    hidden = ("end", "looks", "lines")
    return {k: v for k, v in batch.items() if k not in hidden}


async def create(request):
    given = await request.json()
    lines = [json.loads(line) for line in files[given["input_file_id"]].splitlines()]
    for line in lines:
        asked[line["custom_id"]] = asked.get(line["custom_id"], 0) + 1
    name = f"batch-{len(batches)}"
    end = CONFIG["ends"][min(len(batches), len(CONFIG["ends"]) - 1)]
    batches[name] = {
        "id": name, "object": "batch", "endpoint": given["endpoint"], "input_file_id": given["input_file_id"],
        "completion_window": "24h", "created_at": 1, "status": "in_progress", "metadata": given["metadata"],
        "output_file_id": None, "error_file_id": None, "errors": None,
        "end": end, "looks": 0, "lines": lines,
    }  # fmt: skip
    if CONFIG["die_after_batch"] == len(batches):
        request.transport.abort()  # the batch is made, and nobody is told
    return web.json_response(shown(batches[name]))


def finish(batch):
    lines, end = batch["lines"], batch["end"]
    batch["status"] = end if end in ("failed", "expired", "cancelled") else "completed"
    if end == "failed":
        batch["errors"] = {"object": "list", "data": [{"code": "invalid", "message": "the file was refused"}]}
        return
    good, bad = lines, []
    if end in ("expired", "cancelled"):
        good, bad = lines[: len(lines) // 2], lines[len(lines) // 2 :]
        bad = [{"custom_id": b["custom_id"], "response": None, "error": {"code": f"batch_{end}"}} for b in bad]
    elif end == "partial":
        good = [line for i, line in enumerate(lines) if i % 4]
        bad = [{"custom_id": b["custom_id"], "response": {"status_code": 500, "body": {}}} for b in lines[::4]]
    elif end == "rejected":
        error = {"message": "too long", "code": "context_length_exceeded"}
        good = lines[1:]
        bad = [{"custom_id": lines[0]["custom_id"], "response": {"status_code": 400, "body": {"error": error}}}]
    elif end in ("silent", "overloaded"):
        error = {"code": "server_error", "message": "out of memory"}
        response = {"status_code": 200, "body": {"error": error}} if end == "overloaded" else None
        good, bad = [], [{"custom_id": b["custom_id"], "response": response, "error": error} for b in lines]
    for kind, rows in (("output_file_id", [answer(line) for line in good]), ("error_file_id", bad)):
        if rows:
            batch[kind] = f"file-{len(files)}"
            files[batch[kind]] = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


async def retrieve(request):
    batch = batches[request.match_info["id"]]
    batch["looks"] += 1
    if batch["status"] == "in_progress" and batch["looks"] > CONFIG["looks"] and batch["end"] != "never":
        finish(batch)
    return web.json_response(shown(batch))


async def listed(request):
    return web.json_response({"object": "list", "data": [shown(b) for b in batches.values()], "has_more": False})


async def stats(request):
    sizes = [len(b["lines"]) for b in batches.values()]
    longest = max((len(files[b["input_file_id"]]) for b in batches.values()), default=0)
    return web.json_response({"batches": len(batches), "sizes": sizes, "longest": longest, "asked": asked,
                              "ends": [b["end"] for b in batches.values()]})  # fmt: skip


async def configure(request):
    CONFIG.update(await request.json())
    for batch in batches.values():
        if batch["status"] == "in_progress" and batch["end"] == "never":
            batch["end"] = CONFIG["ends"][-1]
    return web.json_response(CONFIG)


async def main():
    if len(sys.argv) > 1:
        CONFIG.update(json.loads(sys.argv[1]))
    app = web.Application(client_max_size=2**28)
    app.router.add_post("/v1/files", upload)
    app.router.add_get("/v1/files/{id}/content", content)
    app.router.add_post("/v1/batches", create)
    app.router.add_get("/v1/batches", listed)
    app.router.add_get("/v1/batches/{id}", retrieve)
    app.router.add_get("/stats", stats)
    app.router.add_post("/configure", configure)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(site._server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
