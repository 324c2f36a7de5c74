"""Sources in their true schemas, any local file, and a clear line for every file that cannot be read."""

from __future__ import annotations

import gzip
import json

import pytest

import ratekit as rk
from ratekit import files
from ratekit.errors import InputError, WorkError
from ratekit.sources.loading import load
from ratekit.sources.public import transcript

HH = {
    "chosen": "\n\nHuman: Hi there\n\nAssistant: Hello!\n\nHuman: Name a fruit.\n\nAssistant: An apple.\n\nIt is red.",
    "rejected": "\n\nHuman: Hi there\n\nAssistant: Hello!\n\nHuman: Name a fruit.\n\nAssistant: No.",
}


def jsonl(path, rows):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8") as f:
        f.writelines(json.dumps(row) + "\n" for row in rows)
    return path


# --- the public datasets ---------------------------------------------------------------------------------


def test_hh_rlhf_keeps_every_turn_and_both_sides_share_a_prompt(tmp_path):
    ds = load("hh-rlhf", data_files=jsonl(tmp_path / "hh.jsonl", [HH]))
    assert ds["response"] == ["An apple.\n\nIt is red.", "No."]
    assert ds["chosen"] == [True, False]
    assert len(set(ds["prompt_id"])) == 1
    assert [t["role"] for t in ds[0]["prompt"]] == ["user", "assistant", "user"]
    assert ds[0]["prompt"][-1]["content"] == "Name a fruit."


def test_hh_rlhf_a_transcript_put_together_again_is_the_transcript(shared):
    names = {"user": "Human", "assistant": "Assistant"}
    for row in files.read(shared("hh_rlhf_harmless_base_test.jsonl.gz")).select(range(200)):
        for side in ("chosen", "rejected"):
            again = "".join(f"\n\n{names[t['role']]}: {t['content']}" for t in transcript(row[side]))
            assert " ".join(again.split()) == " ".join(row[side].split())


def test_hh_rlhf_without_an_assistant_turn_is_dropped_and_counted(tmp_path, caplog):
    ends_with_human = {"chosen": "\n\nHuman: Hi\n\nAssistant: A\n\nHuman: B", "rejected": "\n\nHuman: Hi"}
    ds = load("hh-rlhf", data_files=jsonl(tmp_path / "hh.jsonl", [HH, ends_with_human]))
    assert len(ds) == 2
    assert "1 of 2 rows hold no response" in caplog.text


def test_imdb_rows_are_clusters_of_their_own(tmp_path):
    rows = [{"text": "Good film.", "label": 1}, {"text": "Bad film.", "label": 0}, {"text": "Odd.", "label": -1}]
    ds = load("imdb", data_files=jsonl(tmp_path / "imdb.jsonl.gz", rows))
    assert len(set(ds["prompt_id"])) == 3
    assert ds["label"] == [1, 0, None]
    labelled = rk.label(ds, "sentiment")
    assert labelled["treated"] == [True, False]


def test_imdb_repeated_reviews_are_dropped_and_counted(tmp_path, caplog):
    rows = [{"text": "Same.", "label": 1}, {"text": "Same.", "label": 1}, {"text": "Other.", "label": 0}]
    ds = load("imdb", data_files=jsonl(tmp_path / "imdb.jsonl", rows))
    assert ds["response"] == ["Same.", "Other."]
    assert "1 repeated responses were dropped" in caplog.text


def test_helpsteer_scores_label_and_prompts_are_shared(tmp_path):
    scores = {"correctness": 3, "coherence": 4, "complexity": 1, "verbosity": 2}
    rows = [{"prompt": "Why?", "response": f"Because {k}.", "helpfulness": k, **scores} for k in (0, 2, 4)]
    ds = load("helpsteer", data_files=jsonl(tmp_path / "hs.jsonl", rows))
    assert len(set(ds["prompt_id"])) == 1
    labelled = rk.label(ds, "helpfulness")  # 2 of 0..4 is in the middle: no label
    assert labelled["response"] == ["Because 0.", "Because 4."]
    assert labelled["treated"] == [False, True]


def test_eli5_has_many_answers_under_one_question(tmp_path):
    row = {"q_id": "a1", "title": "Why is the sky blue?", "answers": {"text": ["Scattering.", "Air."], "score": [5, 2]}}
    ds = load("eli5", data_files=jsonl(tmp_path / "eli5.jsonl", [row]))
    assert ds["prompt_id"] == ["eli5-a1", "eli5-a1"]
    assert ds["score"] == [5, 2]
    assert ds[0]["prompt"] == [{"role": "user", "content": "Why is the sky blue?"}]


@pytest.mark.parametrize(
    ("name", "file", "n_rows"),
    [
        ("hh-rlhf", "hh_rlhf_helpful_base_test.jsonl.gz", 3197),
        ("hh-rlhf", "hh_rlhf_harmless_base_test.jsonl.gz", None),
        ("imdb", "imdb_train_3000.jsonl.gz", 3000),
        ("eli5", "eli5_human_answers.jsonl.gz", 627),
    ],
)
def test_real_samples_load_and_are_recognised_by_their_columns(shared, name, file, n_rows):
    ds = load(name, data_files=shared(file))
    assert n_rows is None or len(ds) == n_rows
    assert load(shared(file))["response"] == ds["response"]


