"""`verify` names what differs, for each of many planted changes, and names nothing where all is as it was written."""

from __future__ import annotations

import json
import shutil

import pytest

import ratekit as rk
from ratekit import files
from ratekit.audits import folder as on_disk
from ratekit.cli import main
from ratekit.errors import InputError
from ratekit.rewriting.base import Reply
from ratekit.scoring.llm_judges import LLMJudge
from ratekit.scoring.rubrics import Rubric


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A card in a folder, whose rows come from a file."""
    place = tmp_path_factory.mktemp("kept")
    texts = [
        f"The cover {i} is plain{', maybe' * (i % 2)}.{' It is.' * (i % 3)} It is teh 3 of {i}." for i in range(12)
    ]
    data = place / "mine.jsonl"
    data.write_text("\n".join(json.dumps({"prompt": f"Of {i}?", "response": t}) for i, t in enumerate(texts)))
    found = rk.card(["words", "vader"], str(data), attributes=["length", "hedging"], n=10, seed=3, depth=2,
                    out=place / "card", progress=False)  # fmt: skip
    assert len(found.table) == 4
    return place / "card"


@pytest.fixture
def folder(kept, tmp_path):
    shutil.copytree(kept, tmp_path / "a")
    return tmp_path / "a"


def in_text(name, old, new):
    """A change of a file, at one place; None for its loss."""

    def change(folder):
        path = folder / name
        if old is None:
            path.unlink()
            return
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return change


def in_json(name, key, value):
    def change(folder):
        record = json.loads((folder / name).read_text())
        inner = record
        for k in key[:-1]:
            inner = inner[k]
        assert inner[key[-1]] != value
        inner[key[-1]] = value
        (folder / name).write_text(json.dumps(record, indent=2) + "\n")

    return change


def in_rows(column, row, new, hashed=True):
    """A change of one cell of the dataset; with all its hashes made to fit where `hashed`."""

    def change(folder):
        ds = files.read(folder / "dataset")
        values = ds[column][:]
        values[row] = new(values[row])
        record = json.loads((folder / "dataset" / "record.json").read_text())
        changed = ds.remove_columns(column).add_column(column, values, feature=ds.features[column])
        changed.info.description = ds.info.description
        changed.select_columns(ds.column_names).save_to_disk(str(folder / "new"))
        shutil.rmtree(folder / "dataset")
        (folder / "new").rename(folder / "dataset")
        if hashed:
            record["dataset"] = files.fingerprint(folder / "dataset")
            run = json.loads((folder / "run.json").read_text()) | {"dataset": record["dataset"]}
            (folder / "run.json").write_text(json.dumps(run))
        (folder / "dataset" / "record.json").write_text(json.dumps(record))

    return change


def fitted(change):
    """A change of the dataset, after which all hashes fit; each record's own too."""

    def do(folder):
        ds = files.read(folder / "dataset")
        about, record = ds.info.description, json.loads((folder / "dataset" / "record.json").read_text())
        changed = change(ds)
        changed.info.description = about
        changed.save_to_disk(str(folder / "new"))
        shutil.rmtree(folder / "dataset")
        (folder / "new").rename(folder / "dataset")
        hashes = {"dataset": files.fingerprint(folder / "dataset")}
        (folder / "dataset" / "record.json").write_text(json.dumps(record | hashes))
        on_disk.write_record(folder, on_disk.read_record(folder / "run.json") | hashes)

    return do


def row_gone(folder):
    lines = (folder / "effects.csv").read_text().splitlines(keepends=True)
    (folder / "effects.csv").write_text("".join(lines[:-1]))


def digit(name, column):
    """The last digit of a number in a table, one more."""

    def change(folder):
        head, first, *rest = (folder / name).read_text().splitlines(keepends=True)
        cells, i = first.split(","), head.strip().split(",").index(column)
        cells[i] = repr(float(cells[i]) * (1 + 1e-6) + 1e-9)
        (folder / name).write_text(head + ",".join(cells) + "".join(rest))

    return change


