"""What does merging do to what reward models reward? `python experiments/merging/study.py [--quick]`

Trains the models (or takes them from cache/), measures every path and every merge, judges PREDICTIONS.md, and writes
beside this file: members, paths, merges, audit, probes, zeros, zero_curves and verdicts (.csv), results.md, and three
figures.
Twenty to thirty minutes on one core the first time; --quick, two seeds and a fifth of everything, a minute and a half.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import figures
import pandas as pd
import torch
from analyses import audited, members_table, merges, paths, probes, zeros
from bench import Bench
from members import QUICK, Size, train_members
from models import Cache
from verdicts import Results, judge

HERE = Path(__file__).parent
SHOWN = {"accuracy": "accuracy", "effect/length": "length", "effect/style": "style", "effect/quality": "quality"}


def run(size: Size, cache: Path, out: Path, *, resume: bool = False, progress: bool = True) -> Results:
    """All of the study; its tables are written into `out`, and with `resume` those that are there are taken."""
    torch.set_num_threads(1)  # four times faster than two at this size
    began = time.monotonic()
    trained = Cache(cache)
    members = train_members(trained, size, progress)
    bench, held_out = Bench(size.prompts, 7, size.test_pairs), Bench(size.prompts, 8)
    along = Bench(size.path_prompts, 7, size.test_pairs)
    out.mkdir(parents=True, exist_ok=True)

    def table(name: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        file = out / f"{name}.csv"
        if not (resume and file.exists()):
            make().to_csv(file, index=False, float_format="%.6g")
        return pd.read_csv(file)  # the same digits, whether made now or before

    def solved() -> pd.DataFrame:
        rows, curves = zeros(members, size, bench, held_out, progress)
        curves.to_csv(out / "zero_curves.csv", index=False, float_format="%.6g")
        return rows

    alone = table("members", lambda: members_table(members, bench))
    zero = table("zeros", solved)
    curves = pd.read_csv(out / "zero_curves.csv")
    probed = table("probes", lambda: probes(members, size, bench, trained))
    merged = table("merges", lambda: merges(members, size, bench, progress))
    along_paths = table("paths", lambda: paths(members, size, along, progress))
    contrasts = table("audit", lambda: audited(members, along, size.test_pairs, progress))
    results = Results(alone, along_paths, merged, probed, zero)
    verdicts = judge(results)
    verdicts.to_csv(out / "verdicts.csv", index=False)
    (out / "results.md").write_text(report(results, verdicts, contrasts, size), encoding="utf-8")
    for name, figure in (("paths", figures.paths(results.paths)), ("merges", figures.merges(results.merges)),
                         ("zeros", figures.zeros(zero, curves))):  # fmt: skip
        figure.savefig(out / f"{name}.png", dpi=130)
    print(f"wrote {out / 'results.md'} ({time.monotonic() - began:.0f} s)")
    return results


def report(results: Results, verdicts: pd.DataFrame, contrasts: pd.DataFrame, size: Size) -> str:
    """The tables that a reader wants first, as Markdown."""
    held = int(verdicts["holds"].sum())
    lines = [
        "# Merging reward models: results", "",
        "Made by `python experiments/merging/study.py`, seeded; what they mean is in [README.md](README.md), what was "
        f"expected in [PREDICTIONS.md](PREDICTIONS.md). {size.seeds} seeds of each kind. Effects are RATE's, in reward "
        "SDs; loss and accuracy are on unbiased pairs.", "",
        f"## Predictions: {held} of {len(verdicts)} hold", "",
        "| | prediction | holds | what was seen |", "|---|---|---|---|",
        *(f"| {v.prediction} | {v.claim} | {_yes(v.holds)} | {v.seen} |" for v in verdicts.itertuples()),
        "", "## The members", "", *_members(results.members),
        "", "## Merges", "", "Mean over seeds (95 % t interval over seeds, where a group has several). The base and "
        "the members' mean stand first.", "",
    ]  # fmt: skip
    for group in dict.fromkeys(results.merges["group"]):
        lines += [f"### {group}", "", *_merges(results.merges[results.merges["group"] == group]), ""]
    lines += ["## One group audited", "", "`rk.merging.audit` of U0, L0 and S0, with paired contrasts to the member "
              "that has the bias (95 % intervals over prompts).", "", *_contrasts(contrasts), ""]  # fmt: skip
    lines += ["## Probes", "", "| probe | about | number | value |", "|---|---|---|---|"]
    lines += [f"| {p.probe} | {p.about} | {p.number} | {p.value:.4g} |" for p in results.probes.itertuples()]
    lines += ["", "## Zero effect", "", "A biased model plus t times (another seed's biased model less its unbiased "
              f"one); t solves \"effect = 0\" on {size.prompts} prompts, the effect there is measured on as many "
              "others.", "",
              "| model | t | interval | held-out effect | interval | accuracy before | after | unbiased | at t = -1 |",
              "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for z in results.zeros.itertuples():
        at = f"{z.coefficient:.3f} | {z.ci_low:.3f} to {z.ci_high:.3f}"
        there = f"{z.held_out:+.3f} | {z.held_out_low:+.3f} to {z.held_out_high:+.3f}"
        accuracies = (z.accuracy_before, z.accuracy, z.accuracy_unbiased, z.accuracy_at_minus_1)
        shown = " | ".join(f"{100 * a:.1f} %" for a in accuracies)
        lines.append(f"| {z.kind}, seed {z.seed} | {at} | {there} | {shown} |")
    return "\n".join([*lines, ""])


def _yes(holds: bool) -> str:
    return "yes" if holds else "**no**"


def _members(table: pd.DataFrame) -> list[str]:
    lines = [
        "| kind | init | loss | accuracy | length (true) | style (true) | quality (true) |",
        "|---|---|---|---|---|---|---|",
    ]
    for (init, kind), of in table.groupby(["init", "kind"], sort=False):
        mean = of.groupby("quantity")[["value", "truth"]].mean()
        effects = " | ".join(
            f"{mean.value[f'effect/{a}']:+.2f} ({mean.truth[f'effect/{a}']:+.2f})"
            for a in ("length", "style", "quality")
        )
        lines.append(
            f"| {kind} | {init} | {mean.value['loss']:.3f} | {100 * mean.value['accuracy']:.1f} % | {effects} |"
        )
    return lines


def _merges(table: pd.DataFrame) -> list[str]:
    lines = [f"| method | {' | '.join(SHOWN.values())} |", "|---|" + "---|" * len(SHOWN)]
    order = (
        table[table["quantity"] == "accuracy"]
        .groupby("method", sort=False)["value"]
        .mean()
        .sort_values(ascending=False)
    )
    first = ["members' mean", "base", "output ensemble"]
    for method in [*first, *(m for m in order.index if m not in first)]:
        cells = []
        for quantity in SHOWN:
            values = table[(table["method"] == method) & (table["quantity"] == quantity)]["value"].to_numpy()
            scale, digits = (100, 1) if quantity == "accuracy" else (1, 2)
            low, high = figures.interval(values)
            sign = "" if quantity == "accuracy" else "+"
            spread = f" ({scale * low:{sign}.{digits}f} to {scale * high:{sign}.{digits}f})" if low == low else ""
            cells.append(f"{scale * values.mean():{sign}.{digits}f}{spread}")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return lines


def _contrasts(table: pd.DataFrame) -> list[str]:
    lines = ["| model | accuracy | barrier | length | style | quality | length less L0's | style less S0's |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for _, row in table.iterrows():
        less = []
        for contrast in ("length - L0", "style - S0"):
            low, high = row[f"{contrast}_ci_low"], row[f"{contrast}_ci_high"]
            less.append(f"{row[contrast]:+.2f} ({low:+.2f} to {high:+.2f})" if low == low else "")
        barrier = f"{row['barrier']:.4f}" if row["barrier"] == row["barrier"] else ""
        effects = " | ".join(f"{row[a]:+.2f}" for a in ("length", "style", "quality"))
        lines.append(f"| {row['model']} | {100 * row['accuracy']:.1f} % | {barrier} | {effects} | {' | '.join(less)} |")
    return lines


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two seeds and a fifth of everything, into cache/quick")
    parser.add_argument("--out", type=Path, help="default: beside this file")
    parser.add_argument("--resume", action="store_true", help="take the tables that are there, make the others")
    parser.add_argument("--cache", type=Path, default=HERE / "cache", help="of trained models")
    args = parser.parse_args()
    out = args.out or (args.cache / "quick" if args.quick else HERE)
    run(QUICK if args.quick else Size(), args.cache, out, resume=args.resume)


if __name__ == "__main__":
    main()
