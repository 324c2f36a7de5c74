"""One door in: every shape that the field writes, through every stage; each column read once, or refused by its row."""

from __future__ import annotations

import gzip
import inspect
import json
import os
import textwrap
import uuid

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict

import ratekit as rk
from ratekit import files
from ratekit.cli import main
from ratekit.errors import InputError

SHORT, LONG = "Because it is so.", "Because it is so, and it has been so for as long as anyone here can say."
TEXTS = [f"{(SHORT, LONG)[i % 2]} Case {i}." for i in range(12)]


def user(text):
    return [{"role": "user", "content": text}]


def assistant(text):
    return [{"role": "assistant", "content": text}]


def parts(text):
    half = len(text) // 2
    return [{"type": "text", "text": text[:half]}, {"type": "text", "text": text[half:]}]


def pairs(build):
    """Six questions with two answers each, as rows of chosen and rejected."""
    return [build(f"Why {i}?", TEXTS[2 * i], TEXTS[2 * i + 1]) for i in range(6)]


SHAPES = {
    "prompt and response": [{"prompt": f"Why {i // 2}?", "response": t} for i, t in enumerate(TEXTS)],
    "prompt as turns": [{"prompt": user(f"Why {i // 2}?"), "response": t} for i, t in enumerate(TEXTS)],
    "prompt as parts": [
        {"prompt": [{"role": "user", "content": parts(f"Why {i // 2}?")}], "response": t} for i, t in enumerate(TEXTS)
    ],
    "messages": [{"messages": user(f"Why {i // 2}?") + assistant(t)} for i, t in enumerate(TEXTS)],
    "messages in parts": [
        {"messages": [{"role": "user", "content": parts(f"Why {i // 2}?")},
                      {"role": "assistant", "content": parts(t)}]} for i, t in enumerate(TEXTS)
    ],
    "transcripts": pairs(lambda q, a, b: {
        "chosen": f"\n\nHuman: {q}\n\nAssistant: {a}", "rejected": f"\n\nHuman: {q}\n\nAssistant: {b}"
    }),
    "explicit text": pairs(lambda q, a, b: {"prompt": q, "chosen": a, "rejected": b}),
    "explicit turns": pairs(lambda q, a, b: {
        "prompt": user(q), "chosen": assistant(a), "rejected": assistant(b)
    }),
    "implicit turns": pairs(lambda q, a, b: {"chosen": user(q) + assistant(a), "rejected": user(q) + assistant(b)}),
    "prompt said twice": pairs(lambda q, a, b: {
        "prompt": q, "chosen": user(q) + assistant(a), "rejected": user(q) + assistant(b), "score_chosen": 3.0
    }),
    "ultrafeedback pairs": pairs(lambda q, a, b: {
        "prompt": q, "messages": user(q) + assistant(a), "chosen": user(q) + assistant(a),
        "rejected": user(q) + assistant(b),
    }),
    "rm-bench": pairs(lambda q, a, b: {"prompt": q, "chosen": [a], "rejected": [b], "domain": "chat"}),
    "ultrafeedback": pairs(lambda q, a, b: {
        "instruction": q, "source": "x",
        "completions": [{"response": a, "model": "m", "overall_score": 8.0},
                        {"response": b, "model": "n", "overall_score": 5.0}],
    }),
    "helpsteer3": pairs(lambda q, a, b: {
        "context": user(q), "response1": a, "response2": b, "overall_preference": -2, "domain": "general"
    }),
    "shp": pairs(lambda q, a, b: {"history": q, "human_ref_A": a, "human_ref_B": b, "labels": 1, "post_id": q}),
    "completion": [{"prompt": f"Why {i // 2}?", "completion": t} for i, t in enumerate(TEXTS)],
}  # fmt: skip

HOLDERS = {
    "list": lambda rows, tmp: rows,
    "lists": lambda rows, tmp: {k: [row[k] for row in rows] for k in rows[0]},
    "Dataset": lambda rows, tmp: Dataset.from_list(rows),
    "DatasetDict": lambda rows, tmp: DatasetDict({"train": Dataset.from_list(rows)}),
    "DataFrame": lambda rows, tmp: pd.DataFrame(rows),
    "to_pandas": lambda rows, tmp: Dataset.from_list(rows).to_pandas(),
    "jsonl": lambda rows, tmp: written(tmp / "x.jsonl", "".join(json.dumps(r) + "\n" for r in rows)),
    "json": lambda rows, tmp: written(tmp / "x.json", json.dumps(rows)),
    "csv": lambda rows, tmp: Dataset.from_list(rows).to_csv(tmp / "x.csv") and tmp / "x.csv",
    "parquet": lambda rows, tmp: Dataset.from_list(rows).to_parquet(tmp / "x.parquet") and tmp / "x.parquet",
    "saved": lambda rows, tmp: Dataset.from_list(rows).save_to_disk(tmp / "s") or tmp / "s",
}