CHANGES = {
    "estimate": (digit("effects.csv", "estimate"), ["effects.csv", "row 1", "length, words", "estimate"]),
    "se": (digit("effects.csv", "se"), ["effects.csv", "row 1", " se "]),
    "p": (digit("effects.csv", "p_value"), ["effects.csv", "p_value"]),
    "n": (digit("effects.csv", "n"), ["effects.csv", " n "]),
    "in SDs": (digit("effects.csv", "estimate_sd"), ["effects.csv", "estimate_sd"]),
    "an effect's row": (row_gone, ["effects.csv", "rows"]),
    "no table": (in_text("effects.csv", None, None), ["effects.csv: is missing"]),
    "picture": (lambda f: (f / "effects.png").write_bytes(b"other"), ["effects.png"]),
    "a reward": (in_rows("reward/words", 2, lambda r: [r[0], r[1] + 1, r[2]]), ["row 3", "reward/words"]),
    "a reward, not hashed": (in_rows("reward/words", 2, lambda r: [r[0], r[1] + 1, r[2]], False), ["dataset: is not"]),
    "a null": (in_rows("reward/vader", 0, lambda r: [r[0], None, r[2]]), ["row 1", "reward/vader", "None"]),
    "a response": (in_rows("response", 4, lambda t: t + " So."), ["row 5", "response", "So."]),
    "a rewrite": (in_rows("rewrites", 1, lambda c: [c[0] + " So.", c[1]]), ["row 2", "rewrites"]),
    "a status": (in_rows("rewrite_status", 1, lambda c: ["refused", c[1]]), ["row 2", "rewrite_status"]),
    "a label": (in_rows("treated", 3, lambda t: not t), ["row 4", "treated"]),
    "a prompt's id": (in_rows("prompt_id", 3, lambda t: "other"), ["row 4", "prompt_id"]),
    "the seed": (in_json("run.json", ["settings", "seed"], 4), ["run.json", "settings"]),
    "both seeds": (
        lambda f: [in_json(n, ["settings", "seed"], 4)(f) for n in ("run.json", "dataset/record.json")],
        ["dataset: ", "rows", "derived"],
    ),
    "rows counted": (in_json("run.json", ["n_rows"], 99), ["n_rows 99"]),
    "drops counted": (in_json("run.json", ["dropped", "rewards", "words"], 5), ["dropped"]),
    "a version": (in_json("run.json", ["versions", "numpy"], "1.0"), ["versions"]),
    "a note": (in_json("run.json", ["notes"], []), ["notes"]),
    "a column more": (fitted(lambda d: d.add_column("said", ["x"] * len(d))), ["the column 'said'"]),
    "whose reward": (in_json("dataset/record.json", ["rewards", "words"], "other"), ["rewards"]),
    "data": (
        lambda f: (f.parent / "moved").mkdir() or in_json("run.json", ["inputs", "data"], "00")(f), ["data", "inputs"]
    ),
    "card, a number": (digit("card.csv", "effect"), ["card.csv: line 2"]),
    "card, a word": (in_text("card.html", "cannot tell", "trust"), ["card.html"]),
    "card, JSON": (in_json("card.json", ["suite"], "0"), ["card.json"]),
    "card, Markdown": (in_text("card.md", "hedging", "nothing"), ["card.md"]),
}  # fmt: skip


def test_an_audit_as_it_was_written_has_no_difference_and_each_note_is_said_once(kept, caplog):
    with caplog.at_level("INFO", "ratekit"):
        found = rk.verify(kept)
    said = [record.getMessage() for record in caplog.records]
    assert any("no standard error" in line for line in said), said
    assert sorted(said) == sorted(set(said))
    assert found.differences == ()
    assert "rows, labels and rewrites" in found.checked
    assert "card" in found.checked


TABLES = ["estimate", "se", "p", "n", "in SDs", "picture", "the seed", "rows counted", "drops counted", "a version",
          "a note", "card, a number", "card, a word", "card, JSON", "card, Markdown"]  # fmt: skip
ROWS = ["a reward", "a null", "a rewrite", "a status", "a label", "a prompt's id", "a column more", "whose reward"]


@pytest.mark.parametrize("several", [TABLES, ROWS], ids=["tables", "rows"])
def test_each_of_several_planted_changes_is_named(folder, several):
    for what in several:
        CHANGES[what][0](folder)
    found = rk.verify(folder).differences
    for what in several:
        assert any(all(word in line for word in CHANGES[what][1]) for line in found), (what, found)


@pytest.mark.slow
@pytest.mark.parametrize("what", CHANGES)
def test_a_planted_change_is_named(folder, what):
    change, said = CHANGES[what]
    change(folder)
    found = rk.verify(folder).differences
    assert any(all(word in line for word in said) for line in found), found


# --- a judge's audit, and changes whose hashes are made to fit -----------------------------------------------------


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """An audit by a judge of two criteria, whose model is gone."""

    def chat(conversations):
        for i, asked in enumerate(conversations):
            text = asked[-1]["content"]
            yield Reply(i, "It depends." if "12" in text else f"truth: {3 + text.count(' is ')}\nstyle: 7", "stop")

    place = tmp_path_factory.mktemp("judged")
    rows = [{"prompt": f"Of {i}?", "response": f"The cover {i} is plain.{' It is.' * (i % 3)}"} for i in range(30)]
    judge = LLMJudge(chat, Rubric(criteria=("truth", "style")), name="j")
    rk.audit(rows, {"j": judge}, "length", rewriter="rules", depth=4, out=place / "a", progress=False)
    return place / "a"


