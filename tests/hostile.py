"""Files and folders from strangers, by kind, and the commands that are given them: one line, in bounded time and memory."""
# ruff: noqa: E501

from __future__ import annotations

import gzip
import json
import os
import shutil
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

SECONDS, WAIT, MEMORY = 10, 60, 2 << 30  # of processor time, of waiting (the machine may be busy), bytes
Make = Callable[[Path], object]

DEEP = "[" * 100_000
DEEP_OBJECT = '{"a":' * 100_000


def text(said: str | bytes) -> Make:
    """A file that holds this."""
    return lambda path: path.write_bytes(said if isinstance(said, bytes) else said.encode())


def zipped(said: bytes, times: int = 1, twice: bool = False) -> Make:
    """A gzip file of this, so many times over; packed again where `twice`."""

    def make(path: Path) -> None:
        raw = gzip.compress(said * times)
        path.write_bytes(gzip.compress(raw) if twice else raw)

    return make


def link(target: str) -> Make:
    """A link to another place."""
    return lambda path: path.symlink_to(target)


def sparse(path: Path) -> None:
    """A terabyte of zeros, which takes no disk."""
    with path.open("wb") as f:
        f.truncate(1 << 40)


# What is no file that could be read, whatever it is called.
NO_FILES: dict[str, Make] = {
    "fifo": os.mkfifo, "device": link("/dev/zero"), "loop": lambda path: path.symlink_to(path.name),
    "folder": Path.mkdir, "terabyte": sparse, "empty": text(""), "nul": text("\0" * 1000), "latin": text(b"\xe9\xff" * 9),
}  # fmt: skip
NO_JSON: dict[str, Make] = {
    "deep": text(DEEP), "deep object": text(DEEP_OBJECT), "a number": text("3"), "a list": text("[1, 2]"),
    "null": text("null"), "cut": text('{"settings": {"data'), "long number": text('{"a": ' + "9" * 100_000 + "}"),
    "nan": text('{"n": NaN}'), "strings": text('{"settings": "x", "rewards": 3, "table": {}, "suite": []}'),
}  # fmt: skip


def parquet(change: Callable[[bytes], bytes]) -> Make:
    """A Parquet file whose bytes are changed."""

    def make(path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"prompt_id": ["a"], "response": ["A text."]}), path)
        path.write_bytes(change(path.read_bytes()))

    return make