def written(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    return path


def rewriter(texts, targets):
    return [
        rk.Rewrite(f"{t} And so on." if longer else t.split(",")[0], "ok")
        for t, longer in zip(texts, targets, strict=True)
    ]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_in_every_holder_gives_the_same_twelve_rows(shape, tmp_path):
    for name, hold in HOLDERS.items():
        if name == "csv" and shape in ("prompt as parts", "messages in parts", "ultrafeedback"):
            continue  # a CSV of lists within records within lists is read too, but pandas writes none that is whole
        folder = tmp_path / name
        folder.mkdir()
        ds = rk.as_dataset(hold(SHAPES[shape], folder))
        assert list(ds["response"]) == TEXTS, (shape, name)
        assert [p[-1]["content"] for p in ds["prompt"]] == [f"Why {i // 2}?" for i in range(12)], (shape, name)
        assert all(turn == {"role": "user", "content": turn["content"]} for p in ds["prompt"] for turn in p)
        ids = list(ds["prompt_id"])
        assert [ids.index(i) // 2 for i in ids] == [i // 2 for i in range(12)], (shape, name)
        if "chosen" in ds.column_names:
            assert list(ds["chosen"]) == [True, False] * 6
        assert rk.as_dataset(ds) is ds  # in our schema already


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_through_every_stage_and_command(shape, tmp_path, capsys):
    rows = SHAPES[shape]
    labelled = rk.label(rows, "length")
    rewritten = rk.rewrite(labelled, "length", rewriter, depth=2, progress=False)
    scored = rk.score(rewritten, "words", progress=False)
    table = rk.estimate(scored)
    assert set(table["estimator"]) == {"naive", "single_rewrite", "rate"}
    assert table["n_clusters"].max() == 6
    np.testing.assert_array_equal(rk.estimate(scored.to_pandas())["estimate"], table["estimate"])
    assert "verdict" in set(rk.diagnose(scored)["check"])
    again = rk.score(rk.load(Dataset.from_list(rows)), "words", progress=False)  # a stage by itself
    assert [r[0] for r in again["reward/words"]] == [float(len(t.split())) for t in TEXTS]
    data = HOLDERS["jsonl"](rows, tmp_path)
    assert main(["rewrite", str(data), "-a", "length", "--rewriter", "rules", "--out", str(tmp_path / "a")]) == 0
    assert main(["score", str(tmp_path / "a"), "-r", "words", "--out", str(tmp_path / "b")]) == 0
    assert main(["estimate", str(tmp_path / "b"), "--format", "csv"]) == 0
    assert ",rate," in capsys.readouterr().out


def test_rm_bench_has_three_responses_a_side():
    rows = [{"prompt": f"Q{i}", "chosen": ["a", "b b", "c c c"], "rejected": ["d", "e e", "f f f"]} for i in range(2)]
    ds = rk.as_dataset(rows)
    assert ds["response"][:6] == ["a", "b b", "c c c", "d", "e e", "f f f"]
    assert ds["variant"][:6] == [0, 1, 2, 0, 1, 2]
    assert ds["chosen"][:6] == [True] * 3 + [False] * 3


def test_a_pair_with_one_side_is_one_response_and_the_other_is_counted(caplog):
    for good, gone in ((assistant("a b"), None), ("a b", None), ("a b", ""), (user("q") + assistant("a b"), user("q"))):
        rows = [{"prompt": "q", "chosen": gone, "rejected": good}, {"prompt": "q", "chosen": good, "rejected": good}]
        ds = rk.as_dataset(rows)
        assert (ds["response"][:], ds["chosen"][:]) == (["a b"] * 3, [False, True, False])
        assert len(set(ds["prompt_id"])) == 1
        assert "1 of 4 responses are missing or empty and were dropped" in caplog.text
        caplog.clear()


def test_a_preference_that_is_none_prefers_neither():
    pair = {"context": "q", "response1": "a", "response2": "b"}
    for none in (None, 0, float("nan")):
        ds = rk.as_dataset([{**pair, "overall_preference": none}, {**pair, "overall_preference": 2}])
        assert ds["chosen"][:] == [None, None, False, True]
    with pytest.raises(InputError, match="row 1: 'overall_preference' holds '-2'; a number was expected"):
        rk.as_dataset([{**pair, "overall_preference": "-2"}])
    posts = {"history": "q", "human_ref_A": "a", "human_ref_B": "b"}
    ds = rk.as_dataset([{**posts, "labels": label} for label in (1, 0, 2, None)])
    assert ds["chosen"][:] == [True, False, False, True, None, None, None, None]


STRANGE = {
    "eli5": [{"title": "q", "answers": {"text": ["a"], "score": score}} for score in (5, {"a": 1})],
    "flattery-fluff-fog": [
        {"bias": "b", "query": "q", "original": "a", "rewrite": "b", "rewrite_of_rewrite": "c", "scores": {"m": m}}
        for m in (5, {"rewrite": 1.0}, ["x"])
    ],
}


@pytest.mark.parametrize(("source", "row"), [(name, row) for name, rows in STRANGE.items() for row in rows])
def test_a_strange_value_within_a_record_is_named_by_its_row(source, row, tmp_path):
    path = written(tmp_path / "x.jsonl", json.dumps(row) + "\n")
    with pytest.raises(InputError, match=r"x.jsonl, row 1: not as in .*(Error: )"):
        rk.load(source, data_files=path)


def test_integers_of_which_pandas_has_one_missing_are_integers():
    scores = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
    rows = [{"text": "a", "label": 1}, {"text": "b", "label": None}, {"text": "c", "label": 0}]
    posts = [
        {"history": "q", "human_ref_A": f"a{i}", "human_ref_B": f"b{i}", "labels": v} for i, v in enumerate((1, None))
    ]
    assert rk.as_dataset(pd.DataFrame(posts))["chosen"][:] == [True, False, None, None]
    assert rk.as_dataset(pd.DataFrame(rows), where="imdb")["sentiment"][:] == [1, None, 0]
    halves = pd.DataFrame([{"prompt": "q", "text": "a", **dict.fromkeys(scores, 1.5)}])
    with pytest.raises(InputError, match="no column 'response'"):
        rk.as_dataset(halves)


def test_two_columns_change_their_names_with_each_other(tmp_path):
    rows = [{"prompt": "a b", "response": "q"}]
    for hold in HOLDERS:
        (tmp_path / hold).mkdir()
        held = HOLDERS[hold](rows, tmp_path / hold)
        ds = rk.as_dataset(held, columns={"prompt": "response", "response": "prompt"})
        assert (ds["response"][:], ds["prompt"][:]) == (["a b"], [user("q")]), hold
        with pytest.raises(InputError, match="column 'prompt' cannot be both"):
            rk.as_dataset(held, columns={"prompt": "prompt", "response": "prompt"})


def test_a_transcripts_system_text_and_windows_line_ends_are_kept():
    text = "Be kind.\r\n\r\nHuman: Hi\r\n\r\nAssistant: Hello."
    from ratekit.sources.public import transcript

    assert transcript(text) == [{"role": "system", "content": "Be kind."}, *user("Hi"), *assistant("Hello.")]


def test_the_whole_conversation_makes_the_prompt_id():
    system = [[{"role": "system", "content": s}, *user("Why?")] for s in ("Be brief.", "Be long.", "Be brief.")]
    ids = rk.as_dataset([{"prompt": p, "response": f"r{i}"} for i, p in enumerate(system)])["prompt_id"]
    assert ids[0] == ids[2] != ids[1]


@pytest.mark.parametrize("shape", ["prompt and response", "prompt as turns", "explicit text", "explicit turns"])
def test_a_system_column_is_a_turn_of_the_prompt(shape, caplog):
    caplog.set_level("INFO", "ratekit")
    rows = [{**row, "system": ("Be brief, please.", "Be long.", "")[i % 3]} for i, row in enumerate(SHAPES[shape])]
    ds = rk.as_dataset(rows)
    assert "the column 'system' is read as the system turn of each prompt" in caplog.text
    turns = {tuple(turn["role"] for turn in p) for p in ds["prompt"]}
    assert turns == {("system", "user"), ("user",)}
    assert len(set(ds["prompt_id"])) > 6 or len(rows) == 6
    assert "system" not in ds.column_names
    assert rk.as_dataset(ds) is ds
    named = rk.as_dataset([{**row, "system": f"gpt-{i}"} for i, row in enumerate(SHAPES[shape])])
    assert "system" in named.column_names  # names, not what was said


@pytest.mark.parametrize("rest", [{"response": "a b"}, {"chosen": "a b", "rejected": "c"}])
def test_a_column_that_may_hold_the_prompts_is_named(rest, caplog):
    rk.as_dataset([{"question": "Why?", **rest}])
    assert "if the column 'question' holds the prompts, which are empty now, say columns=" in caplog.text
    caplog.clear()
    rk.as_dataset([{"question": "Why?", **rest}], columns={"prompt": "question"})
    assert "holds the prompts" not in caplog.text


def test_what_was_taken_for_what_is_said_in_one_line(caplog):
    caplog.set_level("INFO", "ratekit")
    rk.as_dataset(SHAPES["explicit text"])
    assert "the list is read as preferences: chosen and rejected" in caplog.text


def test_shards_and_splits(tmp_path, monkeypatch):
    data = tmp_path / "hub" / "data"
    data.mkdir(parents=True)
    for i in range(2):
        Dataset.from_list(SHAPES["messages"][6 * i : 6 * i + 6]).to_parquet(data / f"train-0000{i}-of-00002.parquet")
    assert list(rk.load(tmp_path / "hub")["response"]) == TEXTS
    Dataset.from_list(SHAPES["messages"][:2]).to_parquet(data / "test-00000-of-00001.parquet")
    assert len(rk.load(tmp_path / "hub", split="test")) == 2
    with pytest.raises(InputError, match=r"holds the splits test, train; choose one with split="):
        rk.load(tmp_path / "hub")
    with pytest.raises(InputError, match=r"holds the splits a, b; choose one with split="):
        rk.label(DatasetDict({"a": Dataset.from_list([{"x": 1}]), "b": Dataset.from_list([{"x": 1}])}), "length")
    (tmp_path / "hub" / ".cache").mkdir()
    Dataset.from_list([{"response": "hidden"}]).to_parquet(tmp_path / "hub" / ".cache" / "x.parquet")
    assert len(rk.load(tmp_path / "hub", split="test")) == 2
    monkeypatch.setattr(files, "MAX_FILES", 2)
    with pytest.raises(InputError, match="holds more than 2 files"):
        rk.load(tmp_path / "hub", split="test")
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "x.parquet").symlink_to(data / "test-00000-of-00001.parquet")
    with pytest.raises(InputError, match="without Parquet files"):
        rk.load(tmp_path / "link")


# --- what is refused, by name and row ----------------------------------------------------------------------

A = assistant("A.")
REFUSED = {
    "none of the shapes": ([{"question": "q", "answer": "a"}], r"no column 'response' \(columns: question "),
    "two shapes": ([{"messages": user("q") + A, "response": "a"}], r"responses \(response\) and messages"),
    "pairs beside a response": (
        [{"prompt": "q", "response": "r", "chosen": "a", "rejected": "b"}], r"responses .* and preferences .* at once"
    ),
    "null content": ([{"messages": user("q") + A}, {"messages": user(None) + A}], r"row 2: .*no content \(null\)"),
    "an image": (
        [{"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}, *A]}],
        r"row 1: .*part that is no text \(image\)",
    ),
    "a tool call": (
        [{"prompt": [{"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}], "response": "a"}],
        r"row 1: .*holds tool_calls",
    ),
    "a number": ([{"prompt": [{"role": "user", "content": 5}], "response": "a"}], r"row 1: .*content '5'; text was"),
    "sharegpt": ([{"prompt": [{"from": "human", "value": "q"}], "response": "a"}], r"row 1: .*'role' and 'content'"),
    "a prompt that contradicts": (
        [{"prompt": "Other", "chosen": user("q") + A, "rejected": user("q") + A}], r"row 1: the prompt \('Other'\)"
    ),
    "a blank response": ([{"response": "a"}, {"response": "  "}], r"row 2: the response is empty"),
    "a list response": ([{"response": ["a"]}], r"row 1: the response is \['a'\], which is not text"),
    "a numeric response": ([{"response": 4}], r"row 1: the response is 4, which is not text"),
    "rewrites without labels": ([{"response": "a", "rewrites": ["b"]}], r"carry rewrites, but not the labels"),
    "labels on pairs": ([{"prompt": "q", "chosen": "a", "rejected": "b", "treated": True}], r"treated belong"),
    "half a letter": ([{"response": "fine"}, {"response": "half \ud83d"}], r"row 2: column 'response' holds \\ud83d"),
    "no record": (["a", "b"], r"row 1: 'a' is not a record"),
    "no rows": ([], r"no rows"),
    "unequal columns": ({"response": ["a", "b"], "prompt": ["q"]}, r"columns of different lengths"),
    "a number instead of rows": (42, r"rows were expected .*, got the int '42'"),
    "a text that names nothing": ("  ", r"named by an empty text"),
    "a very long name": ("a" * 5000, r"unknown source"),
    "too many columns": ([{f"c{i}": 1 for i in range(6000)}], r"more than 5,000 columns"),
    "prompts called almost so": ([{"\ufeffprompt": "q", "response": "a"}], r"'.ufeffprompt' is not called 'prompt'"),
    "labels called almost so": ([{"response": "a", " treated": 1}], r"column ' treated' is not called 'treated'"),
    "ids called almost so": ([{"Prompt_ID": "7", "response": "a"}], r"column 'Prompt_ID' is not called 'prompt_id'"),
    "a name of two": ([{"response": "a", "x\0y": 1}], r"the column name 'x.x00y' holds a NUL"),
    "two columns of one name": (
        pa.Table.from_arrays([pa.array(["a"])] * 2, ["response", "response"]), "the Table: two columns are called 'resp"
    ),
    "a text of answers": ([{"title": "q", "answers": {"text": "a b"}}], r"row 1: .*expected a 'text' list"),
    "half a letter in a name": ([{"response": "a", "\ud83d": 1}], r"the column name '.ud83d' holds half of a"),
    "a kind that no Dataset holds": ([{"response": "a", "id": uuid.UUID(int=7)}], r"'id' holds extension.*as text"),
    "no value of a table": ([{"response": "a", "x": 1j}], r"row 1: column 'x' holds '1j', which no table can hold"),
    "a transform": (
        Dataset.from_list([{"response": "a"}]).with_transform(lambda rows: rows), r"has a transform .*with map\(\)"
    ),
    "a set": ([{"response": "a", "treated": True, "rewrites": {"b", "c"}}], r"row 1: .* a set, which has no order"),
    "deep nesting": ([{"response": "a", "x": json.loads("[" * 90 + "]" * 90)}], r"row 1: column 'x' is nested"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_one_line_that_says_where(case):
    given, message = REFUSED[case]
    with pytest.raises(InputError, match=message) as caught:
        rk.load(given)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1500


SPELLINGS = [True, "true", "True", " TRUE ", "yes", "Yes", 1, 1.0, "1", "1.0", "T", "y", "1e0", "treated"]
NEGATIVE = [False, "false", "False", " FALSE ", "no", "No", 0, 0.0, "0", "0.0", "F", "n", "0.", "control"]


@pytest.mark.parametrize(("yes", "no"), list(zip(SPELLINGS, NEGATIVE, strict=True)))
def test_treated_is_the_same_however_it_is_spelt(yes, no, tmp_path):
    rows = [
        {"prompt": f"Q{i}", "response": t, "attribute": "length", "treated": (no, yes)[i % 2]}
        for i, t in enumerate(TEXTS)
    ]
    for hold in ("list", "DataFrame", "csv", "parquet", "jsonl"):
        (tmp_path / hold).mkdir()
        ds = rk.as_dataset(HOLDERS[hold](rows, tmp_path / hold))
        assert list(ds["treated"]) == [False, True] * 6
        assert ds.features["treated"].dtype == "bool"
    asked = []

    def rewriter(texts, targets):
        asked.extend(targets)
        return [rk.Rewrite(t + " more", "ok") for t in texts]

    rk.rewrite(rows, "length", rewriter, depth=1, progress=False)
    assert asked == [True, False] * 6  # each to the side that it is not on


@pytest.mark.parametrize(("names", "codes"), [(["untreated", "treated"], [0, 1]), (["yes", "no"], [1, 0])])
def test_classes_with_names_are_read_by_their_names(names, codes):
    from datasets import ClassLabel, Features, Value

    kinds = {"attribute": ClassLabel(names=["length"]), "treated": ClassLabel(names=names), "response": Value("string")}
    rows = {"attribute": [0] * 12, "treated": codes * 6, "response": TEXTS}
    ds = rk.as_dataset(Dataset.from_dict(rows, Features(kinds)))
    assert (ds["treated"][:], set(ds["attribute"])) == ([False, True] * 6, {"length"})


@pytest.mark.parametrize(
    "values", [pd.array([True, False], "boolean"), pd.arrays.SparseArray([1, 0]),
               pd.Categorical(["T", "F"]), pd.array(["yes", "no"], "string[pyarrow]")],
)  # fmt: skip
def test_treated_in_the_types_of_pandas(values):
    frame = pd.DataFrame({"response": ["a", "b"], "attribute": "length", "treated": values})
    assert rk.as_dataset(frame)["treated"][:] == [True, False]


def test_the_missing_values_of_pandas_are_null():
    for missing in (pd.NA, pd.NaT, np.nan, None):
        rows = [{"response": "a", "note": missing}, {"response": "b", "note": "c"}]
        for given in (rows, pd.DataFrame(rows, dtype=object)):
            assert rk.as_dataset(given)["note"][:] == [None, "c"]
    study = {"prompt_id": ["1", "2"], "response": ["a", "b"], "attribute": ["x"] * 2, "treated": [True, False],
             "rewrites": [["c", np.nan], ["d", pd.NA]], "reward/r": [[1.0, pd.NA], [2.0, 3]]}  # fmt: skip
    for given in (study, pd.DataFrame(study)):
        ds = rk.as_dataset(given)
        assert (ds["rewrites"][:], ds["reward/r"][:]) == ([["c", None], ["d", None]], [[1.0, None], [2.0, 3.0]])
        assert rk.estimate(given)["estimate"].tolist()[0] == -1.0


def test_nan_is_null_where_a_null_cannot_be_written_and_a_fault_elsewhere(tmp_path):
    study = {"prompt_id": ["1", "2"], "response": ["a", "b"], "attribute": ["x"] * 2, "treated": [True, False]}
    arrays = {**study, "reward/r": [np.array([1.0, np.nan]), np.array([2.0, 3.0])]}
    texts = ["[1.0, nan]", "[1.  nan]", "[1.0, NaN]", "[1.0, null]"]
    cells = [{**study, "reward/r": [text, "[2.0, 3.0]"]} for text in texts]
    rows = [dict(zip(arrays, row, strict=True)) for row in zip(*arrays.values(), strict=True)]
    for given in (arrays, rows, pd.DataFrame(arrays), *cells):
        assert rk.as_dataset(given)["reward/r"][:] == [[1.0, None], [2.0, 3.0]]
    for given in cells:
        pd.DataFrame(given).to_csv(tmp_path / "x.csv", index=False)
        assert rk.as_dataset(tmp_path / "x.csv")["reward/r"][:] == [[1.0, None], [2.0, 3.0]]
    lists = {**study, "reward/r": [[1.0, np.nan], [2.0, 3.0]]}
    line = {name: values[0] for name, values in lists.items()}
    file = written(tmp_path / "x.jsonl", json.dumps(line) + "\n")  # with the word NaN
    for given in (lists, pd.DataFrame(lists), Dataset.from_dict(lists), file):
        with pytest.raises(InputError, match=r"row 1: reward/r\[1\] is nan; a reward that could not be had is null"):
            rk.estimate(given)


@pytest.mark.parametrize("wrong", ["maybe", "", None, 2, 0.5, "truee", [True], "-1"])
def test_treated_in_any_other_spelling_is_refused_with_its_row(wrong):
    rows = [{"response": "a", "attribute": "length", "treated": "yes"}] * 2
    rows = [*rows, {"response": "b", "attribute": "length", "treated": wrong}]
    with pytest.raises(InputError, match=r"row 3: 'treated' (holds|is null)|'treated' cannot be one type"):
        rk.as_dataset(rows)


# --- what is written comes back ----------------------------------------------------------------------------


def stages():
    """A dataset after each stage, with what a format may lose: nulls, quotes, ids with zeros, odd letters."""
    odd = [
        'it\'s "so"',
        "a\nb, c",
        "é — 文 \U0001f600",
        "[1, 2]",
        "['a' 'b']",
        "NA",
        "nan",
        "true",
        "  x  ",
        "-1",
        "a\rb \r\n c",
        "a,b \x00 \u2028 \u0085",
    ]
    rows = [
        {"prompt_id": ("007", "7")[i % 2] + "-" + str(i // 2),
         "prompt": [{"role": "system", "content": odd[-i]}, *user(f"Q{i}")],
         "response": t, "note": odd[-1 - i], "n": i, "x": i / 7}
        for i, t in enumerate(odd)
    ]  # fmt: skip
    loaded = rk.as_dataset(rows)
    labelled = loaded.add_column("attribute", ["length"] * 12).add_column("treated", [bool(i % 2) for i in range(12)])
    rewrites = [[odd[i - 1], None if i % 5 == 0 else odd[i - 2]] for i in range(12)]
    status = [["ok", "ok" if r else "refused"] for _, r in rewrites]
    rewritten = labelled.add_column("rewrites", rewrites).add_column("rewrite_status", status)
    rewards = [[i / 3, -i / 7, None if i % 5 == 0 else 1e-9 * i] for i in range(12)]
    scored = rewritten.add_column("reward/a b", rewards).add_column("reward_status/a b", [["ok", "cut", None]] * 12)
    return {"load": loaded, "label": labelled, "rewrite": rewritten, "score": scored}


FORMATS = {
    "Dataset.to_csv": (lambda ds, p: ds.to_csv(p), "csv"),
    "DataFrame.to_csv": (lambda ds, p: ds.to_pandas().to_csv(p), "csv"),
    "DataFrame.to_csv, no index": (lambda ds, p: pd.DataFrame(ds.to_list()).to_csv(p, index=False), "csv"),
    "to_csv, tabs": (lambda ds, p: ds.to_pandas().to_csv(p, sep="\t", index=False), "tsv"),
    "Dataset.to_json": (lambda ds, p: ds.to_json(p), "jsonl"),
    "DataFrame.to_json": (lambda ds, p: ds.to_pandas().to_json(p), "json"),
    "DataFrame.to_json, records": (lambda ds, p: ds.to_pandas().to_json(p, orient="records"), "json"),
    "DataFrame.to_json, split": (lambda ds, p: ds.to_pandas().to_json(p, orient="split"), "json"),
    "DataFrame.to_json, table": (lambda ds, p: ds.to_pandas().to_json(p, orient="table"), "json"),
    "DataFrame.to_json, index": (lambda ds, p: ds.to_pandas().to_json(p, orient="index"), "json"),
    "Dataset.to_parquet": (lambda ds, p: ds.to_parquet(p), "parquet"),
    "DataFrame.to_parquet": (lambda ds, p: ds.to_pandas().to_parquet(p), "parquet"),
}


@pytest.mark.parametrize("stage", ["load", "label", "rewrite", "score"])
@pytest.mark.parametrize("format", [*FORMATS, "to_pandas", "to_list", "to_dict"])
def test_every_column_of_every_stage_comes_back(stage, format, tmp_path):
    ds = stages()[stage]
    if format in FORMATS:
        write, suffix = FORMATS[format]
        write(ds, tmp_path / f"x.{suffix}")
        back = rk.as_dataset(tmp_path / f"x.{suffix}")
    else:
        back = rk.as_dataset(getattr(ds, format)())
    assert set(back.column_names) == set(ds.column_names)
    for column in ds.column_names:
        before, after = list(ds[column]), list(back[column])
        if format.endswith(("to_csv", "tabs")) and column.startswith("reward/"):  # numpy writes eight digits
            assert [[v is None for v in row] for row in after] == [[v is None for v in row] for row in before]
            before, after = ([[0 if v is None else v for v in row] for row in rows] for rows in (before, after))
            np.testing.assert_allclose(after, before, rtol=1e-7, atol=1e-16)
        elif "to_json" in format and (column == "x" or column.startswith("reward/")):  # pandas writes ten decimals
            flat = [[v for row in rows for v in (row if isinstance(row, list) else [row])] for rows in (before, after)]
            assert [v is None for v in flat[0]] == [v is None for v in flat[1]]
            np.testing.assert_allclose(*[[0 if v is None else v for v in f] for f in flat], atol=1e-9)
        else:
            assert after == before, column


def framed(ds):
    return pd.DataFrame(ds.to_list())


HELD = {
    "formatted as numpy": lambda ds, p: ds.with_format("numpy"),
    "formatted as Arrow": lambda ds, p: ds.with_format("arrow"),
    "some columns shown": lambda ds, p: ds.with_format(None, columns=["response"]),
    "Arrow table": lambda ds, p: ds.data.table,
    "ids as the index": lambda ds, p: framed(ds).set_index("prompt_id"),
    "two levels of index": lambda ds, p: framed(ds).set_index(["prompt_id", "n"]),
    "nullable types": lambda ds, p: framed(ds).convert_dtypes(),
    "row numbers of a part": lambda ds, p: framed(ds).set_index(pd.Index([*range(20, 8, -1)])).to_csv(p / "x.csv"),
    "index of a part": lambda ds, p: framed(ds).set_index(pd.Index([*range(20, 8, -1)])).to_parquet(p / "x.parquet"),
    "lists in JSON": lambda ds, p: (p / "x.json").write_text(json.dumps(ds.to_dict())),
}  # fmt: skip


@pytest.mark.parametrize("how", HELD)
def test_other_holders_keep_every_column(how, tmp_path):
    ds = stages()["score"]
    held = HELD[how](ds, tmp_path)
    back = rk.as_dataset(next(tmp_path.iterdir(), held))
    assert set(back.column_names) == set(ds.column_names)
    assert all(list(back[c]) == list(ds[c]) for c in ds.column_names)


def test_columns_are_typed_by_their_new_name(tmp_path):
    path = written(tmp_path / "x.csv", "qid,q,answer\n007,[{x}] what is this?,4\n7,Why?,5\n")
    ds = rk.load(path, columns={"prompt_id": "qid", "response": "answer", "prompt": "q"})
    assert (ds["prompt_id"][:], ds["response"][:]) == (["007", "7"], ["4", "5"])
    assert ds[0]["prompt"] == user("[{x}] what is this?")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prompt,response\nq,a,\n", "line 2: 3 cells where the first line names 2 columns"),
        ("prompt,response\nq\n", "line 2: 1 cells where"),
        ('prompt,response\nq,"a\nb"\nq\n', "line 3: 1 cells where|line 4: 1 cells where"),
        ("response,response\na,b\n", "two columns are called 'response'"),
        ("response,\na,b\n", "column 2 has no name"),
        ("response,rewrites,treated,attribute\na,['b' + 'c'],1,x\n", "row 1: column 'rewrites' holds .*not a list"),
        ("response,rewrites,treated,attribute\na,['b' 'c'; 'd'],1,x\n", "row 1: column 'rewrites' holds .*not a list"),
    ],
)  # fmt: skip
def test_a_csv_that_shifts_its_columns_is_refused_with_its_line(text, message, tmp_path):
    with pytest.raises(InputError, match=message):
        rk.load(written(tmp_path / "x.csv", text))


def test_a_comma_at_the_end_of_every_line_is_no_column(tmp_path):
    ds = rk.load(written(tmp_path / "x.csv", "prompt,response,\nWhy?,So.,\nHow?,Thus.,\n"))
    assert (ds["response"][:], ds.column_names) == (["So.", "Thus."], ["prompt_id", "prompt", "response"])


@pytest.mark.parametrize("shape", ["prompt as turns", "messages", "explicit turns", "implicit turns", "helpsteer3"])
def test_turns_that_a_frame_holds_as_text_are_turns(shape, tmp_path):
    path = HOLDERS["csv"](SHAPES[shape], tmp_path)
    lines = [{k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in SHAPES[shape]]
    for held in (pd.read_csv(path), lines):
        ds = rk.as_dataset(held)
        assert list(ds["response"]) == TEXTS
        assert [p[-1]["content"] for p in ds["prompt"]] == [f"Why {i // 2}?" for i in range(12)]


def test_a_prompt_that_begins_like_turns_is_a_text():
    texts = ["[{x}] what is this?", "[{'role': 'user'}]", '[{"role": "user", "content": 5', "[{'a': 'b'}]"]
    rows = [{"prompt": t, "response": "a"} for t in [*texts, '[{"role": "user", "content": "Why?"}]']]
    assert [p[0]["content"] for p in rk.as_dataset(rows)["prompt"]] == [*texts, "Why?"]


# --- odd files ---------------------------------------------------------------------------------------------


def test_odd_bytes_are_read(tmp_path):
    rows = [{"prompt": "q\u2028q", "response": "a\x00b\u2028c\x85d"}]
    for name, text in {
        "bom.jsonl": "\ufeff" + json.dumps(rows[0], ensure_ascii=False) + "\n",
        "bom.json": "\ufeff" + json.dumps(rows, ensure_ascii=False),
        "lines.json": json.dumps(rows[0], ensure_ascii=False) + "\n" + json.dumps({"response": "x"}) + "\n",
    }.items():
        assert rk.load(written(tmp_path / name, text))[0]["response"] == "a\x00b\u2028c\x85d", name
    path = written(tmp_path / "bom.csv", "\ufeffprompt,response\nq\u2028,a\u2028b\n")
    assert rk.load(path)["response"][:] == ["a\u2028b"]


def test_an_array_or_an_object_over_several_lines_is_read_whatever_its_name_says(tmp_path):
    rows = [{"prompt": "q", "response": "a"}, {"prompt": "q", "response": "b"}]
    for name, text in {"a": json.dumps(rows), "b": "\n" + json.dumps(rows, indent=1)}.items():
        assert rk.load(written(tmp_path / f"{name}.jsonl", text))["response"][:] == ["a", "b"]
    assert rk.load(written(tmp_path / "c.jsonl", json.dumps(rows[0], indent=1)))["response"][:] == ["a"]
    with pytest.raises(InputError, match="line 2: not JSON"):
        rk.load(written(tmp_path / "d.jsonl", json.dumps(rows[0]) + "\n{\n"))


def test_marks_within_a_cell_of_a_csv(tmp_path):
    text = 'prompt,response\nq,5" disk\n"q, ""r""" ,"a \\ b"\n'
    assert rk.load(written(tmp_path / "x.csv", text))["response"][:] == ['5" disk', "a \\ b"]


def test_large_integers_keep_their_digits(tmp_path):
    rows = [{"response": "a", "id": 2**64 - 1, "big": 10**29 + 1}, {"response": "b", "id": 1, "big": -5}]
    ds = rk.load(written(tmp_path / "x.jsonl", "".join(json.dumps(r) + "\n" for r in rows)))
    assert ds["id"][:] == [2**64 - 1, 1]
    assert ds["big"][:] == [str(10**29 + 1), "-5"]
    assert rk.load(rows, columns={"prompt_id": "big"})["prompt_id"][:] == [str(10**29 + 1), "-5"]


HOSTILE = {
    "deep.jsonl": ('{"response": ' + "[" * 100_000 + "]" * 100_000 + "}\n", "line 1: not JSON"),
    "deep.json": ("[" * 100_000, "not JSON"),
    "digits.jsonl": ('{"response": "a", "n": ' + "9" * 5000 + "}\n", "line 1: not JSON"),
    "twice.jsonl": ('{"response": "a", "response": "b"}\n', "line 1: not JSON .the key 'response' is there twice"),
    "twice.json": ('[{"response": "a", "x": {"y": 1, "y": 2}}]', "the key 'y' is there twice"),
    "open.csv": ('prompt,response\nq,"a\nq2,b\n', "line 2: a quotation mark opens a cell and none closes it"),
    "cut.csv": ('prompt,response\nq,a\nq,"b c', "line 3: a quotation mark opens a cell"),
    "wide.csv": (",".join(f"c{i}" for i in range(200_000)) + "\n", "more than 5,000 columns"),
    "wide.jsonl": ("{" + ",".join(f'"c{i}": 1' for i in range(9_000)) + "}\n", "more than 5,000 columns"),
    "semicolons.csv": ("prompt;response\nq;a, b\n", "the first line has no ',' and parts its names by ';'"),
    "utf16.csv": ("prompt,response\nq,a\n".encode("utf-16"), "not UTF-8 .invalid start byte at byte 0.; save it as"),
    "latin.csv": (b"response,x\n\xe9,a,b\n", "not UTF-8 .*byte 11"),
    "workbook.csv": (b"PK\3\4\0\0", "is a ZIP archive or a workbook"),
    "x.zip": (b"PK\3\4\0\0", "is a ZIP archive or a workbook; unzip it"),
    "x.jsonl.zst": (b"\x28\xb5\x2f\xfd\0", "is packed by zstd; unpack it"),
    "x.parquet": ("version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS .*git lfs pull"),
    "parquet.csv": (b"PAR1\x15\x04", "is a Parquet file by its content"),
    "backslash.csv": (
        'prompt,response\nq,"a ""b"" \\n"\nq,"he said \\"x\\""\n',
        "line 3: a quotation mark within .*write it twice",
    ),
    "glued.csv": ('prompt,response\nq,"a \\""\nq,"b"\n', "line 3: a quotation mark within a quoted cell is not"),
    "header.csv": ("prompt,response", "the table is empty .0 rows"),
    "lists.json": ('{"response": ["a", "b"], "prompt": ["q"]}', "its columns are not lists of one length"),
    "half.jsonl": ('{"response": "half \\ud83d"}\n', r"row 1: column 'response' holds \\ud83d"),
    "bomb.jsonl.gz": (gzip.compress(b" " * (64 << 20)), "unzips to more than 16 MiB"),
    "bomb.csv.gz": (gzip.compress(b"a" * (64 << 20)), "unzips to more than 16 MiB"),
    "bomb.json.gz": (gzip.compress(b"[" * (64 << 20)), "unzips to more than 16 MiB"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_one_line(name, tmp_path):
    content, message = HOSTILE[name]
    with pytest.raises(InputError, match=message) as caught:
        rk.load(written(tmp_path / name, content))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1500


def test_a_pipe_and_a_device_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "x.jsonl")
    for path in (tmp_path / "x.jsonl", "/dev/zero"):
        with pytest.raises(InputError, match="is a pipe or a device, not a file"):
            rk.load(path)


def test_a_line_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_LINE", 1000)
    with pytest.raises(InputError, match="line 2: longer than"):
        rk.load(written(tmp_path / "x.jsonl", '{"response": "a"}\n{"response": "' + "a" * 2000))


# --- labels ------------------------------------------------------------------------------------------------


def labelled(values, texts=("A terrible film.", "A wonderful film."), column="label", attribute="sentiment", **options):
    rows = [{"response": f"{texts[i % len(texts)]} {i}", column: v} for i, v in enumerate(values)]
    return list(rk.label(rows, attribute, **options)["treated"])


def test_a_label_of_something_else_is_no_sentiment(caplog):
    assert labelled([1, 0, 1, 0]) == [False, True] * 2  # by VADER: the column may be about anything
    assert "the column 'label' does not say what it labels" in caplog.text
    assert labelled([1, 0, 1, 0], label_column="label") == [True, False] * 2
    assert labelled(["positive", "Negative ", "POS", "neg"]) == [True, False] * 2
    assert labelled(["spam", "ham"] * 2, label_column="label", positive="spam") == [True, False] * 2
    assert labelled([1, 2, 3, 5], label_column="label", positive=[3, "5"]) == [False, False, True, True]


def test_load_labels_by_a_column_as_the_command_does(tmp_path):
    rows = [{"response": f"{TEXTS[i]}", "kind": ("ham", "spam", None)[i % 3]} for i in range(12)]
    data = HOLDERS["jsonl"](rows, tmp_path)
    bare = rk.load(data, label_column="kind", positive="spam")
    assert bare["treated"][:] == [False, True] * 4
    assert "attribute" not in bare.column_names
    whole = rk.load(data, attribute="length", label_column="kind", positive="spam")
    argv = ["rewrite", str(data), "-a", "length", "--rewriter", "rules", "--depth", "1", "--label-column", "kind"]
    assert main([*argv, "--positive", "spam", "--out", str(tmp_path / "out")]) == 0
    of_command = files.read(tmp_path / "out")
    for ds in (
        whole,
        rk.label(bare, "length"),
        rk.label(rk.load(data), "length", label_column="kind", positive="spam"),
    ):
        for column in ("prompt_id", "response", "attribute", "treated"):
            assert ds[column][:] == of_command[column][:]
    with pytest.raises(InputError, match="say with attribute= which of them"):
        rk.load(whole, label_column="kind", positive="spam")
    with pytest.raises(InputError, match="give that as well"):
        rk.load(data, positive="spam")


def test_class_names_of_the_dataset_are_words():
    from datasets import ClassLabel, Features, Value

    features = Features({"response": Value("string"), "label": ClassLabel(names=["neg", "pos"])})
    ds = Dataset.from_dict({"response": ["A wonderful film.", "A terrible film."], "label": [0, 1]}, features)
    assert list(rk.label(ds, "sentiment")["treated"]) == [False, True]


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([1, 2, 3, 10], {"column": "helpfulness", "attribute": "helpfulness"}, "row 4: .*holds 10, which is not"),
        ([-1, 1, 0, 1], {"column": "sentiment"}, "row 1: .*holds -1, which is not of the scale 0 to 1"),
        ([1, 2, 3, 4], {"label_column": "label"}, "row 2: .*holds 2, which is not of the scale"),
        (["a", "b"], {"label_column": "label"}, "row 1: .*holds 'a'; a number was expected, or name the value"),
        (["a", "b"], {"label_column": "label", "positive": "c"}, "no row has c in the column 'label'; it holds a, b"),
        (["a", "b"], {"label_column": "label", "positive": []}, "no row has \\(nothing\\) in the column 'label'"),
        (["a", "b"], {"label_column": "lable"}, "unknown label column 'lable'; did you mean 'label'"),
        (["a", "b"], {"positive": "a"}, "give that as well"),
        ([1, 1, 1, 1], {"column": "sentiment"}, "all 4 rows are treated for 'sentiment', so there is"),
    ],
)  # fmt: skip
def test_labels_of_another_scale_are_refused(values, options, message):
    with pytest.raises(InputError, match=message):
        labelled(values, **options)


def test_the_cut_is_where_it_splits_and_is_said(caplog):
    caplog.set_level("INFO", "ratekit")
    counts = rk.Attribute("x", "a", "b", measure=lambda texts: [float(t.count("!")) for t in texts])
    assert labelled([0] * 6, texts=("a", "b", "c!"), attribute=counts) == [False, False, True] * 2
    assert "above the median of <lambda>, 0: 2 of 6 rows" in caplog.text
    assert labelled([0] * 6, texts=("a!", "b!", "c"), attribute=counts) == [True, True, False] * 2  # median = maximum
    with pytest.raises(InputError, match=r"all 4 rows have the same words \(4\)"):
        labelled([0] * 4, attribute="length")


WRONG_LABELS = {
    "lengths of rows": lambda texts: [len(t) > 200 for t in texts],
    "words in rows": lambda texts: ["film" in t for t in texts],
    "methods of texts": lambda texts: [t.startswith("A") for t in texts],
    "words for labels": lambda rows: ["yes"] * len(rows),
    "too few": lambda rows: [True],
}


@pytest.mark.parametrize("case", WRONG_LABELS)
def test_a_label_with_another_signature_is_refused_with_words(case):
    attribute = rk.Attribute("x", "a", "b", label=WRONG_LABELS[case])
    with pytest.raises(InputError, match=r"label of attribute 'x'.*(\['response'\]|True, False or None)"):
        labelled([0, 1], attribute=attribute)


def test_a_label_may_read_rows_or_columns():
    by_rows = rk.Attribute("x", "a", "b", label=lambda rows: [row["response"].startswith("A t") for row in rows])
    by_column = rk.Attribute("x", "a", "b", label=lambda rows: [t.startswith("A t") for t in rows["response"]])
    assert labelled([0, 1], attribute=by_rows) == labelled([0, 1], attribute=by_column) == [True, False]


def test_a_label_may_be_a_series_with_missing_values():
    for missing in (pd.NA, np.nan, None):
        values = [True, missing, False] * 2
        attribute = rk.Attribute("x", "a", "b", label=lambda rows, values=values: pd.Series(values, dtype=object))
        assert labelled([0] * 6, attribute=attribute) == [True, False] * 2


def test_a_measure_with_another_signature_is_refused_with_words():
    for measure in (
        lambda rows: [len(t) for t in rows["response"]],
        lambda texts: 3.0,
        lambda texts: [float("inf")] * 2,
        lambda texts: [0.0, -1e100],  # as a reward, so that squares stay within float64
    ):
        with pytest.raises(InputError, match=r"takes a list of texts|shape|gave (inf|-1e\+100) for the text"):
            labelled([0, 1], attribute=rk.Attribute("x", "a", "b", measure=measure))


# --- an attribute travels with the data --------------------------------------------------------------------

MINE = """
import ratekit as rk

def bullets(texts):
    return [float(t.count("*")) for t in texts]

attribute = rk.Attribute("bullets", "in bullet points", "in plain prose", measure=bullets)

def rewriter(texts, targets):
    return [rk.Rewrite("* " + t if more else t.replace("* ", ""), "ok") for t, more in zip(texts, targets)]

def stars(prompts, responses):
    return [float(r.count("*")) for r in responses]

number = 3
"""


def test_an_attribute_of_ones_own_is_known_to_all_that_comes_after(tmp_path, capsys):
    from ratekit.attributes import find_attribute

    mine = written(tmp_path / "mine.py", MINE)
    attribute = find_attribute(f"{mine}:attribute")
    rows = [{"prompt": f"Q{i}", "response": ("* " if i % 2 else "") + t} for i, t in enumerate(TEXTS)]
    ds = rk.rewrite(rk.label(rows, attribute), attribute, f"{mine}:rewriter", depth=2, progress=False)
    ds = rk.score(ds, f"{mine}:stars", progress=False)
    assert "reward/stars" in ds.column_names
    assert find_attribute("bullets", ds).phrase(True) == "in bullet points"
    expected = rk.diagnose(ds, measures={"bullets": attribute.measure})
    saved, parquet, table = tmp_path / "saved", tmp_path / "x.parquet", tmp_path / "x.csv"
    ds.save_to_disk(saved)
    ds.to_parquet(parquet)
    ds.to_pandas().to_csv(table)
    for held in (ds, saved, parquet, table):  # what was measured is there, whatever it was written to
        found = rk.diagnose(held)
        assert found["check"].tolist() == expected["check"].tolist()
        on = found[found["check"] == "dose"]
        np.testing.assert_allclose(on["value"], expected[expected["check"] == "dose"]["value"])
        assert len(on)
    assert np.isfinite(rk.dose_response(ds)["dose"]).all()
    out = tmp_path / "run"
    data = HOLDERS["jsonl"](rows, tmp_path)
    command = [
        "run",
        "--data",
        data,
        "-a",
        f"{mine}:attribute",
        "--rewriter",
        f"{mine}:rewriter",
        "-r",
        f"{mine}:stars",
    ]
    assert main([str(a) for a in [*command, "--out", out, "--format", "csv"]]) == 0
    assert "bullets,stars,rate,ate" in capsys.readouterr().out
    assert main(["diagnose", str(out), "--format", "csv"]) == 0
    assert "bullets,dose" in capsys.readouterr().out
    for spec, message in {
        "mine.py:number": "is of type int; an Attribute was expected",
        "mine.py:atribute": "did you mean 'attribute'",
        "none.py:x": "no such file",
    }.items():
        with pytest.raises(InputError, match=message):
            find_attribute(f"{tmp_path}/{spec}")
    broken = written(tmp_path / "broken.py", "1 / 0")
    with pytest.raises(InputError, match=r"does not run \(ZeroDivisionError"):
        find_attribute(f"{broken}:x")


def test_a_strangers_dataset_runs_nothing():
    from ratekit.attributes import find_attribute, measure_of

    ds = rk.as_dataset([{"response": "a"}])
    ds.info.description = 'ratekit attribute ["x", "a", "b", "os:system"]\nratekit attribute [1]\nratekit attribute {'
    assert find_attribute("x", ds).treated == "a"
    assert measure_of("x", ds=ds) is None


# --- the command -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", ""], "--out: its value is empty"),
        (["--out="], "--out: its value is empty"),
        (["--seed", "-1"], "'--seed'"),
        (["--label-column", "kind\udcff"], r"the argument 'kind\udcff' is not UTF-8; rename what it names"),
        (["--seed", "1", "--seed", "2"], "--seed is given twice"),
        (["--label-column", "nope"], "unknown label column 'nope'"),
        (
            ["--column", "response=a", "--column", "response=b"],
            "--column response=b: response is a already; say it once",
        ),
        (["--rewriter", "replay"], "replay: the data carry no column 'rewrites'"),
    ],
)
def test_unclear_options_are_one_line_and_exit_code_2(arguments, message, tmp_path, capsys):
    data = HOLDERS["jsonl"](SHAPES["messages"], tmp_path)
    command = ["run", "--data", data, "-a", "length", "-r", "words", "--rewriter", "rules", *arguments]
    if not any("--out" in a for a in arguments):
        command += ["--out", tmp_path / "o"]
    assert main([str(a) for a in command]) == 2
    err = capsys.readouterr().err.strip()
    assert message in err
    assert "Traceback" not in err
    assert main(["run", "--data", "", "-a", "length", "-r", "words"]) == 2


def test_label_options_and_files_that_are_parts_of_one_table(tmp_path, capsys):
    rows = [{"prompt": f"Q{i}", "response": t, "kind": ("ham", "spam")[i % 2]} for i, t in enumerate(TEXTS)]
    halves = [
        written(tmp_path / f"p{k}.jsonl", "".join(json.dumps(r) + "\n" for r in rows[6 * k : 6 * k + 6]))
        for k in (0, 1)
    ]
    out = tmp_path / "o"
    command = f"run --data x --data-files {halves[0]} --data-files {halves[1]} -a length -r words --rewriter rules"
    assert (
        main([*command.split(), "--label-column", "kind", "--positive", "spam", "--out", str(out), "--format", "csv"])
        == 0
    )
    capsys.readouterr()
    ds = files.read(out)
    assert (len(ds), sum(ds["treated"])) == (12, 6)
    assert {k for k, t in zip(ds["kind"], ds["treated"], strict=True) if t} == {"spam"}


def test_a_terminal_without_the_letters_gets_their_codes(tmp_path):
    import subprocess
    import sys

    script = textwrap.dedent("""
        import pandas as pd
        from ratekit.cli import main
        raise SystemExit(main(["attributes", "--format", "csv"]) or print("\\u4e2d"))
    """)
    env = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True)
    assert b"\\u4e2d" in done.stdout, done.stderr[-300:]


# --- every function that takes rows, through the one door --------------------------------------------------


def _length(state):
    return lambda prompts, responses: [float(len(r)) for r in responses]


# Each public function that takes rows, called with nothing else than it needs; `None` where it is called above.
TAKERS = {
    "rk.as_dataset": lambda rows: rk.as_dataset(rows)["rewrites"][:],
    "rk.load": lambda rows: rk.load(rows)["rewrites"][:],
    "rk.label": lambda rows: rk.label(rows, "length")["treated"][:],
    "rk.rewrite": None,
    "rk.score": lambda rows: rk.score(rows, "words", progress=False)["reward/words"][:],
    "rk.placebo": lambda rows: rk.placebo(rows, "length", rewriter, progress=False)["rewrites"][:],
    "rk.estimate": rk.estimate,
    "rk.diagnose": rk.diagnose,
    "rk.verdicts": lambda rows: [(v.word, v.reason) for v in rk.verdicts(rows)],
    "rk.contrast": lambda rows: rk.contrast(rows, "words", "vader"),
    "rk.heterogeneity": lambda rows: rk.heterogeneity(rows, "style"),
    "rk.spillover": rk.spillover,
    "rk.dose_response": rk.dose_response,
    "rk.plan": lambda rows: rk.plan(rows, 0.1),
    "rk.sequential": lambda rows: rk.sequential(rows, tuned_for=20),
    "rk.adjusted": rk.adjusted,
    "rk.refusal_bounds": rk.refusal_bounds,
    "rk.across_rewriters": lambda rows: rk.across_rewriters(rows, "rewriter"),
    "rk.warranted": lambda rows: rk.warranted(rows, draws=50),
    "rk.compare_counterfactuals": lambda rows: rk.compare_counterfactuals(rows, "edited"),
    "rk.position": rk.position,
    "rk.audit": lambda rows: rk.audit(rows, "words", "length", progress=False).effects,
    "rk.card": None,  # an audit
    "rk.gate": lambda rows: rk.gate(rows, {"length": 100.0}, reward="words").table,
    "rk.assert_effect_below": None,  # the gate
    "rk.reach": None,  # samples of many responses to one prompt, in test_best_of_n.py
    "rk.discover": None,  # rows of responses, read by rk.load
    "rk.report": None,  # an audit, as `Audit.of` makes one of rows; the gate stands for it
    "rk.AuditCallback": None,  # in test_callbacks.py
    "plots.densities": lambda rows: [t.get_text() for t in rk.plots.densities(rows, "words").get_yticklabels()],
    "widgets.Explorer": lambda rows: rk.widgets.Explorer(rows).table,
    "widgets.AttributeLab": lambda rows: rk.widgets.AttributeLab(rows, "rules", "words").ds["response"][:],
    "merging.Instrument": lambda rows: str(rk.merging.Instrument(_length, rows)({})),
    "merging.effect_metric": lambda rows: rk.merging.effect_metric(_length, rows, "length")({}),
    "merging.audit": None,  # the instrument
    "widgets.EffectsDashboard": None,  # the Explorer
}  # fmt: skip
ROWS = {"ds", "rows", "data", "dataset", "source", "samples", "x", "run", "audit"}  # what their parameters are called
NO_ROWS = {"rk.Audit", "rk.Card", "rk.verify", "merging.determinism"}  # an audit, or a function to run


def test_the_table_names_every_function_that_takes_rows():
    found = set()
    for room, names in {"rk": rk, "plots": rk.plots, "widgets": rk.widgets, "merging": rk.merging}.items():
        for name in names.__all__:
            taker = getattr(names, name)
            if callable(taker) and name != "rewards":
                own = list(inspect.signature(taker).parameters)
                found |= {f"{room}.{name}"} if ROWS & set(own[:2]) else set()
    assert found - NO_ROWS == set(TAKERS)


@pytest.fixture(scope="module")
def all_columns():
    """Rows with whatever any of the functions reads."""
    ds = rk.load("reviews", attribute="length").select(range(24))
    ds = rk.score(rk.score(ds, "words", progress=False), "vader", progress=False)
    two = {"human_preference": ["treated", "untreated"], "rewriter": ["a", "b", "b"], "edited": ["Short.", "So it is."]}
    for name, values in two.items():
        ds = ds.add_column(name, (values * 24)[:24])
    for place in ("shown_first", "shown_second"):
        ds = ds.add_column(f"reward/words/{place}", [[float(len(place) + i % 3)] for i in range(24)])
    return ds


@pytest.mark.parametrize("name", [name for name, call in TAKERS.items() if call is not None])
def test_every_function_that_takes_rows_takes_every_shape(name, all_columns, tmp_path):
    call, path = TAKERS[name], tmp_path / "x.csv"
    all_columns.to_csv(path)
    expected = call(all_columns)
    held = [pd.read_csv(path), all_columns.to_list()]
    if name in ("rk.contrast", "rk.audit"):  # behind the same door
        splits = DatasetDict({"train": all_columns})
        held += [all_columns.to_pandas(), all_columns.to_dict(), path, str(path), splits, rk.Audit.of(all_columns)]
    for rows in held:
        found = call(rows)
        if isinstance(expected, pd.DataFrame):
            pd.testing.assert_frame_equal(found, expected)
        else:
            assert found == expected, type(rows)


def test_rewriters_of_different_prompts_are_compared(all_columns):
    apart = all_columns.remove_columns("rewriter").add_column("rewriter", ["a"] * 10 + ["b"] * 14)
    table = rk.across_rewriters(apart, rewards=["words"])
    one, other = (rk.estimate(apart.filter(lambda r, name=name: r["rewriter"] == name)) for name in "ab")
    effects = [t.query("reward_model == 'words' and estimator == 'rate'").estimate_sd.iloc[0] for t in (one, other)]
    assert table["estimate"][0] == pytest.approx(np.mean(effects))


def test_scored_rows_that_lack_one_column_are_told_which():
    rows = [{"prompt_id": "a", "attribute": "x", "treatd": True, "reward/r": [1.0]}]
    with pytest.raises(InputError, match=r"'treated' \(is it misspelt as 'treatd'\?\); the stage 'label' adds it"):
        rk.contrast(rows, "r", "r")


def test_texts_as_views_are_texts():
    views = {"prompt": pa.array(["Why?", "How?"], pa.string_view()), "response": pa.array(["a", "b"], pa.string_view())}
    rewrites = pa.array([["c", "d"], ["e", None]], pa.list_(pa.string_view()))
    table = pa.table({**views, "attribute": ["length"] * 2, "treated": [True, False], "rewrites": rewrites})
    for held in (table, Dataset(table)):
        ds = rk.as_dataset(held)
        assert ds["response"][:] == ["a", "b"]
        assert ds["rewrites"][:] == [["c", "d"], ["e", None]]


def test_an_na_of_r_is_missing_and_one_that_pandas_writes_is_a_text(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('"","prompt","response","grade"\n"1","Why?","NA",NA\n"2","How?","It works.",3.5\n')
    ds = rk.as_dataset(path)
    assert (ds["response"][:], ds["grade"][:]) == (["NA", "It works."], [None, 3.5])
    path.write_text('"prompt","response"\n"Why?",NA\n')
    with pytest.raises(InputError, match="row 1: the response is null"):
        rk.as_dataset(path)
    pd.DataFrame({"prompt": ["Why?"], "response": ["NA"]}).to_csv(path, index=False)
    assert rk.as_dataset(path)["response"][:] == ["NA"]
