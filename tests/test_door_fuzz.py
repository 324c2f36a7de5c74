"""Thousands of odd tables and damaged files: the oracle's number, or one line that says what is wrong.

The oracle is written out in plain Python from what each row means, and shares no code with the package.
"""

from __future__ import annotations

import gzip
import json
import math
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset

import ratekit as rk
from ratekit.errors import InputError
from ratekit.groups import treated_bools

RESPONSES = ['It\'s so,\n"yes".', "[1, 2]", "NA", "true", "\u4e2d\u6587 \U0001f600", "=1+1"]


def study(draw):
    """Rows as they are meant: 6 to 24 of them, depth 1 to 3, some rewards not there."""
    depth, n = draw.randint(1, 3), draw.randint(6, 24)
    return [
        {
            "prompt_id": f"{i % max(2, n // 2):03d}",
            "prompt": f"Question {i % max(2, n // 2)}, [why]?",
            "response": f"{draw.choice(RESPONSES)} {i}",
            "attribute": "x",
            "treated": i % 2 == 0,
            "rewrites": [draw.choice(["a 'b'", 'c "d"', "e\nf", "['g' 'h']", None]) for _ in range(depth)],
            "reward/r": [None if draw.random() < 0.1 else round(draw.gauss(0, 10), 3) for _ in range(depth + 1)],
        }
        for i in range(n)
    ]  # fmt: skip


def oracle(rows):
    """The naive difference and RATE's average effect, or None where they do not exist."""
    first = {side: [r["reward/r"][0] for r in rows if r["treated"] is side and r["reward/r"][0] is not None]
             for side in (True, False)}  # fmt: skip
    naive = None
    if first[True] and first[False]:
        naive = sum(first[True]) / len(first[True]) - sum(first[False]) / len(first[False])
    differences = [
        ((r["reward/r"][2] - r["reward/r"][1]) * (1 if r["treated"] else -1), r["treated"])
        for r in rows
        if len(r["reward/r"]) > 2 and r["reward/r"][1] is not None and r["reward/r"][2] is not None
    ]
    sides = {sign for _, sign in differences}
    rate = sum(d for d, _ in differences) / len(differences) if len(sides) == 2 else None
    return {"naive": naive, "rate": rate}


def spelt(rows, draw):
    """The same rows, some of their values written otherwise."""
    yes, no = draw.choice([(True, False), ("true", "FALSE"), (" Yes", "no "), (1, 0), ("1", "0"), (1.0, 0.0)])
    out = []
    for row in rows:
        row = {**row, "treated": yes if row["treated"] else no}
        if draw.random() < 0.5 and rows[0]["prompt_id"]:
            row["prompt"] = [{"role": "user", "content": [{"type": "text", "text": row["prompt"]}]}]
        out.append(row)
    if draw.random() < 0.3:
        out = [{**row, "reward/r": json.dumps(row["reward/r"]), "rewrites": json.dumps(row["rewrites"])} for row in out]
    if draw.random() < 0.3:
        draw.shuffle(out)
    return out


def held(rows, draw, folder):
    """The rows in a holder or a file; a CSV of numpy's lists has eight digits, which is enough for these."""
    turns = any(isinstance(r["prompt"], list) for r in rows)
    mixed = turns and not all(isinstance(r["prompt"], list) for r in rows)
    kind = draw.choice(["list", "lists", "frame", "jsonl", "jsonl.gz", "json"] + ([] if mixed else FORMATS))
    if kind == "list":
        return rows
    if kind == "lists":
        return {name: [r[name] for r in rows] for name in rows[0]}
    if kind == "frame":
        return pd.DataFrame(rows)
    path = folder / f"x.{kind.partition(' ')[0]}"
    if kind.startswith("json"):
        text = json.dumps(rows) if kind == "json" else "".join(json.dumps(r) + "\n" for r in rows)
        path.write_bytes(gzip.compress(text.encode()) if kind.endswith("gz") else text.encode())
        return path
    ds = Dataset.from_list(rows)
    if kind == "arrow":
        return ds
    if kind == "pandas":
        return ds.to_pandas()
    if kind == "parquet":
        ds.to_parquet(path)
    elif kind == "csv":
        ds.to_csv(path)
    else:
        pd.DataFrame(rows).to_csv(path, index=draw.random() < 0.5, sep="\t" if kind == "tsv" else ",")
    return path


FORMATS = ["arrow", "pandas", "parquet", "csv", "csv of frame", "tsv"]
WRONG = [
    None, "", [], {}, [[]], "maybe", -1, 0.5, float("nan"), float("inf"), -math.inf, 1e300, 10**30, 2**63, "[1,",
    "\x00",    ["a", 1], {"role": "user"}, [{"role": "user"}], [None], [float("nan")], [float("inf"), 1.0],
    [1e200, 1.0],
    "half \ud83d", b"bytes", (1, 2), np.array([1.0, np.nan]), object, [[1.0], [2.0]], "['a' 'b'", True, "nan",
    [True, "x"],
]  # fmt: skip


