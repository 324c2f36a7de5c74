"""The cache is a dataset at any moment, survives torn lines and a full disk, and keeps templates apart."""

from __future__ import annotations

import errno
import json
import logging
import os

import pytest
from rewriting_support import labelled

import ratekit as rk
from ratekit.cli import main
from ratekit.errors import WorkError
from ratekit.rewriting import archive
from ratekit.rewriting.base import Reply
from ratekit.rewriting.cache import Cache, key_of, record_of
from ratekit.store import lines

LENGTH = rk.ATTRIBUTES["length"]


def chat(conversations):
    for i, conversation in enumerate(conversations):
        text = conversation[0]["content"].rpartition("<response>\n")[2].removesuffix("\n</response>")
        yield Reply(i, text + " More.", "stop", {"prompt": 10, "completion": 5})


def filled(folder, n=10, template=""):
    rewriter = rk.ChatRewriter(chat, LENGTH, Cache(folder), template)
    return rk.rewrite(labelled(n), "length", rewriter, progress=False)


def test_it_is_a_dataset_at_any_moment(tmp_path):
    from datasets import load_dataset

    counts = []

    def watched(conversations):
        for k, reply in enumerate(chat(conversations)):
            yield reply
            if k in (0, 5):
                files = [str(p) for p in (tmp_path / "cache").glob("*.jsonl")]
                counts.append(len(load_dataset("json", data_files=files, split="train", cache_dir=tmp_path / str(k))))

    watched.fingerprint = "watched"
    rk.rewrite(labelled(10), "length", rk.ChatRewriter(watched, LENGTH, Cache(tmp_path / "cache")), 1, progress=False)
    assert counts == [1, 6]  # each reply was on disk before the next was asked of the chat


def test_shards_of_all_kinds_load_together(tmp_path):
    from datasets import load_dataset

    filled(tmp_path)
    rk.rewrite(labelled(3), "length", "rules", cache=tmp_path, progress=False)

    def refuses(conversations):
        for i in range(len(conversations)):
            yield Reply(i, None if i else "A text.", "content_filter" if i else "stop")

    rk.rewrite(labelled(3), "length", rk.ChatRewriter(refuses, LENGTH, Cache(tmp_path)), progress=False)
    shards = [str(p) for p in tmp_path.glob("*.jsonl")]
    assert len(shards) == 3
    ds = load_dataset("json", data_files=shards, split="train", cache_dir=tmp_path / "hf")
    assert len(ds) == len(Cache(tmp_path))


@pytest.mark.parametrize("cut", [1, 2, 40, 400])
def test_a_torn_last_line_is_mended_and_asked_for_again(tmp_path, cut):
    before = filled(tmp_path)
    (shard,) = tmp_path.glob("*.jsonl")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-cut])
    cache = Cache(tmp_path)
    assert len(cache) == (20 if cut == 1 else 19)  # all but the newline is a whole reply
    assert all(record is not None for _, _, record in lines(shard))
    assert filled(tmp_path)["rewrites"] == before["rewrites"]
    assert len(Cache(tmp_path)) == 20


def test_a_torn_line_of_a_live_process_is_left_alone(tmp_path):
    writer = Cache(tmp_path)
    writer.put("0" * 32, {"text": "a"})
    (shard,) = tmp_path.glob("*.jsonl")
    with shard.open("ab") as f:
        f.write(b'{"key": "11111111111')  # as if in the middle of a write
    reader = Cache(tmp_path)
    assert len(reader) == 1
    assert shard.read_bytes().endswith(b"111")
    with shard.open("ab") as f:
        f.write(b'111111111111111111111", "text": "b"}\n')
    reader.refresh()
    assert reader.get("1" * 32) == {"key": "1" * 32, "text": "b"}
    writer.close()


def test_a_key_is_claimed_by_one_process_until_it_ends(tmp_path):
    cache = Cache(tmp_path)
    assert cache.claim("a")
    said, go_on = os.pipe(), os.pipe()
    if (child := os.fork()) == 0:
        other = Cache(tmp_path)
        os.write(said[1], bytes([other.claim("a"), other.claim("b")]))
        os.read(go_on[0], 1)
        os._exit(0)
    assert os.read(said[0], 2) == bytes([False, True])
    assert cache.claim("b") is False
    os.write(go_on[1], b"x")
    os.waitpid(child, 0)
    assert cache.claim("b")
    cache.close()


def test_the_latest_line_of_a_key_counts(tmp_path):
    cache = Cache(tmp_path)
    for text in ("old", "new"):
        cache.put("0" * 32, {"text": text})
    assert cache.get("0" * 32)["text"] == "new"
    cache.close()
    assert Cache(tmp_path).get("0" * 32)["text"] == "new"
    assert [r["text"] for r in Cache(tmp_path).records()] == ["new"]
    for k in range(20):  # shard after shard within one second
        with Cache(tmp_path) as later:
            later.put("0" * 32, {"text": str(k)})
        assert Cache(tmp_path).get("0" * 32)["text"] == str(k)


