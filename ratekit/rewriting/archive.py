"""A cache as a thing to look at, to check, to publish and to throw away."""

from __future__ import annotations

import json
import logging
import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import count as count_from
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratekit import files
from ratekit.errors import InputError, WorkError, shorten, unknown
from ratekit.redaction import redact
from ratekit.rewriting.base import OK, STOP, ending
from ratekit.rewriting.cache import Cache, fault_of_record, key_of, spent_on
from ratekit.sources.public import SOURCES
from ratekit.store import LONGEST, NOT_READ, is_read_whole, is_written_to, lines, ordinary, shards_in

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

log = logging.getLogger("ratekit")

PER_FILE = 100_000  # replies in a Parquet file


def cache_summary(folder: str | Path) -> pd.DataFrame:
    """One row per model, its parameters, template and attribute: replies, how they ended, tokens, when."""
    import pandas as pd

    columns = ["model", "params", "template", "attribute"]
    groups: dict[tuple[str, ...], dict[str, Any]] = {}
    for record in Cache(folder).records():
        key = tuple(str(record.get(c, "")) for c in columns)
        created = str(record.get("created", ""))
        row = groups.setdefault(
            key, {"replies": 0, "complete": 0, "tokens_in": 0, "tokens_out": 0, "first": created, "last": created}
        )
        row["replies"] += 1
        row["complete"] += ending(record.get("finish_reason")) in (STOP, OK)
        spent = spent_on(record)
        row["tokens_in"] += spent["prompt"]
        row["tokens_out"] += spent["completion"]
        row["first"], row["last"] = min(row["first"], created), max(row["last"], created)
    rows = [{**dict(zip(columns, key, strict=True)), **row} for key, row in groups.items()]
    return pd.DataFrame(rows, columns=[*columns, "replies", "complete", "tokens_in", "tokens_out", "first", "last"])


def shard_faults(folder: str | Path) -> tuple[int, list[str]]:
    """How many lines the shards have, and one line for each that is no record or whose key is not its content's."""
    Cache(folder)  # mends a torn last line
    n, found = 0, []
    for shard in sorted(Path(folder).glob("*.jsonl")):
        if not ordinary(shard):
            found.append(f"{shard}: {NOT_READ}")
            continue
        for number, _, record in lines(shard):
            n += 1
            fault = "damaged (its checksum does not fit), torn or no record" if record is None else _fault(record)
            if fault:
                found.append(f"{shard}, line {number}: {fault}")
    return n, found


def _fault(record: dict[str, Any]) -> str | None:
    if (odd := fault_of_record(record)) is not None:
        return odd
    if not _is_text(record):
        return "holds half of a surrogate pair"
    missing = [c for c in ("model", "messages", "text", "finish_reason") if c not in record]
    if missing:
        return f"no {missing[0]!r}"
    if not record.get("template"):
        return None  # of a rewriter that is no chat: its key holds more than is stored
    model, params = record["model"], record.get("params")
    expected = key_of(f"{model}|{params}" if params else model, record["messages"])
    return None if record["key"] == expected else "the key is not that of model, parameters and messages"


def export(folder: str | Path, out: str | Path, sources: Sequence[str] = ()) -> int:
    """Write the latest reply of each key to `out`/data/*.parquet, and the dataset card; how many they are.

    Parameters
    ----------
    sources
        names in `SOURCES` (or "reviews") that the texts are from: the card gives their licences
    """
    import pyarrow.parquet as pq

    for name in sources:
        if name not in SOURCES and name != "reviews":
            raise unknown("source", name, ["reviews", *SOURCES])
    cache, out = Cache(folder), Path(out)
    if not len(cache):
        raise InputError(f"the cache {folder} is empty: there is nothing to export")
    n = 0

    def write(new: Path) -> None:
        nonlocal n
        new.mkdir()
        whole = filter(_is_text, cache.records())
        for part in count_from(0):
            rows = list(islice(whole, PER_FILE))
            if not rows:
                break
            n += len(rows)
            pq.write_table(_table(rows), new / f"replies-{part:05d}.parquet", compression="zstd")

    files.replace_folder(out / "data", write)
    if n < len(cache):
        log.warning("%d replies are damaged or no text (half of a surrogate pair), and are left out", len(cache) - n)
    files.replace_text(out / "README.md", _card(cache_summary(folder), sources))
    return n


def _is_text(record: dict[str, Any]) -> bool:
    """Whether it can be written as UTF-8."""
    try:
        json.dumps(record, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    import pyarrow as pa

    text = pa.string()
    schema = pa.schema(
        [
            *((name, text) for name in ("key", "model", "params", "template", "attribute", "phrase")),
            ("messages", pa.list_(pa.struct([("role", text), ("content", text)]))),
            ("text", text),
            ("finish_reason", text),
            ("usage", pa.struct([("prompt", pa.int64()), ("completion", pa.int64())])),
            ("created", text),
        ]
    )
    return pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in rows], schema=schema)