def repeated(path: Path) -> None:
    """A megabyte of text, a hundred thousand times over, in a small Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), ["x" * (1 << 20)])
    pq.write_table(pa.table({"response": texts}), path, compression="zstd", store_schema=False)


def wide(path: Path) -> None:
    """A CSV of a million columns."""
    path.write_text(",".join(f"c{i}" for i in range(1_000_000)) + "\n" + ",".join("1" * 1_000_000) + "\n")


TABLES: dict[str, Make] = {
    **{f"{kind}.jsonl": make for kind, make in NO_FILES.items()},
    **{f"{kind}.csv": NO_FILES[kind] for kind in ("fifo", "device", "terabyte", "nul")},
    **{f"{kind}.parquet": NO_FILES[kind] for kind in ("fifo", "device", "loop", "terabyte", "empty", "nul")},
    **{f"{kind}.json": make for kind, make in NO_JSON.items()},
    "wide.csv": wide, "wide.tsv": lambda path: path.write_text("\t".join("ab") * 1_000_000),
    "deep.jsonl": text(DEEP + "\n"), "inner.jsonl": text('{"response": ' + "[" * 100_000 + "]" * 100_000 + "}\n"),
    "long-number.jsonl": text('{"response": "x", "treated": ' + "9" * 5000 + "}\n"),
    "bomb.jsonl.gz": zipped(b" ", 64 << 20), "bomb.csv.gz": zipped(b"a,", 32 << 20),
    "bomb.json.gz": zipped(b"[", 64 << 20),
    "twice.jsonl.gz": zipped(b" ", 256 << 20, twice=True),
    "cut.jsonl.gz": text(gzip.compress(b'{"response": "x"}\n' * 9999)[:-20]),
    "quotes.csv": text('response\n"' + "x\n" * 1_000_000), "one-line.jsonl": text('{"response": "' + "x" * (70 << 20)),
    "bomb.parquet": repeated, "cut.parquet": parquet(lambda raw: raw[:-30]), "no-foot.parquet": parquet(lambda raw: raw[:-8] + b"\xff\xff\xff\x7fPAR1"),
    "holes.parquet": parquet(lambda raw: raw[:4] + b"\0" * (len(raw) - 200) + raw[-196:]),
    "keys.jsonl": text("{" + ",".join(f'"c{i}": 1' for i in range(200_000)) + "}\n"),
}  # fmt: skip


def saved(change: Callable[[Path], object]) -> Make:
    """A saved dataset of which something is changed."""

    def make(path: Path) -> None:
        from datasets import Dataset

        Dataset.from_dict({"prompt_id": ["a"], "response": ["A text."]}).save_to_disk(str(path))
        change(path)

    return make


def replaced(name: str, make: Make) -> Callable[[Path], object]:
    """Of a folder: that file is made otherwise."""

    def change(folder: Path) -> None:
        place = folder / name
        shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
        make(place)

    return change


def edited(name: str, **told: Any) -> Callable[[Path], object]:
    """Of a folder: these keys of a JSON file are changed."""
    return lambda folder: (folder / name).write_text(json.dumps({**json.loads((folder / name).read_text()), **told}))


SHARD = "data-00000-of-00001.arrow"
DATASETS: dict[str, Make] = {
    **{f"state {kind}": saved(replaced("state.json", NO_JSON[kind])) for kind in ("deep", "a list", "null", "cut")},
    **{f"info {kind}": saved(replaced("dataset_info.json", NO_JSON[kind])) for kind in ("deep", "a number", "cut")},
    **{f"rows {kind}": saved(replaced(SHARD, NO_FILES[kind])) for kind in ("fifo", "device", "empty", "nul", "loop")},
    "files above": saved(edited("state.json", _data_files=[{"filename": "../../../etc/passwd"}])),
    "files elsewhere": saved(edited("state.json", _data_files=[{"filename": "/dev/zero"}])),
    "files none": saved(edited("state.json", _data_files=[{"filename": "not-there.arrow"}])),
    "files odd": saved(edited("state.json", _data_files=3)),
}  # fmt: skip


def header(told: Any, length: int | None = None, data: bytes = b"\0" * 64) -> Make:
    """A safetensors file with this header."""
    raw = told if isinstance(told, bytes) else json.dumps(told).encode()
    return text(struct.pack("<Q", len(raw) if length is None else length) + raw + data)


def tensor(dtype: Any = "F32", shape: Any = (4, 4), offsets: Any = (0, 64)) -> dict[str, Any]:
    """What a header says of a tensor."""
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


HEADERS: dict[str, Make] = {
    "length of 2^63": header({}, 1 << 63), "length of 2^64-1": header({}, (1 << 64) - 1), "length of 0": header(b"", 0),
    "length past the end": header({"w": tensor()}, 1 << 20), "length of 90 MB": header({"w": tensor()}, 90 << 20),
    "eight bytes": text(b"\0" * 8), "three bytes": text(b"abc"), "no JSON": header(b"{{{{"), "deep": header(DEEP.encode()),
    "a list": header([1]), "null": header(b"null"), "negative shape": header({"w": tensor(shape=[-1, 4])}),
    "huge shape": header({"w": tensor(shape=[1 << 62, 1 << 62])}), "shape of text": header({"w": tensor(shape="4")}),
    "another size": header({"w": tensor(shape=[5, 4])}), "unknown dtype": header({"w": tensor("F99")}),
    "dtype of number": header({"w": tensor(3)}), "offsets past the end": header({"w": tensor(offsets=[0, 1 << 40])}),
    "offsets backwards": header({"w": tensor(offsets=[64, 0])}), "offsets negative": header({"w": tensor(offsets=[-64, 0])}),
    "offsets overlapping": header({"w": tensor(), "v": tensor()}), "offsets with a hole":
    header({"w": tensor(), "v": tensor(offsets=[80, 144])}, data=b"\0" * 144), "offsets one": header({"w": tensor(offsets=[0])}),
    "data cut": header({"w": tensor()}, data=b"\0" * 10), "data more": header({"w": tensor()}, data=b"\0" * 640),
    "twice one name": header(b'{"w":' + json.dumps(tensor()).encode() + b',"w":' + json.dumps(tensor()).encode() + b"}"),
    "metadata of numbers": header({"__metadata__": {"a": 3}, "w": tensor()}), "no tensor": header({}, data=b""),
    "a million tensors": header({f"w{i}": tensor(shape=[0], offsets=[0, 0]) for i in range(200_000)}, data=b""),
}  # fmt: skip
BIG = 10**12
CONFIGS: dict[str, dict[str, Any]] = {
    "layers many": {"num_hidden_layers": BIG}, "layers negative": {"num_hidden_layers": -1},
    "layers of text": {"num_hidden_layers": "three"}, "layers null": {"num_hidden_layers": None},
    "width many": {"hidden_size": BIG}, "width zero": {"hidden_size": 0}, "heads zero": {"num_attention_heads": 0},
    "heads many": {"num_attention_heads": BIG}, "inner many": {"intermediate_size": BIG}, "vocab many": {"vocab_size": BIG},
    "vocab list": {"vocab_size": [480]}, "labels many": {"num_labels": BIG}, "labels odd": {"id2label": [1, 2]},
    "labels million": {"id2label": {str(i): "x" for i in range(200_000)}}, "kind a number": {"model_type": 3},
    "kind unknown": {"model_type": "no-such-kind"}, "kind a path": {"model_type": "../../x"},
    "architecture unknown": {"architectures": ["NoSuchModel"]}, "architecture a number": {"architectures": 3},
    "dtype odd": {"dtype": "float3", "torch_dtype": 7}, "pad outside": {"pad_token_id": BIG},
    "pad of text": {"pad_token_id": "x"}, "rope odd": {"rope_parameters": 3}, "positions many": {"max_position_embeddings": BIG},
    "code of its own": {"auto_map": {"AutoConfig": "x.C", "AutoModelForSequenceClassification": "x.M"}},
    "code from above": {"auto_map": {"AutoConfig": "../../x.C"}}, "base elsewhere": {"_name_or_path": "/dev/zero"},
}  # fmt: skip
TEMPLATES = {
    "endless": "{% for i in range(99999) %}{% for j in range(99999) %}{% for k in range(99999) %}{% endfor %}{% endfor %}"
    "{% endfor %}",
    "doubling": "{% set n = namespace(s='x' * 1000) %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "long": "{{ 'x' * 3000000 }}", "power": "{{ 9 ** 9 ** 9 }}", "times": "{{ 'x' * 9999999999 }}",
    "macro": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "escape": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "nested": "{% if 1 %}" * 5000 + "{% endif %}" * 5000, "syntax": "{% for %}", "format": "{{ '%999999999d' % 1 }}",
    "join": "{{ (range(99999) | list * 9999) | join }}",
}  # fmt: skip
FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "model.safetensors")
INDEX = "model.safetensors.index.json"


def beside(make: Make) -> Make:
    """Of a folder: one file more."""
    return lambda folder: make(folder / "more.jsonl")


def index(where: Any) -> Callable[[Path], object]:
    """Of a model's folder: the weights are where an index says."""

    def change(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "one.safetensors")
        (folder / INDEX).write_text(where if isinstance(where, str) else json.dumps({"weight_map": where}))

    return change


