"""The studies, each one function: it makes what it needs with ratekit's public functions and writes its tables.

rewriter   a real small rewriter, real reward models: what do the verdicts say, and why?
planted    real double rewrites by GPT-4o: is a planted length bias found, and does the naive comparison find it?
truth      worlds of texts whose true effect on these very models is known
merging    the two SmolLM2 models merged by every method
zero       the multiple of the planted bias at which the length effect is gone
card       all biases of the reward models on one page, by rules
discover   is the planted length bias found where nobody names it?
judges     the language model itself as a judge, alone and of pairs
sweep      the paper's own sweep (length tied to sentiment), with a real rewriter and a real classifier
"""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pictures import PICTURES, save
from train import Pair, fit, pairs_of, split

import ratekit as rk
from ratekit import files
from ratekit.rewriting import Options
from ratekit.scoring.adapters import JUDGE, PAIRWISE
from ratekit.simulate import WORLDS, TextWorld

STRUCTURE = rk.Attribute(
    "structure", "more structured, with lists and headings", "in plain paragraphs",
    measure=lambda texts: [float(sum(line.lstrip().startswith(("-", "*", "#", "1.")) for line in t.splitlines()))
                           for t in texts],
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where everything is: the data, the models, the folder of the work, the folder of the results, and the sizes."""

    data: Path
    models: Path
    smollm2: Path
    minilm: Path
    work: Path
    results: Path
    size: Any
    seed: int

    @property
    def hh(self) -> Path:
        """HH-RLHF helpful pairs."""
        return self.data / "hh_rlhf_helpful_base_test.jsonl.gz"

    @property
    def rewards(self) -> dict[str, str]:
        """The three trained reward models by name."""
        return {name: str(self.models / name) for name in ("rm-helpful", "rm-length", "rm-minilm")}

    def held_out(self) -> list[Pair]:
        """Pairs that no reward model was trained on."""
        return split(pairs_of(self.hh, self.seed), self.size.pairs, self.size.held_out)[1]

    def reviews(self, name: str, n: int) -> tuple[list[str], list[int]]:
        """Texts and labels of an IMDB file."""
        rows = files.read(self.data / name).to_list()[:n]
        return [r["text"] for r in rows], [int(r["label"]) for r in rows]

    def write(self, name: str, table: pd.DataFrame) -> None:
        """A table of results."""
        self.results.mkdir(parents=True, exist_ok=True)
        table.to_csv(self.results / f"{name}.csv", index=False, float_format="%.5g")

    def draw(self, name: str, table: pd.DataFrame) -> None:
        """The picture of a table of results."""
        save(PICTURES[name](table), self.results, name)


def verdict_table(audit: rk.Audit) -> pd.DataFrame:
    """The verdicts of an audit, a row each: the recommended estimate in SDs, the word, the reason, the sentence."""
    rows = []
    for v in audit.verdicts:
        e = v.estimate or {}
        rows.append({
            "attribute": v.attribute, "reward_model": v.reward_model, "verdict": v.word,
            **{c: e.get(c) for c in ("estimator", "estimand", "estimate_sd", "ci_low_sd", "ci_high_sd", "n")},
            "reason": v.reason, "sentence": v.sentence,
        })  # fmt: skip
    return pd.DataFrame(rows)


def n_texts(ds: Any, models: int) -> int:
    """Texts that were scored."""
    return models * sum(1 + sum(t is not None for t in chain or ()) for chain in ds["rewrites"])


# --- a real rewriter, real reward models ----------------------------------------------------------------------


def rewriter(place: Place) -> dict[str, Any]:
    """HH-RLHF replies rewritten by SmolLM2, thrice, scored by the three reward models."""
    size = place.size
    rows = [
        {"prompt_id": p.prompt_id, "prompt": p.prompt, "response": text}
        for p in place.held_out()
        for text in (p.chosen, p.rejected)
        if 8 <= len(text.split()) <= size.words
    ]
    audit = rk.audit(
        rows, place.rewards, ["length", "sentiment"], rewriter=f"hf:{place.smollm2}", depth=3, n=size.rewrites,
        seed=place.seed, out=place.work / "rewriter", duplicates="drop",
        options=Options(max_tokens=size.new_tokens, seed=place.seed), progress=False,
    )  # fmt: skip
    audit.report()
    place.write("rewriter_verdicts", verdict_table(audit))
    place.write("rewriter_effects", audit.effects)
    place.write("rewriter_checks", rk.diagnose(audit.checked))
    ds, status = audit.dataset, []
    for attribute in ("length", "sentiment"):
        chains = [s for s, a in zip(ds["rewrite_status"], ds["attribute"], strict=True) if a == attribute]
        for k in range(3):
            status += [
                {"attribute": attribute, "pass": k + 1, "status": name, "n": n}
                for name, n in Counter(chain[k] for chain in chains).most_common()
            ]
    place.write("rewriter_status", pd.DataFrame(status))
    place.draw("rewriter_effects", audit.effects)
    sample = random.Random(place.seed).sample(range(len(ds)), min(60, len(ds)))
    with (place.work / "rewriter_sample.jsonl").open("w", encoding="utf-8") as f:
        for i in sample:
            row = ds[i]
            kept = {k: row[k] for k in ("attribute", "treated", "response", "rewrites", "rewrite_status")}
            f.write(json.dumps(kept, ensure_ascii=False) + "\n")
    used = audit.provenance["rewriting"]
    return {
        "texts": used["replies"], "tokens": used["tokens_out"], "generation_seconds": used["seconds"],
        "scored": n_texts(ds, 3), "screen": repr(audit),
    }  # fmt: skip


# --- real double rewrites by GPT-4o -----------------------------------------------------------------------------


def doubles(place: Place) -> Any:
    """The published double rewrites, without the rewards that came with them."""
    paths = [place.data / "double_rewrites" / f"{name}.jsonl.gz" for name in ("length", "structure")]
    parts = [rk.load("flattery-fluff-fog", data_files=str(p), duplicates="keep").to_list() for p in paths]
    if place.size.shortest:
        parts = [sorted(part, key=lambda row: sum(map(len, row["rewrites"]))) for part in parts]
    rows = [row for part in parts for row in part[: place.size.doubles]]
    kept = ("prompt_id", "prompt", "response", "attribute", "treated", "rewrites", "rewrite_status")
    return rk.as_dataset([{c: row[c] for c in kept} for row in rows])


def planted(place: Place) -> dict[str, Any]:
    """Does RATE find the planted length bias on GPT-4o's rewrites, and does the naive comparison?"""
    ds, effects, contrasts = doubles(place), [], []
    for judged in (False, True):
        name = "judged" if judged else "as-published"
        if judged:  # the same texts: what is scored is scored
            first, second = (place.work / f"planted-{x}" / "scores" for x in ("as-published", "judged"))
            shutil.copytree(first, second, dirs_exist_ok=True)
        audit = rk.audit(
            ds, place.rewards, ["length", STRUCTURE], rewriter="replay", seed=place.seed,
            out=place.work / f"planted-{name}", options=Options(judged=judged), progress=False,
        )  # fmt: skip
        effects.append(verdict_table(audit).assign(rewrites=name))
        for unit in ("sd", "reward"):
            found = rk.contrast(audit.dataset, "rm-length", "rm-helpful", unit=unit)
            contrasts.append(found.assign(rewrites=name, unit=unit))
        if not judged:
            drawn = audit.plot(estimators=("single_rewrite", "rate"), estimand="atu").figure
            save(drawn, place.results, "planted_effects")
        else:
            audit.report()
    place.write("planted_quarters", quarters(audit.dataset))
    place.write("planted_verdicts", pd.concat(effects))
    place.write("planted_contrasts", pd.concat(contrasts))
    # The naive comparison needs long and short originals: the held-out HH-RLHF replies, labelled by their median.
    held_out = place.held_out()
    replies = [
        {"prompt_id": p.prompt_id, "prompt": p.prompt, "response": text}
        for p in held_out for text in (p.chosen, p.rejected)
    ]  # fmt: skip
    natural = rk.label(rk.load(replies, duplicates="drop"), "length")
    for name, folder in place.rewards.items():
        natural = rk.score(natural, folder, name=name, cache=place.work / "scores", progress=False)
    table = rk.estimate(natural)
    place.write("planted_naive", table[["reward_model", "estimate_sd", "ci_low_sd", "ci_high_sd", "n"]])
    naive = rk.contrast(natural, "rm-length", "rm-helpful", estimator="naive", unit="sd")
    place.write("planted_naive_contrast", naive)
    # What was planted: what a held-out pair's longer response gains, read from the models as any user would.
    planted = {}
    for name in ("rm-helpful", "rm-length", "rm-minilm"):
        rows = rk.as_dataset([
            {"prompt_id": p.prompt_id, "prompt": p.prompt, "response": text}
            for p in held_out for text in (p.chosen, p.rejected)
        ])  # fmt: skip
        rewards = np.array(rk.score(
            rows, place.rewards[name], name=name, cache=place.work / "scores", progress=False
        )[f"reward/{name}"])[:, 0]  # fmt: skip
        planted[name] = fit(rewards[::2] - rewards[1::2], held_out)
    place.write("planted_training", pd.DataFrame([{"reward_model": k, **v} for k, v in planted.items()]))
    words = [len(r[0].split()) - len(r[1].split()) for r, a in zip(ds["rewrites"], ds["attribute"], strict=True)
             if a == "length"]  # fmt: skip
    return {
        "texts": 2 * n_texts(ds, 3) + len(natural) * 3, "words_more_in_longer_rewrite": float(np.mean(words)),
    }  # fmt: skip


def quarters(ds: Any) -> pd.DataFrame:
    """The contrast of the length effects (rm-length - rm-helpful) in the quarters of the originals' length."""
    length = [i for i, name in enumerate(ds["attribute"]) if name == "length"]
    ds = ds.select(length)
    words = np.array([[len((t or "").split()) for t in [r, *c]]
                      for r, c in zip(ds["response"], ds["rewrites"], strict=True)])  # fmt: skip
    quarter = np.searchsorted(np.quantile(words[:, 0], [0.25, 0.5, 0.75]), words[:, 0])
    found = rk.contrast(ds.add_column("quarter", quarter.tolist()), "rm-length", "rm-helpful", unit="reward",
                        by="quarter")  # fmt: skip
    found = found.sort_values("quarter")
    of = [quarter == q for q in found["quarter"]]
    return found.assign(
        words_of_the_original=[words[rows, 0].mean() for rows in of],
        words_more=[(words[rows, 1] - words[rows, 2]).mean() for rows in of],
    )


# --- known truth ------------------------------------------------------------------------------------------------


def truth(place: Place) -> dict[str, Any]:
    """The estimators graded on these models in worlds of texts, and two-phase estimation against complete rows."""
    worlds = [*WORLDS, TextWorld("complexity", "length", typos=(0.05, 0.05))]
    n, graded, two_phase = place.size.world, [], []
    for name, folder in place.rewards.items():
        reward = rk.scoring.make_reward(folder)
        graded.append(rk.simulate.calibrate(reward, worlds, name=name, n=n, depth=4, seed=place.seed))
        sample = worlds[0].sample(4 * n, place.seed)
        table = sample.dataset(depth=2).remove_columns("twin").to_list()
        for i, row in enumerate(table):
            if i % 4:
                row["rewrites"], row["rewrite_status"] = [None, None], ["not_attempted", "not_attempted"]
        ds = rk.score(rk.as_dataset(table), reward, name=name, progress=False)
        twins = np.asarray(reward(sample.prompts, sample.twins))
        first = np.array([r[0] for r in ds[f"reward/{name}"]])
        true = float(np.mean(np.where(sample.treated, 1.0, -1.0) * (first - twins)))
        for how in ("complete", "two-phase"):
            found = rk.estimate(ds, sample=how)
            row = found[(found["estimator"] == "rate") & (found["estimand"] == "ate")]  # none where rows are too few
            shown = row[["estimate", "se", "ci_low", "ci_high", "n", "n_dropped"]].to_dict("records")
            two_phase += [{"reward_model": name, "sample": how, "truth": true, **values} for values in shown]
    place.write("truth_calibrate", pd.concat(graded))
    place.write("truth_two_phase", pd.DataFrame(two_phase))
    return {"texts": 3 * (len(worlds) * n * 6 + 4 * n * 2 + 2 * n)}


# --- merging ----------------------------------------------------------------------------------------------------


def members(place: Place) -> tuple[dict[str, Path], list[Any], list[dict[str, Any]]]:
    """The two models, the two halves of the length rows, and held-out preference pairs."""
    size = place.size
    rows = [row for row in doubles(place).to_list() if row["attribute"] == "length"]
    halves = [rk.as_dataset(rows[k : 2 * size.merge_rows : 2]) for k in (0, 1)]
    pairs = [
        {"prompt": p.prompt, "chosen": p.chosen, "rejected": p.rejected} for p in place.held_out()[: size.merge_pairs]
    ]
    return {name: place.models / name for name in ("rm-helpful", "rm-length")}, halves, pairs


def merging(place: Place) -> dict[str, Any]:
    """Every merge of rm-helpful and rm-length: accuracy, barrier and length effect."""
    models, halves, pairs = members(place)
    for methods in (place.size.methods, (*place.size.methods, *place.size.learned)):  # the quick ones first
        table = rk.merging.audit(
            models, halves[0], methods, base=place.models / "rm-base", pairs=pairs, out=place.work / "merging",
            barrier_points=1, progress=False, seed=place.seed,
        )  # fmt: skip
        place.write("merging_audit", table)
        place.draw("merging_audit", table)
    return {"texts": len(table) * (3 * len(halves[0]) + 2 * len(pairs)), "rows": len(table)}


def zero(place: Place) -> dict[str, Any]:
    """How much of the planted bias to take away from rm-helpful for no length effect; tested on other rows."""
    models, halves, pairs = members(place)
    folder = str(models["rm-helpful"])
    effect, other = (rk.merging.effect_metric(folder, ds, "length") for ds in halves)
    found = rk.merging.zero_effect(
        rk.merging.line(*models.values()), effect, within=(-2.0, 1.0), held_out=other, grid=place.size.grid,
        accuracy=rk.merging.accuracy_metric(folder, pairs), tolerance=0.02,
    )  # fmt: skip
    place.write("merging_zero", found.table)
    said = {c: getattr(found, c) for c in ("coefficient", "ci_low", "ci_high", "accuracy_before", "accuracy")}
    return {"texts": 3 * len(found.table) * len(halves[0]), "statement": found.statement, **said}


# --- all biases, and one that nobody named ------------------------------------------------------------------------


def replies(place: Place, n: int) -> list[dict[str, Any]]:
    """Held-out replies, both of each pair, n in all."""
    return [
        {"prompt_id": p.prompt_id, "prompt": p.prompt, "response": text}
        for p in place.held_out() for text in (p.chosen, p.rejected)
    ][:n]  # fmt: skip


def card(place: Place) -> dict[str, Any]:
    """The bias card of rm-helpful and rm-length by rules, in two phases."""
    size, folder = place.size, place.work / "card"
    rewards = {name: place.rewards[name] for name in ("rm-helpful", "rm-length")}
    found = rk.card(
        rewards, replies(place, size.card), two_phase=size.card_rewritten, seed=place.seed, duplicates="drop",
        out=folder, progress=False,
    )  # fmt: skip
    place.write("card", found.table)
    place.write("card_contrasts", found.contrasts)
    return {"texts": n_texts(found.audit.dataset, 2), "left_out": found.left_out}


def discover(place: Place) -> dict[str, Any]:
    """What rm-length pays for, searched for without a word of length."""
    size = place.size
    found = rk.discover(
        place.rewards["rm-length"], replies(place, 2 * size.held_out), name="rm-length", rounds=size.rounds,
        n_screen=size.screened, n_confirm=size.confirmed, seed=place.seed, out=place.work / "discover",
    )  # fmt: skip
    place.write("discover", found.tried)
    return {"confirmed": list(found.confirmed)}


# --- judges -----------------------------------------------------------------------------------------------------


def judges(place: Place) -> dict[str, Any]:
    """SmolLM2 as a judge: its length effect, its answers' share of the probability, what it pays for a place."""
    rows = [row for row in doubles(place).to_list() if row["attribute"] == "length"][: place.size.judged]
    references = place.work / "references.jsonl"
    place.work.mkdir(parents=True, exist_ok=True)
    with references.open("w", encoding="utf-8") as f:
        for row in rows:
            f.write(json.dumps({"prompt": row["prompt"], "response": row["rewrites"][1]}) + "\n")
    audit = rk.audit(
        rk.as_dataset(rows), {"judge": f"judge:{place.smollm2}", "pairwise": f"pairwise:{place.smollm2},{references}"},
        seed=place.seed, out=place.work / "judges", progress=False,
    )  # fmt: skip
    audit.report()
    table = verdict_table(audit)
    place.write("judges_verdicts", table)
    place.write("judges_position", rk.position(audit.dataset))
    place.write("judges_answers", pd.DataFrame([
        {"judge": name, **answer_share(place.smollm2, adapter, rows[: place.size.asked])}
        for name, adapter in (("judge", JUDGE), ("pairwise", PAIRWISE))
    ]))  # fmt: skip
    return {"texts": n_texts(audit.dataset, 3)}


def answer_share(folder: Path, adapter: Any, rows: list[dict[str, Any]]) -> dict[str, float]:
    """The probability that a judge gives its two answers together, and how often one of them is its likeliest word."""
    import torch

    from ratekit.scoring.model import RewardModel

    judge = RewardModel(folder, adapter)
    answers = [judge.tokenizer(a, add_special_tokens=False)["input_ids"][0] for a in adapter.answers]
    responses = [row["response"] for row in rows]
    if adapter is PAIRWISE:
        a, b = adapter.answers
        shown = "<response {a}>\n{x}\n</response {a}>\n\n<response {b}>\n{y}\n</response {b}>"
        responses = [
            shown.format(a=a, b=b, x=row["rewrites"][0], y=row["rewrites"][1]) for row in rows
        ]  # fmt: skip
    texts, _ = judge.encode([row["prompt"] for row in rows], responses)
    shares, likeliest = [], []
    network = type(judge.model).from_pretrained(folder, dtype=torch.float32).to(judge.model.device).eval()
    with torch.inference_mode():
        for text in texts:
            if text is not None:
                logits = network(torch.tensor([list(text.ids)], device=network.device)).logits[0, -1]
                shares.append(float(torch.softmax(logits, -1)[answers].sum()))
                likeliest.append(int(logits.argmax()) in answers)
    return {"share": float(np.mean(shares)), "share_sd": float(np.std(shares, ddof=1)),
            "answer_is_likeliest": float(np.mean(likeliest)), "n": len(shares)}  # fmt: skip


# --- the paper's sweep -------------------------------------------------------------------------------------------


def sweep(place: Place) -> dict[str, Any]:
    """Length tied to sentiment at eleven strengths: IMDB, rewritten by SmolLM2, a MiniLM classifier as reward."""
    texts, labels = place.reviews("imdb_test_2000.jsonl.gz", 2000)
    reviews = place.work / "imdb-short.jsonl"
    place.work.mkdir(parents=True, exist_ok=True)
    with reviews.open("w", encoding="utf-8") as f:
        for text, label in zip(texts, labels, strict=True):
            if len(text) <= place.size.review_characters:
                f.write(json.dumps({"text": text, "label": label}) + "\n")
    finished = rk.reproduce.run(
        "sweep-imdb", place.work / "sweep", n=place.size.sweep, rewriter=f"hf:{place.smollm2}", depth=3,
        rewards=[str(place.models / "sentiment-minilm")], data_files=[reviews], seed=place.seed,
        options=Options(max_tokens=place.size.review_tokens, seed=place.seed), progress=False,
    )  # fmt: skip
    table = finished.table
    place.write("sweep", table)
    place.draw("sweep", table)
    status = Counter(s for chain in finished.audit.dataset["rewrite_status"] for s in chain)
    used = finished.audit.provenance["rewriting"]
    return {
        "texts": used["replies"], "tokens": used["tokens_out"], "generation_seconds": used["seconds"],
        "status": dict(status),
    }  # fmt: skip


STUDIES = {f.__name__: f for f in (rewriter, planted, truth, merging, zero, card, discover, judges, sweep)}