def _card(table: pd.DataFrame, sources: Sequence[str] = ()) -> str:
    """The dataset card: what wrote the replies, to which templates, how many, and the licences of the texts."""
    from ratekit import __version__

    licences = [f"- {name}: {SOURCES[name].licence}" for name in sources if name in SOURCES]
    if "reviews" in sources:
        licences.append("- reviews (bundled with ratekit): Apache-2.0")
    columns = ["model", "params", "template", "attribute", "replies", "complete", "tokens_in", "tokens_out"]
    head = "| " + " | ".join(columns) + " |\n|" + "---|" * len(columns)
    body = "\n".join("| " + " | ".join(str(row[c]) for c in columns) + " |" for _, row in table.iterrows())
    configs = "configs:\n- config_name: default\n  data_files: data/*.parquet\n"
    return f"""---
tags: [ratekit, rewrites]
{configs}---

# Rewrites by language models

{table["replies"].sum():,} replies, asked for between {table["first"].min()} and {table["last"].max()} and exported by
ratekit {__version__}. Each row is one reply: `messages` is what was asked (the text is in it), `text` what came back,
`finish_reason` how it ended ("stop" is complete), `template` the hash of the prompt's template. A reply is no rewrite
until it is judged: refusals and cut-off replies are in here too.

{head}
{body}

## Licences of the texts

{chr(10).join(licences) or "Not stated. Whoever publishes this has to say where the texts are from (--source NAME)."}

The replies are subject to the terms of the models' providers.
"""


def upload_folder(folder: str, repo: str, private: bool, said: str) -> str:
    """Put a folder into a dataset repository of the hub; its address. The token is the hub client's own (HF_TOKEN)."""
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(repo_id=repo, repo_type="dataset", folder_path=folder, commit_message=said)
    except Exception as e:  # the hub client raises many kinds; all mean that it is not there
        raise WorkError(f"{repo!r} could not be uploaded: {shorten(redact(e), 160)}") from None
    return f"https://huggingface.co/datasets/{repo}"


def push_cache(folder: str | Path, repo: str, sources: Sequence[str] = (), private: bool = True) -> str:
    """Export and upload to the hub; the dataset's address. The token is the hub client's own (HF_TOKEN)."""
    with tempfile.TemporaryDirectory(prefix="ratekit-") as out:
        export(folder, out, sources)
        return upload_folder(out, repo, private, "Replies exported by ratekit")


def _meant(record: dict[str, Any] | None, template: str | None, model: str | None) -> bool:
    if record is None:
        return template is None and model is None
    return (template is None or record.get("template") == template) and (model is None or record.get("model") == model)


def count(folder: str | Path, template: str | None = None, model: str | None = None) -> int:
    """How many lines `remove` would delete."""
    counts = Counter(_meant(r, template, model) for s in shards_in(folder, ".jsonl") for _, _, r in lines(s))
    return counts[True]


def _copy_without(shard: Path, template: str | None, model: str | None, new: Path) -> None:
    with new.open("wb") as f:
        for _, raw, record in lines(shard):
            if not _meant(record, template, model) and (line := raw.rstrip(b"\r\n\0 ")):
                f.write(line + b"\n")


def remove(folder: str | Path, template: str | None = None, model: str | None = None) -> int:
    """Delete the replies to a template, of a model, or all of them; damaged lines go with all of them only.

    Raises InputError while a process writes here, and where a part is to go and a shard cannot be read to its end.
    """
    folder = Path(folder)
    shards = shards_in(folder, ".jsonl")
    busy = [shard for shard in shards if is_written_to(shard)]
    if busy:
        raise InputError(f"a process is writing to {busy[0]}; wait for it or stop it first")
    everything = template is None and model is None
    if not everything and (long := [shard for shard in shards if not is_read_whole(shard)]):
        raise InputError(
            f"{long[0]} holds a line of more than {LONGEST >> 20} MiB, and what stands behind it is not read: "
            "repair that file first (ratekit cache export keeps what can be read), or remove the whole cache"
        )
    n = count(folder, template, model)
    for shard in shards:
        if everything:
            shard.unlink()
            continue
        files.replace_file(shard, partial(_copy_without, shard, template, model))
        if not shard.stat().st_size:
            shard.unlink()
    if everything:
        for name in (".claims", ".reserve"):
            (folder / name).unlink(missing_ok=True)
    return n