MODELS: dict[str, Make] = {
    **{f"weights: {kind}": replaced("model.safetensors", make) for kind, make in HEADERS.items()},
    **{f"config: {kind}": edited("config.json", **told) for kind, told in CONFIGS.items()},
    **{f"config: {kind}": replaced("config.json", make) for kind, make in NO_JSON.items()},
    **{f"template: {kind}": replaced("chat_template.jinja", text(said)) for kind, said in TEMPLATES.items()},
    **{f"{name}: {kind}": replaced(name, make) for name in FILES for kind, make in NO_FILES.items()
       if kind in ("fifo", "device", "loop", "folder", "terabyte")},
    **{f"{name}: link out": replaced(name, link("../../secret.json")) for name in FILES},
    **{f"tokenizer: {kind}": replaced("tokenizer.json", make) for kind, make in NO_JSON.items()},
    **{f"tokenizer config: {kind}": replaced("tokenizer_config.json", NO_JSON[kind]) for kind in ("deep", "a list", "cut")},
    "index above": index({"w": "../x.safetensors"}), "index elsewhere": index({"w": "/dev/zero"}),
    "index without a shard": index({"w": "two.safetensors"}), "index odd": index({"w": 3}), "index deep": index(DEEP),
    "index empty": index({}), "index list": index("[1]"), "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "pickled": lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
    "nothing in it": lambda folder: [path.unlink() for path in folder.iterdir()],
    "adapter deep": lambda folder: (folder / "adapter_config.json").write_text(DEEP),
    "adapter odd": lambda folder: (folder / "adapter_config.json").write_text('{"r": "x", "base_model_name_or_path": 3}'),
    "adapter elsewhere": lambda folder: (folder / "adapter_config.json").write_text(
        json.dumps({"r": 10**9, "peft_type": "LORA", "base_model_name_or_path": "../../../etc"})),
}  # fmt: skip
RUNS: dict[str, Make] = {
    **{f"record {kind}": replaced("run.json", make) for kind, make in {**NO_JSON, **NO_FILES}.items() if kind != "nan"},
    **{f"rows' record {kind}": replaced("dataset/record.json", make) for kind, make in NO_JSON.items() if kind != "nan"},
    **{f"rows {kind}": replaced(f"dataset/{SHARD}", NO_FILES[kind]) for kind in ("fifo", "device", "empty", "nul")},
    **{f"effects {kind}": replaced("effects.csv", NO_FILES[kind]) for kind in ("fifo", "device", "folder", "terabyte")},
    "effects wide": replaced("effects.csv", wide), "settings odd": edited("run.json", settings=[1], rewards="x"),
    "dataset above": replaced("dataset", link("../../..")),
}  # fmt: skip
CARDS: dict[str, Make] = {
    f"card {kind}": replaced("card.json", make) for kind, make in {**NO_JSON, **NO_FILES}.items()
}  # fmt: skip
CACHES: dict[str, Make] = {
    **{f"shard {kind}": beside(make) for kind, make in NO_FILES.items()},
    **{f"line {kind}": beside(make) for kind, make in NO_JSON.items()},
}  # fmt: skip