def test_another_template_is_kept_apart_and_both_hashes_are_said(tmp_path, caplog):
    filled(tmp_path)
    ours, theirs = "Make it {phrase}.\n<response>\n{response}\n</response>", rk.ChatRewriter(chat, LENGTH).template_hash
    with caplog.at_level(logging.WARNING, logger="ratekit"):
        logging.getLogger("ratekit").propagate = True
        filled(tmp_path, template=ours)
    said = caplog.text
    assert theirs in said
    assert rk.ChatRewriter(chat, LENGTH, None, ours).template_hash in said
    assert len(Cache(tmp_path)) == 40


class Disk:
    """os.write as on a disk with so many bytes left; room set aside counts as taken until it is given back."""

    def __init__(self, monkeypatch, left):
        self.left, self.real = left, os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, file, data):
        reserve = [p for p in os.listdir(os.path.dirname(os.readlink(f"/proc/self/fd/{file}"))) if p == ".reserve"]
        room = self.left if reserve else self.left + 10**6
        if len(data) > room:
            if room <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.left -= room
            return self.real(file, data[:room])  # torn: half a line
        self.left -= len(data)
        return self.real(file, data)


def test_a_full_disk_is_one_line_and_what_was_asked_for_is_kept(tmp_path, monkeypatch):
    asked = []

    def counting(conversations):
        asked.append(len(conversations))
        yield from chat(conversations)

    counting.fingerprint = "counting"
    with monkeypatch.context() as patched:
        Disk(patched, 3000)
        with pytest.raises(rk.WorkError, match="full") as caught:
            rk.rewrite(labelled(20), "length", rk.ChatRewriter(counting, LENGTH, Cache(tmp_path)), progress=False)
    assert "\n" not in str(caught.value)
    assert len(Cache(tmp_path)) == sum(asked) == 20  # one whole pass, not a reply less
    assert archive.shard_faults(tmp_path) == (20, [])
    rk.rewrite(labelled(20), "length", rk.ChatRewriter(counting, LENGTH, Cache(tmp_path)), progress=False)
    assert asked == [20, 20]


