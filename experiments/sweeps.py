"""The paper's three sweeps in a world of texts with known truth: `python experiments/sweeps.py`.

Confounding grows from step to step while the true effect stays; a good estimate is flat. The same as
`ratekit reproduce sweep-imdb --rewriter simulated` and its two sisters, for a reward by rules and for a small reward
model that is trained on the spot, beside the authors' published curves. Writes sweeps.csv, sweeps_slopes.csv, and
sweeps.png, sweeps_model.png and sweeps_published.png beside this file; sweeps.md says in words what they show.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

import ratekit as rk
from ratekit import plots
from ratekit.demo import train_reward_model
from ratekit.scoring import make_reward
from ratekit.simulate import RuleReward, slopes

HERE = Path(__file__).parent
SWEEPS = ("sweep-imdb", "sweep-helpsteer", "sweep-typos")
PUBLISHED = {
    "sweep-imdb": ("length-sentiment", "DistilBERT"),
    "sweep-helpsteer": ("helpfulness-complexity", "ArmoRM"),
    "sweep-typos": ("vowel-typos", "FsfairX"),
}


def simulated(folder: Path, rewards: list, n: int) -> pd.DataFrame:
    """The ATEs of the three sweeps, made by the same code as the command."""
    tables = [
        rk.reproduce.run(name, folder / name, rewriter="simulated", rewards=rewards, n=n).table for name in SWEEPS
    ]
    table = pd.concat(tables, ignore_index=True)
    return table[(table["estimand"] == "ate") & (table["estimator"] != "rate_late")]


def published() -> pd.DataFrame:
    """The authors' curves in the same columns; paired intervals where they were published, none for the typo sweep."""
    parts = []
    for name, (design, model) in PUBLISHED.items():
        rows = rk.published(name)
        rows = rows[(rows["estimand"] == "ate") & (rows["estimator"] != "naive_rewritten")]
        rows = rows[rows["reward_model"].str.contains(model, case=False)]
        se = rows.get("se", 0.0)
        parts.append(
            rows.assign(
                design=design, reward_model=model, truth=float("nan"), ci_low=rows["estimate"] - 1.96 * se,
                ci_high=rows["estimate"] + 1.96 * se,
            )
        )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def draw(path: Path, table: pd.DataFrame) -> None:
    """A panel for each sweep."""
    sweeps = list(dict.fromkeys(zip(table["design"], table["reward_model"], strict=True)))
    figure, axes = plt.subplots(1, len(sweeps), figsize=(5.2 * len(sweeps), 4.2), squeeze=False, layout="constrained")
    for ax, (design, model) in zip(axes[0], sweeps, strict=True):
        plots.sweep(table, design=design, reward_model=model, ax=ax)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Run the sweeps and write tables and figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = make_reward(train_reward_model(Path(folder) / "demo-rm"))
        model.name = "demo-rm"
        table = simulated(Path(folder), [RuleReward(), model], args.n)
    found = slopes(table)
    table.to_csv(args.out / "sweeps.csv", index=False, float_format="%.5g")
    found.to_csv(args.out / "sweeps_slopes.csv", index=False, float_format="%.4f")
    rules = table["reward_model"] == "rules"
    for name, part in (("sweeps", table[rules]), ("sweeps_model", table[~rules]), ("sweeps_published", published())):
        draw(args.out / f"{name}.png", part)
    print(found.round(4).to_string(index=False))


if __name__ == "__main__":
    main()