class Case(NamedTuple):
    """Something hostile, and the command that is given it; a command may do without what is damaged (exit code 0)."""

    kind: str
    name: str
    make: Make
    command: str


COMMANDS: dict[str, tuple[dict[str, Make], tuple[str, ...]]] = {
    "table": (TABLES, ("estimate {x}", "score {x} -r words --out {out}", "audit --data {x} -a length -r words --out {out}",
                       "rewrite {x} -a length --out {out}", "report {x} --out {out}/p.html", "gate {x} --max length=1",
                       "verify {x}", "diagnose {x}", "card --data {x} -r words --out {out}", "plan {x} --se 1",
                       "discover {x} -r words --out {out}", "merge audit {a} {b} --data {data} --pairs {x} --out {out}",
                       "score {data} -r pairwise:{a},{x} --out {out}", "rewrite {data} -a length --rewriter replay:{x} --out {out}")),
    "saved dataset": (DATASETS, ("estimate {x}", "report {x}", "verify {x}", "gate {x} --max length=1")),
    "model": (MODELS, ("merge {x} {b} -m linear --out {out}", "score {data} -r {x} --out {out}", "check-reward {x}",
                       "rewrite {data} -a length --rewriter hf:{x} --out {out}")),
    "run": (RUNS, ("report {x}", "gate {x} --max length=1", "verify {x}", "diagnose {x}", "audit --data {data} -a length -r words --out {x}")),
    "card": (CARDS, ("leaderboard {x}", "report {x}", "verify {x}")),
    "cache": (CACHES, ("cache ls {x}", "cache verify {x}", "cache export {x} --out {out}")),
    "file": ({**NO_FILES, **NO_JSON}, ("check-reward {a} --reference {x}", "rewrite {data} -a length --rewriter openai:m --template {x} --out {out} --dry-run")),
}  # fmt: skip