def test_a_changed_schema_is_named(tmp_path):
    path = jsonl(tmp_path / "x.jsonl", [{"review": "Good.", "label": 1}])
    with pytest.raises(InputError, match=r"no column 'text'; this source has text, label, the data have review, label"):
        load("imdb", data_files=path)


def test_a_hub_that_cannot_be_reached_says_so(monkeypatch):
    def refuse(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr("datasets.load_dataset", refuse)
    with pytest.raises(WorkError, match=r"stanfordnlp/imdb.*--data-files"):
        load("imdb")


# --- the bundled reviews -----------------------------------------------------------------------------------


def test_bundled_reviews_carry_three_rewrites_of_each(shared):
    original = files.read(shared("reviews/reviews.jsonl"))
    ds = load("reviews")
    for column in ("response", "attribute", "treated", "rewrites", "kind", "style"):
        assert ds[column] == original[column]
    assert all(len(r) == 3 and None not in r for r in ds["rewrites"])


def test_attribute_selects_rows():
    assert set(load("reviews", attribute="length")["attribute"]) == {"length"}
    with pytest.raises(InputError, match="did you mean 'length'"):
        load("reviews", attribute="lengths")


def test_an_attribute_that_the_data_do_not_carry_gets_the_bare_responses():
    ds = load("reviews", attribute="formality")
    assert sorted(ds["response"]) == sorted(set(load("reviews")["response"]))
    assert not {"attribute", "treated", "rewrites", "rewrite_status"} & set(ds.column_names)


def test_sample_keeps_prompts_whole_and_repeats_with_its_seed(tmp_path):
    rows = [{"prompt": f"Question {i // 4}", "response": f"Answer {i}"} for i in range(80)]
    path = jsonl(tmp_path / "x.jsonl", rows)
    ds = load(path, n=20, seed=1)
    assert len(ds) == 20
    counts = [ds["prompt_id"].count(p) for p in set(ds["prompt_id"])]
    assert counts == [4] * 5
    assert load(path, n=20, seed=1)["response"] == ds["response"]
    assert load(path, n=20, seed=2)["response"] != ds["response"]


# --- any local file ------------------------------------------------------------------------------------------

ROWS = [{"prompt": "Why?", "response": "So — é."}, {"prompt": "How?", "response": "Thus."}]


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz", "x.json", "x.csv", "x.tsv", "x.parquet", "saved"])
def test_every_format_gives_the_same_rows(tmp_path, name):
    from datasets import Dataset

    path, ds = tmp_path / name, Dataset.from_list(ROWS)
    if name.startswith("x.jsonl"):
        jsonl(path, ROWS)
    elif name == "x.json":
        path.write_text(json.dumps(ROWS))
    elif name == "x.parquet":
        ds.to_parquet(str(path))
    elif name == "saved":
        ds.save_to_disk(str(path))
    else:
        ds.to_pandas().to_csv(path, sep="\t" if name == "x.tsv" else ",", index=False)
    loaded = load(path)
    assert loaded["response"] == ["So — é.", "Thus."]
    assert loaded[0]["prompt"] == [{"role": "user", "content": "Why?"}]


def test_a_scored_csv_reads_like_the_dataset_it_was_written_from(tmp_path):
    ds = rk.score(load("reviews", attribute="length"), "words", progress=False)
    ds.to_pandas().assign(**{"reward/words": ds["reward/words"], "prompt": [json.dumps(p) for p in ds["prompt"]]})[
        ["prompt_id", "prompt", "response", "attribute", "treated", "reward/words"]
    ].to_csv(tmp_path / "scored.csv", index=False)
    again = files.read(tmp_path / "scored.csv")
    assert again["prompt"] == ds["prompt"]
    assert rk.estimate(again).equals(rk.estimate(ds.select_columns(again.column_names)))


def test_columns_are_mapped_and_numbers_as_text_stay_text(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("prompt_id,answer\n007,NA\n008,None of these\n")
    ds = load(path, columns={"response": "answer"})
    assert ds["prompt_id"] == ["007", "008"]
    assert ds["response"] == ["NA", "None of these"]


def test_columns_missing_from_the_first_row_are_kept(tmp_path):
    path = jsonl(tmp_path / "x.jsonl", [{"response": "a"}, {"response": "b", "extra": 1}])
    assert files.read(path)["extra"] == [None, 1]


BAD_FILES = {
    "empty.jsonl": (b"", "the table is empty"),
    "empty.csv": (b"", "cannot be read as csv"),
    "head.csv": (b"prompt,response\n", "the table is empty"),
    "half.jsonl": (b'{"response": "a"}\n{"response": "b', "line 2: not JSON"),
    "list.jsonl": (b"[1, 2]\n", "line 1: .* is not an object"),
    "latin.jsonl": ('{"response": "caf\xe9"}'.encode("latin-1"), "line 1: not UTF-8 .* at byte 17"),
    "latin.csv": ("response\ncaf\xe9\n".encode("latin-1"), "not UTF-8"),
    "null.jsonl": (b'{"response": "a"}\n{"response": null}\n', "row 2: the response is null"),
    "number.jsonl": (
        b'{"response": "a"}\n{"response": 3}\n',
        "column 'response' cannot be one type .*str in row 1; int",
    ),
    "misspelt.jsonl": (b'{"respnse": "a"}\n', "no column 'response' .*--column response="),
    "twice.jsonl": (b'{"prompt": "p", "response": "a"}\n' * 2, "row 2 repeats row 1 .*--duplicates drop"),
    "cut.jsonl.gz": (gzip.compress(b'{"response": "a"}\n' * 9999)[:-20], "cannot be read as jsonl"),
    "not.parquet": (b"PAR1 nonsense", "cannot be read as parquet"),
    "notes.docx": (b"x", "cannot tell the format from the suffix '.docx'"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_gives_one_line_that_names_the_file_and_the_fault(tmp_path, name):
    content, message = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_where_a_file_was_meant(tmp_path):
    with pytest.raises(InputError, match="is a folder, but not a saved dataset"):
        load(tmp_path)


def test_a_response_of_ten_megabytes_is_refused_by_row(tmp_path):
    path = jsonl(tmp_path / "x.jsonl", [{"response": "a"}, {"response": "word " * 2_000_000}])
    with pytest.raises(InputError, match=r"row 2: the response has 10,000,000 characters, over the limit of 300,000"):
        load(path)


def test_duplicates_can_be_dropped_or_kept(tmp_path):
    path = jsonl(tmp_path / "x.jsonl", [{"prompt": "p", "response": "a"}] * 3)
    assert len(load(path, duplicates="drop")) == 1
    assert len(load(path, duplicates="keep")) == 3
    with pytest.raises(InputError, match="did you mean 'drop'"):
        load(path, duplicates="dorp")


def test_an_unknown_source_is_met_with_the_nearest_names():
    with pytest.raises(InputError, match="did you mean 'imdb'"):
        load("imbd")
    with pytest.raises(InputError, match=r"no such file or folder: missing.jsonl"):
        load("missing.jsonl")


def biased(folder, bias, n=6, scored=(), lost=False):
    """Files as in the authors' repository."""
    rows = [
        {"query": f"Why {i}?", "original_response": f"So {i}.", "perturbed_response": f"{bias} {i}!",
         "base_response": f"It is so, {i}."}
        for i in range(n)
    ]  # fmt: skip
    paths = [folder / f"all_data_perturbed_{bias}.jsonl"]
    paths[0].write_text("".join(json.dumps(row) + "\n" for row in rows))
    for model in scored:
        paths.append(folder / f"{bias}_scored_{model}.jsonl")
        paths[-1].write_text("".join(
            json.dumps({"query": r["query"], "base_response": r["base_response"] + "?" * (lost and i == 0),
                        "base_score": 1.0 * i, "perturbed_response": r["perturbed_response"],
                        "perturbed_score": 2.0 * i + len(model)}) + "\n"
            for i, r in enumerate(rows)
        ))  # fmt: skip
    return paths


def test_the_five_biases_load_by_name_from_their_repositorys_files(tmp_path, caplog):
    biases = ("length", "structure", "jargon", "sycophancy", "vagueness")
    paths = [p for bias in biases for p in biased(tmp_path, bias, scored=("2B", "fine_tuned_2B_750_3"))]
    for bias in biases:
        ds = rk.load("flattery-fluff-fog", attribute=bias, data_files=paths)
        assert set(ds["attribute"]) == {bias}
        assert not any(ds["treated"])
        assert ds[1]["rewrites"] == [f"{bias} 1!", "It is so, 1."]
        assert ds[1]["reward/2B"] == [None, 4.0, 1.0]
    table = rk.estimate(rk.load("flattery-fluff-fog", data_files=paths))
    found = table[(table.estimator == "rate") & (table.reward_model == "2B")].set_index("attribute").estimate
    assert found.to_dict() == dict.fromkeys(biases, 4.5)  # the mean of i + 2 over 0 to 5
    some = [*biased(tmp_path, "jargon", scored=("8B",), lost=True), *biased(tmp_path, "length")]
    ds = rk.load("flattery-fluff-fog", data_files=some)
    assert "jargon, 8B: 1 of 6 scores are of other texts" in caplog.text
    assert [r[1] is None for r in ds["reward/8B"]] == [True, *[False] * 5, *[True] * 6]
    with pytest.raises(InputError, match=r"have no originals: give all_data_perturbed_jargon"):
        rk.load("flattery-fluff-fog", data_files=some[1])
    other = tmp_path / "other.jsonl"
    other.write_text('{"query": "Why?"}\n')
    with pytest.raises(InputError, match=r"other\.jsonl: all_data_perturbed_BIAS\.jsonl"):
        rk.load("flattery-fluff-fog", data_files=other)