def cell(column, row, new):
    def change(ds):
        values = ds[column][:]
        values[row] = new(values[row])
        rest = ds.remove_columns(column).add_column(column, values, feature=ds.features[column])
        return rest.select_columns(ds.column_names)

    return fitted(change)


def in_both(key, value):
    return lambda f: [in_json(name, key, value)(f) for name in ("run.json", "dataset/record.json")]


FITTED = {
    "a judge's score": (cell("reward/j", 2, lambda r: [r[0], r[1] + 1, *r[2:]]), ["row 3", "reward/j", "in scores/"]),
    "a criterion": (cell("reward/j/truth", 2, lambda r: [*r[:4], 9.0]), ["row 3", "reward/j/truth", "in scores/"]),
    "a null made a number": (cell("reward/j", 12, lambda r: [7.0] * 5), ["row 13", "reward/j", "None"]),
    "a status": (cell("reward_status/j", 4, lambda s: ["unparsable", *s[1:]]), ["row 5", "text 1", "unparsable"]),
    "the fourth rewrite": (cell("rewrites", 3, lambda c: [*c[:3], c[3] + " So."]), ["row 4", "rewrites"]),
    "the fourth status": (cell("rewrite_status", 3, lambda s: [*s[:3], "refused"]), ["row 4", "rewrite_status"]),
    "a row twice": (fitted(lambda d: d.select([0, *range(len(d))])), ["n_rows 30, 31 derived"]),
    "rows in another order": (fitted(lambda d: d.select([1, 0, *range(2, len(d))])), ["effects.csv"]),
    "what it cost": (in_both(["rewriting", "cost"], 3.5), ["run.json: is not as it was written"]),
    "how long it took": (in_json("run.json", ["seconds"], 1e6), ["run.json: is not as it was written"]),
    "a version": (in_both(["versions", "numpy"], "1.0"), ["run.json: is not as it was written"]),
}  # fmt: skip


def test_a_judges_audit_as_it_was_written_has_no_difference(judged):
    found = rk.verify(judged)
    assert found.differences == ()
    assert "rewards" in found.checked
    assert not any("rewards" in line for line in found.unchecked)


@pytest.mark.slow
@pytest.mark.parametrize("what", FITTED)
def test_a_change_whose_hashes_fit_is_named(judged, tmp_path, what):
    change, said = FITTED[what]
    shutil.copytree(judged, tmp_path / "a")
    change(tmp_path / "a")
    found = rk.verify(tmp_path / "a").differences
    assert any(all(word in line for word in said) for line in found), found


@pytest.mark.slow
def test_a_report_is_made_again(judged, tmp_path):
    shutil.copytree(judged, tmp_path / "a")
    rk.report(tmp_path / "a")
    assert "report.html" in rk.verify(tmp_path / "a").checked
    in_text("report.html", "do not trust", "trust")(tmp_path / "a")
    (line,) = rk.verify(tmp_path / "a").differences
    assert line.startswith("report.html: line")


def test_several_changes_whose_hashes_fit_are_named(judged, tmp_path):
    shutil.copytree(judged, tmp_path / "a")
    several = ["a judge's score", "a criterion", "a null made a number", "a status", "what it cost"]
    for what in several:
        FITTED[what][0](tmp_path / "a")
    found = rk.verify(tmp_path / "a").differences
    for what in several:
        assert any(all(word in line for word in FITTED[what][1]) for line in found), (what, found)


def test_rows_in_memory_are_labelled_and_rewritten_again(kept, tmp_path):
    rows = [{"prompt": f"{i}?", "response": f"The cover {i} is plain.{' It is.' * (i % 3)}"} for i in range(9)]
    own = {"mine": lambda p, r: [float(len(x)) for x in r]}
    rk.audit(rows, own, "length", rewriter="rules", out=tmp_path / "a", progress=False)
    found = rk.verify(tmp_path / "a")
    assert found.differences == ()
    assert any("rewards 'mine'" in line for line in found.unchecked)
    assert any("rows were drawn" in line for line in found.unchecked)
    other = rk.verify(tmp_path / "a", {"mine": lambda p, r: [float(len(x.split())) for x in r]})
    assert len(other.differences) == 9
    in_rows("treated", 3, lambda t: not t)(tmp_path / "a")
    assert any("row 4 (length): treated" in line for line in rk.verify(tmp_path / "a").differences)


def test_the_command(folder, tmp_path, capsys):
    assert main(["verify", str(folder)]) == 0
    digit("effects.csv", "estimate")(folder)
    assert main(["verify", str(folder)]) == 1
    out, err = capsys.readouterr()
    assert "effects.csv: row 1" in out
    assert "numbers or files are not as they are derived" in err.splitlines()[-1]
    assert main(["verify", str(tmp_path)]) == 2
    with pytest.raises(InputError, match="holds no audit"):
        rk.verify(tmp_path)