def spoilt(rows, draw):
    """A few cells, columns or rows of other kinds."""
    rows = [dict(row) for row in rows]
    for _ in range(draw.randint(1, 3)):
        name = draw.choice(list(rows[0]) or ["x"])
        what = draw.randrange(6)
        if what < 3:
            draw.choice(rows)[name] = draw.choice(WRONG)
        elif what == 3:
            wrong = draw.choice(WRONG)
            for row in rows:
                row[name] = wrong
        elif what == 4:
            for row in rows:
                row.pop(name, None)
        else:
            draw.choice(rows).pop(name, None)
    return rows


def one_line(error):
    assert "\n" not in str(error), error
    assert len(str(error)) < 2000


def checked(given, expected=None, calls=(rk.estimate, rk.diagnose)):
    """Estimate and diagnose: whether there are estimates; the oracle's where it has some, and never infinite."""
    told = False
    for call in calls:
        try:
            table = call(given)
        except InputError as e:
            one_line(e)
            if call is rk.estimate and any(v is not None for v in (expected or {}).values()):
                raise AssertionError(f"refused: {e}") from e
            continue
        if call is rk.diagnose:
            continue
        told = True
        assert not np.isinf(table["estimate"]).any()
        for estimator, value in (expected or {}).items():
            found = table[(table["estimator"] == estimator) & (table["estimand"] == "ate")]["estimate"]
            if value is not None:
                assert len(found) == 1, estimator
                assert found.item() == pytest.approx(value, abs=1e-5), estimator
    return told


def framed(rows):
    try:
        return pd.DataFrame(rows)
    except UnicodeEncodeError:  # half of a surrogate pair in pandas' own text columns
        return pd.DataFrame(rows, dtype=object)


def tables(n, folder, start=0):
    """How many of n tables, spelt in an odd way or spoilt, could be estimated."""
    told = 0
    for seed in range(start, start + n):
        draw = random.Random(seed)
        rows = study(draw)
        calls = (rk.estimate, rk.diagnose) if seed % 5 == 0 else (rk.estimate,)
        try:
            if seed % 2:
                told += checked(held(spelt(rows, draw), draw, folder), oracle(rows), calls)
            else:
                bad = spoilt(rows, draw)
                told += checked(draw.choice([framed, list])(bad), calls=calls)
        except Exception as e:
            raise AssertionError(f"seed {seed}: {type(e).__name__}: {e}") from e
    return told


def files(n, folder, start=0):
    """How many of n damaged files could be estimated; the others were refused in one line."""
    read = 0
    for seed in range(start, start + n):
        draw = random.Random(seed)
        path = None
        while not isinstance(path, Path):
            path = held(spelt(study(draw), draw), draw, folder)
        raw = bytearray(path.read_bytes())
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(raw) or 1)
            match draw.randrange(6):
                case 0:
                    del raw[at:]
                case 1:
                    raw[at : at + 1] = bytes([draw.randrange(256)])
                case 2:
                    raw[at:at] = draw.choice(
                        [b"\x00", b"\xef\xbb\xbf", b'"', b",", b"\n", b"[", b"{", b"\\ud83d", b"\xff\xfe"]
                    )
                case 3:
                    del raw[at : at + draw.randrange(20)]
                case 4:
                    raw[at:at] = raw[at : at + 50]
                case 5:
                    raw[at:at] = b"[" * 2000
        path.write_bytes(bytes(raw))
        try:
            read += checked(path)
            rk.load(path)
        except InputError as e:
            one_line(e)
        except Exception as e:
            raise AssertionError(f"seed {seed}, {path.name}: {type(e).__name__}: {e}") from e
    return read


def test_odd_tables_give_the_oracles_number_or_one_line(tmp_path):
    assert 30 <= tables(80, tmp_path) < 80


@pytest.mark.parametrize("seed", [10_378, 10_714, 12_900])
def test_tables_that_once_ended_in_another_exception(seed, tmp_path):
    assert tables(1, tmp_path, start=seed) in (0, 1)


def test_damaged_files_are_read_or_refused_in_one_line(tmp_path):
    assert 1 <= files(60, tmp_path) < 60


def test_half_of_a_surrogate_pair_is_no_label():
    with pytest.raises(InputError, match=r"row 2: 'treated' holds .*; true or false was expected"):
        treated_bools(pd.Series(["true", "half \ud83d"], dtype=object))


def test_the_oracle_would_notice(tmp_path, monkeypatch):
    import ratekit.sources.loading as loading

    monkeypatch.setattr(loading, "treated_bools", lambda values: np.array([bool(v) for v in values]))
    with pytest.raises(AssertionError, match="seed"):
        tables(20, tmp_path)


@pytest.mark.slow
def test_three_thousand_tables(tmp_path):
    assert 1200 <= tables(3000, tmp_path, start=10_000) < 3000


@pytest.mark.slow
def test_five_hundred_files(tmp_path):
    assert 5 <= files(500, tmp_path, start=10_000) < 500