def cases(every: bool = True) -> Iterator[Case]:
    """Each kind of hostility with each command that reads such a thing; else with one command, taken in turn."""
    for kind, (made, commands) in COMMANDS.items():
        for number, (name, make) in enumerate(made.items()):
            for command in commands if every else [commands[number % len(commands)]]:
                yield Case(kind, name, make, command)


class Found(NamedTuple):
    """How a command ended."""

    code: int
    seconds: float
    memory: int
    said: str
    fault: str  # "" where it is as it should be


class Hostile:
    """What is good, in a folder; of it a copy is damaged for each case."""

    def __init__(self, folder: Path) -> None:
        import tiny
        from deaths import Places
        from rewriting_support import labelled

        import ratekit as rk

        self.folder = folder
        (folder / "secret.json").write_text('{"secret": "CANARY"}')
        rows = rk.rewrite(labelled(12), "length", "rules", progress=False)
        rk.score(rows, "words", progress=False).to_parquet(folder / "data.parquet")
        for seed, name in enumerate("ab"):
            tiny.save(folder / name, "llama", seed=seed)
        rk.card("words", labelled(24), attributes=["length"], out=folder / "card", progress=False)
        places = Places(folder)
        places["run"], places["cache"]

    def run(self, case: Case) -> Found:
        """A case in a process of its own, which begins with everything imported."""
        with tempfile.TemporaryDirectory(dir=self.folder) as place:
            x = Path(place) / (case.name if case.kind == "table" else "x")
            source = {"model": "a", "run": "run", "card": "card", "cache": "cache"}.get(case.kind)
            if source is not None:
                shutil.copytree(self.folder / source, x)
            case.make(x)
            places = {n: self.folder / n for n in ("a", "b")}
            words = case.command.format(x="{x}", data=self.folder / "data.parquet", out=Path(place) / "out", **places)
            return self._ended([str(x) if w == "{x}" else w.replace("{x}", str(x)) for w in words.split()], Path(place))

    def _ended(self, call: list[str], place: Path) -> Found:
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            os._exit(_child(call, place / "said", self.folder))
        while True:
            ended, status, used = os.wait4(child, os.WNOHANG)
            if ended:
                break
            if time.monotonic() - began > WAIT:
                os.kill(child, 9)
                _, status, used = os.wait4(child, 0)
                break
            time.sleep(0.01)
        code, seconds = os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime
        memory = used.ru_maxrss * 1024
        said = (place / "said").read_text(errors="replace") if (place / "said").exists() else ""
        lines = [line for line in said.splitlines() if line.startswith("ratekit: ")]
        fault = (
            f"it ended with {code}" if code not in (0, 1, 2, 3, 4)
            else "a traceback" if "Traceback" in said
            else f"{len(lines)} lines" if code in (1, 2) and len(lines) != 1
            else "a long line" if any(len(line) > 1000 for line in lines)
            else "the secret was shown" if "CANARY" in said
            else f"{seconds:.1f} s" if seconds > SECONDS
            else f"{memory / 2**30:.1f} GiB" if memory > MEMORY
            else ""
        )  # fmt: skip
        return Found(code, seconds, memory, said, fault)


def _child(call: list[str], said: Path, folder: Path) -> int:
    import resource

    from ratekit.cli import main

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (2 * SECONDS, 2 * SECONDS))
    handle = os.open(said, os.O_WRONLY | os.O_CREAT)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.stdout, sys.stderr = (os.fdopen(os.dup(n), "w", buffering=1) for n in (1, 2))
    os.chdir(folder)
    try:
        return main(call)
    except BaseException:
        import traceback

        traceback.print_exc()
        return 99