def test_a_disk_that_cannot_be_written_is_known_before_anything_is_paid(tmp_path, monkeypatch):
    def never(conversations):
        raise AssertionError("asked")

    def refused(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    cache = Cache(tmp_path)
    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(rk.WorkError, match="Read-only file system"):
        rk.ChatRewriter(never, LENGTH, cache)(["A text."], [True])


def test_the_key_is_of_model_parameters_and_messages(tmp_path):
    chats = [
        rk.OpenAIChat("a"),
        rk.OpenAIChat("b"),
        rk.OpenAIChat("a", max_tokens=5),
        rk.OpenAIChat("a", temperature=0.0),
    ]
    conversation = [{"role": "user", "content": "x"}]
    keys = {rk.ChatRewriter(c, LENGTH).key(conversation) for c in chats}
    assert len(keys) == 4
    other = rk.ChatRewriter(rk.OpenAIChat("a", base_url="http://elsewhere/v1", concurrency=3), LENGTH)
    assert other.key(conversation) in keys
    batch = rk.ChatRewriter(rk.BatchChat("a", tmp_path), LENGTH)
    assert batch.key(conversation) == other.key(conversation) == key_of(f"a|{batch.params}", conversation)


# --- ratekit cache -------------------------------------------------------------------------------------------------


def test_ls_and_verify(tmp_path, capsys):
    filled(tmp_path)
    assert main(["cache", "ls", str(tmp_path), "--format", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["attribute"], row["replies"], row["tokens_in"], row["tokens_out"]) == ("length", 20, 200, 100)
    assert main(["cache", "verify", str(tmp_path)]) == 0
    (shard,) = tmp_path.glob("*.jsonl")
    text = shard.read_text().splitlines(keepends=True)
    text[3] = text[3].replace("Review", "Revue")
    text[5] = text[5][:30] + "\n"
    shard.write_text("".join(text))
    capsys.readouterr()
    assert main(["cache", "verify", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "line 4: damaged" in out
    assert "line 6: damaged" in out


def test_export_is_a_dataset_with_a_card(tmp_path):
    from datasets import load_dataset

    filled(tmp_path / "cache")
    assert (
        main(["cache", "export", str(tmp_path / "cache"), "--out", str(tmp_path / "out"), "--source", "reviews"]) == 0
    )
    ds = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "hf"))
    assert sorted(ds["key"]) == sorted(r["key"] for r in Cache(tmp_path / "cache").records())
    assert ds[0]["messages"][0]["role"] == "user"
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Apache-2.0" in card
    assert "20 replies" in card
    assert rk.ChatRewriter(chat, LENGTH).template_hash in card


def test_push_uploads_the_export(tmp_path, monkeypatch, capsys):
    import huggingface_hub

    calls = []

    class Hub:
        def create_repo(self, repo, **given):
            calls.append((repo, given["private"]))

        def upload_folder(self, repo_id, folder_path, **given):
            calls.append((repo_id, sorted(os.listdir(folder_path))))

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    filled(tmp_path)
    assert main(["cache", "push", "me/rewrites", str(tmp_path)]) == 0
    assert calls == [("me/rewrites", True), ("me/rewrites", ["README.md", "data"])]
    assert "https://huggingface.co/datasets/me/rewrites" in capsys.readouterr().out


def test_rm_deletes_what_is_meant_and_never_under_a_writer(tmp_path):
    filled(tmp_path)
    filled(tmp_path, template="Make it {phrase}.\n<response>\n{response}\n</response>")
    theirs = rk.ChatRewriter(chat, LENGTH).template_hash
    assert main(["cache", "rm", str(tmp_path), "--template", theirs, "--yes"]) == 0
    assert len(Cache(tmp_path)) == 20
    writer = Cache(tmp_path)
    writer.put("0" * 32, {"text": "a"})
    assert main(["cache", "rm", str(tmp_path), "--yes"]) == 2
    writer.close()
    assert main(["cache", "rm", str(tmp_path), "--yes"]) == 0
    assert list(tmp_path.glob("*.jsonl")) == []


def test_rm_of_a_part_keeps_what_it_cannot_read_and_never_drops_what_it_did_not_see(tmp_path, monkeypatch, capsys):
    filled(tmp_path)
    filled(tmp_path, template="Make it {phrase}.\n<response>\n{response}\n</response>")
    theirs = rk.ChatRewriter(chat, LENGTH).template_hash
    shard = next(path for path in tmp_path.glob("*.jsonl") if theirs.encode() in path.read_bytes())
    damaged = b'{"torn": "in the mid'
    shard.write_bytes(shard.read_bytes() + damaged + b"\n")
    monkeypatch.setattr("ratekit.store.LONGEST", max(map(len, shard.read_bytes().splitlines())))  # its longest line
    before = {path: path.read_bytes() for path in tmp_path.glob("*.jsonl")}
    assert main(["cache", "rm", str(tmp_path), "--template", theirs, "--yes"]) == 2
    assert "is not read" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.glob("*.jsonl")} == before
    monkeypatch.undo()
    assert main(["cache", "rm", str(tmp_path), "--template", theirs, "--yes"]) == 0
    assert shard.read_bytes() == damaged + b"\n"
    assert len(Cache(tmp_path)) == 20


def test_no_cache_there_is_one_line(tmp_path, capsys):
    assert main(["cache", "ls", str(tmp_path / "nowhere")]) == 2
    assert "no cache at" in capsys.readouterr().err
    assert main(["cache", "export", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "is empty" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no such files here")
def test_a_cache_from_a_stranger_leads_nowhere_and_ends(tmp_path, caplog):
    about = {"model": "m", "params": "", "template": "", "attribute": "length", "phrase": "longer", "messages": []}
    reply = record_of(**about, text="A text.", finish_reason="stop", usage={})
    folder = tmp_path / "cache"
    with Cache(folder) as cache:
        cache.put("a" * 32, reply)
    (tmp_path / "secret").write_text('{"key": "' + "b" * 32 + '", "text": "CANARY"}\n')
    os.mkfifo(folder / "z1.jsonl")
    (folder / "z2.jsonl").symlink_to("/dev/zero")
    (folder / "z3.jsonl").symlink_to("../secret")
    with (folder / "z4.jsonl").open("wb") as f:
        f.truncate(1 << 40)
    (folder / ".reserve").unlink(missing_ok=True)
    (folder / ".reserve").symlink_to("../secret")
    reader = Cache(folder)
    assert [record["text"] for record in reader.records()] == ["A text."]
    assert reader.get("b" * 32) is None
    assert "z4.jsonl holds a line of more than 64 MiB" in caplog.text
    assert archive.shard_faults(folder)[0] == 2
    assert [line.split(":")[0].rpartition("/")[2] for line in archive.shard_faults(folder)[1]] == [
        "z1.jsonl", "z2.jsonl", "z3.jsonl", "z4.jsonl, line 1"]  # fmt: skip
    with pytest.raises(WorkError):
        reader.put("c" * 32, reply)
    assert (tmp_path / "secret").stat().st_size < 100
