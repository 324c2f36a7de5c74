"""The bias card: one fixed suite of attributes, one shared set of double rewrites, any number of reward models.

    card = rk.card(["vader", "./my-rm"], data="reviews", rewriter="rules", out="card")

It is an audit of the whole suite, read as one table: p-values are adjusted over all its rows, and so is the smallest
effect that would have been seen. Another reward model on the same folder costs its scoring and asks no rewriter.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from ratekit import files
from ratekit.attributes import find_attribute
from ratekit.audits.results import Audit
from ratekit.audits.screen import bar, headline, other_than_rate, recorded_notes, remarks
from ratekit.audits.study import Labelled, Settings, carry_out, labelled, rewriters_of, rewritten
from ratekit.conclusions import CANNOT_TELL, NO_TRUST, in_units
from ratekit.diagnostics import contrast
from ratekit.errors import InputError, NoRewriteError, unknown
from ratekit.escaping import escaped, visible
from ratekit.estimators import ESTIMANDS
from ratekit.intervals import LEVEL
from ratekit.labellers import Attribute, present
from ratekit.resampling import adjust
from ratekit.rewriting import Options
from ratekit.rewriting.cost import Meter
from ratekit.rewriting.rules import SUITE, SUITE_VERSION
from ratekit.schema import ATTRIBUTE, REWRITES
from ratekit.scoring import RewardLike, read_rewards
from ratekit.tables import (
    Table,
    as_csv,
    as_json,
    as_markdown,
    as_text,
    number_with_interval,
    plain_markdown,
    table_html,
    table_of,
)

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset

log = logging.getLogger("ratekit")

FDR = 0.05
ALONE = "texts without it"
RAISES, LOWERS, NOT_SHOWN, NO_TEST = "raises", "lowers", "not shown", "no test"
FAIR = {0: "no effect", -1: "lowers", 1: "raises"}
_SHOWN = {
    "attribute": "attribute", "finding": "finding", "seen": "effect (SD)", "of": "for a change of",
    "p_adjusted": "p adjusted",
    "smallest": "would have been seen", "fair": "a fair model", "verdict": "verdict", "reason": "why",
}  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class Card:
    """A bias card.

    Attributes
    ----------
    audit : Audit
        Rows, rewrites, rewards, effects and verdicts that the card is read from.

    Examples
    --------
    >>> import ratekit as rk
    >>> card = rk.card("vader", data="reviews", attributes=["flattery", "apology"], n=60, progress=False)
    >>> card.table[["attribute", "finding"]].values.tolist()
    [['flattery', 'raises'], ['apology', 'lowers']]
    """

    audit: Audit

    @property
    def suite(self) -> str:
        """The version of the suite."""
        return str(self.audit.provenance.get("suite", ""))

    @property
    def left_out(self) -> dict[str, str]:
        """The attributes of the suite that these data cannot be labelled by, or that no rewrite has, and why."""
        asked = (self.audit.provenance.get("settings") or {}).get("attributes") or []
        there = set(self.audit.dataset[ATTRIBUTE])
        unable = {name: "the rewriter gave no rewrite that could be used" for name in asked if name not in there}
        return unable | dict(self.audit.provenance.get("left_out") or {})

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row for each reward model and attribute, the largest effect of a model first.

        Columns: attribute (with its group), reward_model, finding, effect, ci_low, ci_high (SDs of the reward, 95 %),
        p_value, p_adjusted (Benjamini and Hochberg over the card), smallest (the effect that would have been seen in
        80 % of such samples were it the only one on the card), dose, dose_unit, fair (what a model without a bias
        does), biased (the finding is another), verdict, reason, estimator, estimand, df, n, n_dropped. `finding` is
        "raises" or "lowers" where p_adjusted is below 5 %, else "not shown"; "no test" where the rows do not tell what
        is chance or hold no rewrite; "do not trust" where that is the verdict.
        """
        import pandas as pd

        verdicts = self.audit.at_level(LEVEL).verdicts
        m = max(sum(bool(v.estimate) and math.isfinite(v.estimate["p_value"]) for v in verdicts), 1)
        rows, raw = [], []
        for v in verdicts:
            if not v.estimate:
                continue
            raw.append(v.estimate["estimate"])
            seen = in_units({**v.estimate, "level": 1 - FDR / m})
            sds = 1.0 if seen.in_sds else math.nan  # a number in the reward's own units is none of this table
            rows.append({
                "attribute": v.name, "reward_model": v.reward_model, "finding": "", "effect": seen.estimate * sds,
                "ci_low": seen.low * sds, "ci_high": seen.high * sds, "p_value": v.estimate["p_value"],
                "smallest": seen.smallest * sds,
                "dose": v.estimate.get("dose", math.nan), "dose_unit": v.estimate.get("dose_unit", ""),
                "fair": FAIR[SUITE[v.attribute].fair if v.attribute in SUITE else 0], "biased": False,
                "verdict": v.word, "reason": v.reason, "estimator": v.estimate["estimator"],
                "estimand": v.estimate["estimand"], "df": v.estimate.get("df", math.nan), "n": v.estimate["n"],
                "n_dropped": v.estimate["n_dropped"],
            })  # fmt: skip
        if not rows:
            raise InputError("card: nothing is scored; give rewards")
        table = adjust(pd.DataFrame(rows))
        sign = np.where(np.array(raw) > 0, RAISES, LOWERS)
        table["finding"] = np.where(table["p_adjusted"] < FDR, sign, NOT_SHOWN)
        told = table["p_adjusted"].notna() & (table["estimator"] != "naive")
        table.loc[~told, "finding"] = NO_TEST  # alike in every row, one cluster, or nothing was rewritten
        table.loc[table["verdict"] == NO_TRUST, "finding"] = NO_TRUST
        table["biased"] = table["finding"].isin([RAISES, LOWERS]) & (table["finding"] != table["fair"])
        order = {name: i for i, name in enumerate(dict.fromkeys(table["reward_model"]))}
        size = table["effect"].abs().fillna(-1).where(table["finding"] != NO_TRUST, -2)
        keys = pd.DataFrame({"model": table["reward_model"].map(order), "size": -size})
        return table.loc[keys.sort_values(["model", "size"], kind="stable").index].reset_index(drop=True)

    @cached_property
    def contrasts(self) -> pd.DataFrame:
        """Each two reward models' effects of each attribute, paired on their shared rewrites; p adjusted over all."""
        import pandas as pd

        models, found = list(dict.fromkeys(self.table["reward_model"])), []
        for one, two in combinations(models, 2):
            try:
                found.append(contrast(self.audit.dataset, one, two))
            except InputError as e:
                log.info("%s", e)
        if not found:
            return pd.DataFrame(columns=["attribute", "reward_model", "estimate", "ci_low", "ci_high", "p_adjusted"])
        every = pd.concat(found, ignore_index=True)
        every["order"] = every["estimand"].map(ESTIMANDS.index)
        first = every.loc[every.groupby(["attribute", "reward_model"], sort=False)["order"].idxmin()]
        return adjust(first.drop(columns="order")).reset_index(drop=True)

    @property
    def models(self) -> list[str]:
        """The reward models, in their order."""
        return list(dict.fromkeys(map(str, self.table["reward_model"])))

    @property
    def cost(self) -> str:
        """What the rewriting took, in one line."""
        used = self.audit.provenance.get("rewriting") or {}
        asked, money = used.get("requests") or 0, used.get("cost")
        priced = f", {money:.4g}" if money else ""
        ds = self.audit.dataset
        rewritten = sum(bool(chain) for chain in ds[REWRITES]) if REWRITES in ds.column_names else 0
        return f"{asked:,} requests to a rewriter{priced}; {rewritten:,} double rewrites for every model"

    @property
    def notes(self) -> list[str]:
        """What is to be known of the numbers: suite, cost, what was left out or dropped."""
        left = [f"{name} is left out: {why}" for name, why in self.left_out.items()]
        behind = recorded_notes(self.audit)
        return [
            f"{f'suite {self.suite}' if self.suite else 'attributes of no suite'}; {self.cost}",
            *left,
            *(r for r in remarks(self.audit) if r not in behind),
        ]

    def of(self, model: str) -> pd.DataFrame:
        """The rows of one model as they are shown."""
        rows = self.table[self.table["reward_model"] == model].copy()
        rows["seen"] = [_number(row) for row in rows.to_dict("records")]
        rows["of"] = [
            f"{dose:+.3g} {unit}" if dose == dose else "-"
            for dose, unit in zip(rows["dose"], rows["dose_unit"], strict=True)
        ]
        return rows[list(_SHOWN)].rename(columns=_SHOWN)

    @property
    def markdown(self) -> str:
        """The card as Markdown."""
        parts = [f"# Bias card\n\n{plain_markdown(headline(self.audit))}"]
        parts += [f"## {plain_markdown(name)}\n\n{as_markdown(table_of(self.of(name)))}" for name in self.models]
        if len(self.contrasts):
            parts.append(f"## Between models\n\n{as_markdown(table_of(self._differences()))}")
        notes = "\n".join(f"- {plain_markdown(note)}" for note in [_READ, *self.notes])
        return "\n\n".join([*parts, notes]) + "\n"

    @property
    def html(self) -> str:
        """The card as one page, which runs no script and asks no network for anything."""
        edge = float(np.nanmax([1e-9, *self.table[["effect", "ci_low", "ci_high"]].abs().to_numpy().ravel()]))
        parts = []
        for name in self.models:
            shown = table_of(self.of(name))
            rows = self.table[self.table["reward_model"] == name]
            bars = [bar(*v, edge) for v in zip(rows["effect"], rows["ci_low"], rows["ci_high"], strict=True)]
            why = [_folded(row[-1]) for row in shown.rows]
            cells = [[*r[:2], b, *r[2:-1], w] for r, b, w in zip(shown.rows, bars, why, strict=True)]
            wide = Table([*shown.columns[:2], "", *shown.columns[2:]],
                         [*shown.numeric[:2], False, *shown.numeric[2:]], cells)  # fmt: skip
            sure = rows["verdict"] != CANNOT_TELL
            biased, open_ = (list(rows["attribute"][rows["biased"] & of]) for of in (sure, ~sure))
            said = f"Shown: {', '.join(biased)}." if biased else "No bias is shown, which is not to say there is none."
            said += f" Shown if the rewrites do what they should: {', '.join(open_)}." if open_ else ""
            html = table_html(wide, raw=["", "why"], label=f"effects on {visible(name)}")
            parts.append(f"<h2>{escaped(name)}</h2><p>{escaped(said)}</p><div>{html}</div>")
        if len(self.contrasts):
            parts.append(f"<h2>Between models</h2><div>{table_html(table_of(self._differences()))}</div>")
        notes = "".join(f"<li>{escaped(note)}</li>" for note in self.notes)
        above = f"<p>{escaped(headline(self.audit))}.</p><p>{escaped(_READ)}</p>"
        return _page("Bias card", f"{above}{''.join(parts)}<h2>Notes</h2><ul>{notes}</ul>")

    @property
    def json(self) -> str:
        """The card as JSON: suite, settings, table, contrasts, notes."""
        whole = {
            "suite": self.suite, "settings": self.audit.provenance.get("settings") or {},
            "table": json.loads(as_json(self.table)), "contrasts": json.loads(as_json(self.contrasts)),
            "left_out": dict(self.left_out), "notes": self.notes,
        }  # fmt: skip
        return json.dumps(whole, indent=2, ensure_ascii=False, default=str) + "\n"

    @property
    def texts(self) -> dict[str, str]:
        """The card in each form, by the ending of its file."""
        return {"html": self.html, "md": self.markdown, "json": self.json, "csv": as_csv(self.table)}

    def save(self, folder: str | Path) -> list[Path]:
        """Write card.html, card.md, card.json and card.csv into a folder, and give their paths."""
        return [files.replace_text(Path(folder) / f"card.{kind}", text) for kind, text in self.texts.items()]

    def _differences(self) -> pd.DataFrame:
        rows = self.contrasts.copy()
        rows["difference (SD)"] = [
            number_with_interval(*v) for v in zip(rows["estimate"], rows["ci_low"], rows["ci_high"], strict=True)
        ]
        rows["p adjusted"] = rows["p_adjusted"]
        return rows[["attribute", "reward_model", "difference (SD)", "p adjusted"]].rename(
            columns={"reward_model": "models"}
        )

    def __repr__(self) -> str:
        parts = [visible(headline(self.audit))]
        for name in self.models:
            parts += ["", visible(name), as_text(table_of(self.of(name).drop(columns="why")))]
        return "\n".join([*parts, "", *map(visible, self.notes)])

    def _repr_html_(self) -> str:
        return self.html.partition("<main>")[2].partition("</main>")[0]  # the page's own rules are none of a notebook's


_READ = (
    "Effects are in SDs of the reward, with 95 % intervals; p-values are adjusted over the card (Benjamini and "
    "Hochberg), and a finding is below 5 %. What is not shown may be there: an effect of the size under 'would have "
    "been seen' is found in 80 % of such samples."
)
_PAGE = """
html { color-scheme: light dark; }
body { margin: 0; color: #1c1c1c; background: #fff; }
main { max-width: 76rem; margin: 0 auto; padding: 1.5rem; }
@media (prefers-color-scheme: dark) { body { color: #e6e6e3; background: #171717; } }
"""
_STYLE = """
.rk-card { font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
.rk-card > div { overflow-x: auto; }
.rk-card h2 { margin-top: 2rem; }
.rk-card table { border-collapse: collapse; table-layout: auto; width: 100%; font-size: .85rem;
  font-variant-numeric: tabular-nums; }
.rk-card :is(th[scope], td[data-name]) { text-align: left; vertical-align: top; padding: .3rem .7rem .3rem 0;
  max-width: 16rem; border-bottom: 1px solid rgba(127,127,127,.4); }
.rk-card td[data-name=why] { min-width: 12rem; max-width: none; }
.rk-card td:is([data-name="finding"], [data-name="effect (SD)"], [data-name="difference (SD)"], .n) {
  white-space: nowrap; }
.rk-card th { opacity: .75; }
.rk-card :is(th, td).n { text-align: right; }
.rk-card summary { cursor: pointer; }
"""


def _number(row: Mapping[str, Any]) -> str:
    """An effect of a card as it is shown: which, where not by RATE, and its interval."""
    number = number_with_interval(row["effect"], row["ci_low"], row["ci_high"])
    return other_than_rate(row) + number if row["effect"] == row["effect"] else "-"


def _folded(why: str) -> str:
    """Reasons as HTML: the gravest is seen, the others are folded."""
    first, _, others = why.partition("; ")
    more = f"<details><summary>more</summary>{escaped(others)}</details>" if others else ""
    return f"{escaped(first)}{more}"


def suite(attributes: Sequence[str | Attribute] = (), rewriter: Any = None) -> list[Attribute]:
    """The attributes of a card: those named, of the suite or of your own; by default the whole suite.

    A rule takes away only what it puts in itself, so with the rewriter "rules" the attributes whose rule is exact for
    texts without them are varied in those texts alone.

    Examples
    --------
    >>> [a.name for a in suite(["hedging"])], len(suite()) >= 20
    (['hedging'], True)
    """
    found = []
    for given in attributes or list(SUITE):
        if isinstance(given, str) and ":" not in given and given not in SUITE:
            raise unknown("attribute of the suite", given, SUITE)
        ruled = SUITE.get(given) if isinstance(given, str) else None
        attribute = find_attribute(given)
        if ruled is not None and ruled.exact == ALONE and str(rewriter).startswith("rules"):
            assert attribute.measure is not None
            attribute = replace(attribute, label=present(attribute.measure, kept=False))
        found.append(attribute)
    return found


def card(
    rewards: RewardLike | Sequence[RewardLike] | Mapping[str, RewardLike] = (),
    data: Any = "reviews",
    *,
    rewriter: Any = "rules",
    attributes: Sequence[str | Attribute] = (),
    depth: int | None = None,
    n: int | None = None,
    precision: float | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    data_files: str | Path | Sequence[str | Path] | None = None,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    duplicates: str | None = None,
    turn: int | None = None,
    two_phase: int | None = None,
    cache: str | Path | None = None,
    options: Options | None = None,
    meter: Meter | None = None,
    trust_remote_code: bool = False,
    progress: bool = True,
) -> Card:
    """What are the biases of these reward models or judges, on one page?

    Parameters
    ----------
    rewards : str, Path, callable, sequence or mapping
        As in `rk.audit`.
    data : Any
        Prompts and responses, as in `rk.audit`.
    rewriter : str or callable
        "rules", "openai:MODEL", "hf:MODEL", ...
    attributes : sequence of str or Attribute
        Those of the suite that are wanted, or of your own; by default the whole suite.
    n, seed, depth, data_files, split, columns, duplicates, turn, two_phase, cache, options, meter
        As in `rk.audit`.
    precision : float, optional
        Rewrite no more rows than it takes: 64, then twice as many at each look, until every 95 % interval reaches no
        further than that many SDs to each side, or the rows (or `n`, or `two_phase`) are used up.
    out : str or Path, optional
        Folder of the audit and of card.html, card.md, card.json and card.csv. The same call with another reward scores
        the double rewrites that are there and asks no rewriter.

    Returns
    -------
    Card
        One table, one page; `.audit` has all behind it.

    Notes
    -----
    `precision` looks at the widths of intervals and never at the effects, so that the intervals of a card that stopped
    early are those of a sample of fixed size, to first order (Chow and Robbins 1965, Annals of Mathematical Statistics
    36:457): 95 % intervals cover 95 % with normal differences, and 92 % with exponential ones, whose small samples look
    narrow. To stop as soon as an effect is seen, use `rk.sequential`, whose intervals hold whatever one looks at.

    Raises
    ------
    InputError
        For a wrong call, or where no attribute of the suite can be labelled in these data.

    Examples
    --------
    >>> import ratekit as rk
    >>> card = rk.card({"long": lambda p, r: [len(x.split()) for x in r]}, attributes=["length"], n=40, progress=False)
    >>> card.table["finding"].tolist()
    ['raises']
    """
    settings = Settings(
        data, tuple(suite(attributes, rewriter)), data_files, split, columns, duplicates, rewriter=rewriter,
        depth=depth, n=n, seed=seed, options=options or Options(), turn=turn, two_phase=two_phase,
    )  # fmt: skip
    return drawn_up(
        None if out is None else Path(out), settings, rewards, precision=precision, cache=cache, meter=meter,
        trust_remote_code=trust_remote_code, progress=progress,
    )  # fmt: skip


def drawn_up(
    folder: Path | None,
    settings: Settings,
    rewards: Any,
    *,
    precision: float | None = None,
    cache: str | Path | None = None,
    meter: Meter | None = None,
    trust_remote_code: bool = False,
    progress: bool = True,
) -> Card:
    """The card of these settings, kept in `folder`."""
    if "" not in rewriters_of(settings.rewriter):
        raise InputError("card: one rewriter was expected; rk.audit and `ratekit audit` take several")
    rewards = read_rewards(rewards, trust_remote_code=trust_remote_code)
    if folder is not None:
        files.check_place(folder)
    replies = cache or (folder / "rewrites" if folder is not None else None)
    if precision is not None:
        settings = enough(settings, rewards, precision, replies=replies, meter=meter,
                          trust_remote_code=trust_remote_code, progress=progress)  # fmt: skip
    settings, parts, left = labellable(settings)
    found = carry_out(
        folder, settings, rewards,
        lambda meter: _rewritten(parts, settings.options, replies, meter, progress),
        about={"suite": SUITE_VERSION, "left_out": left}, meter=meter, trust_remote_code=trust_remote_code,
        progress=progress,
    )  # fmt: skip
    made = Card(found)
    if folder is not None:
        made.save(folder)
    return made


def _rewritten(
    parts: Sequence[Labelled], options: Options, replies: Any, meter: Meter, progress: bool
) -> Dataset:  # fmt: skip
    """The rows of all attributes but those of which no rewrite succeeded."""
    from datasets import concatenate_datasets

    done, fault = [], None
    for part in parts:
        try:
            done.append(rewritten([part], options, cache=replies, meter=meter, progress=progress))
        except NoRewriteError as e:
            fault = e
            log.warning("card: %s is left out: %s", part.attribute.name if part.attribute else "", e)
    if fault is not None and not done:
        raise fault
    return done[0] if len(done) == 1 else concatenate_datasets(done)


_FIRST = 64  # rows before the first look: fewer say too little of a variance


def looks(most: int) -> list[int]:
    """The numbers of rows at which a card with a wanted precision is looked at.

    Examples
    --------
    >>> looks(300), looks(40)
    ([64, 128, 256, 300], [40])
    """
    return [*(_FIRST * 2**k for k in range(most.bit_length()) if _FIRST * 2**k < most), most]


def enough(
    settings: Settings, rewards: Any, precision: float, *, replies: Any = None, meter: Meter | None = None,
    trust_remote_code: bool = False, progress: bool = True,
) -> Settings:  # fmt: skip
    """With as many rewritten rows as make every 95 % interval reach no further than `precision` SDs, or else with all.

    Raises
    ------
    InputError
        `precision` is not above 0.
    """
    if not precision > 0:
        raise InputError(f"precision={precision}: SDs above 0 were expected, as in 0.1")
    _, parts, _ = labellable(settings)
    *before, most = looks(max(len(part.asked()) for part in parts))
    for n in before:
        some = with_rewritten(settings, n)
        table = drawn_up(
            None, some, rewards, cache=replies, meter=meter, trust_remote_code=trust_remote_code,
            progress=progress,
        ).table  # fmt: skip
        reach = float(((table["ci_high"] - table["ci_low"]) / 2).max())
        log.info("card: %d rows, and the widest interval reaches %.2f SD to each side", n, reach)
        if reach <= precision:
            return some
    return with_rewritten(settings, most)


def with_rewritten(settings: Settings, n: int | None) -> Settings:
    """The settings with n rows rewritten: of so many originals, or in two phases of all that there are."""
    return replace(settings, n=n) if settings.two_phase is None else replace(settings, two_phase=n)


def labellable(settings: Settings) -> tuple[Settings, list[Labelled], dict[str, str]]:
    """The settings with the attributes that these data can be labelled by, their rows, and why others are left out."""
    kept: list[Attribute] = []
    parts: list[Labelled] = []
    left: dict[str, str] = {}
    for attribute in map(find_attribute, settings.attributes):
        try:
            parts += labelled(replace(settings, attributes=(attribute,)))
            kept.append(attribute)
        except InputError as e:
            left[attribute.name] = str(e)
    if not kept:
        raise InputError(f"card: no attribute of the suite can be labelled: {next(iter(left.values()))}")
    return replace(settings, attributes=tuple(kept)), parts, left


# --- many cards -------------------------------------------------------------------------------------------------------


def leaderboard(cards: Sequence[str | Path | Card]) -> pd.DataFrame:
    """The reward models of many cards side by side, with intervals that hold all at once.

    Parameters
    ----------
    cards : sequence of str, Path or Card
        Cards, or the folders that they are kept in.

    Returns
    -------
    DataFrame
        attribute, reward_model, effect, ci_low, ci_high, shown (the interval leaves 0 out, the verdict is not "do
        not trust", and something was rewritten), verdict, estimator, estimand. The intervals hold all at once in 95 %
        of such boards (Bonferroni, by Student's t).

    Raises
    ------
    InputError
        Cards of other versions of the suite, which are not comparable; a folder without a card; a model on two cards.
    """
    import pandas as pd

    read = {str(c): json.loads(c.json) if isinstance(c, Card) else _read(Path(c)) for c in cards}
    versions = sorted({str(card["suite"]) for card in read.values()})
    if len(versions) > 1:
        raise InputError(
            f"leaderboard: cards of the suites {' and '.join(versions)} are not comparable; make them again"
        )
    board = pd.concat([pd.DataFrame(card["table"]) for card in read.values()], ignore_index=True)
    again = board[board.duplicated(["reward_model", "attribute"])]
    if len(again):
        raise InputError(f"leaderboard: {again['reward_model'].iloc[0]} is on two cards; which one is meant?")
    numbers = ["effect", "ci_low", "ci_high", "df"]
    board[numbers] = board[numbers].astype(float)
    effect, low, high, df = (board[c] for c in numbers)
    wider = stats.t.ppf(1 - FDR / 2 / max(int(low.notna().sum()), 1), df) / stats.t.ppf(1 - FDR / 2, df)
    board["ci_low"], board["ci_high"] = effect - wider * (effect - low), effect + wider * (high - effect)
    tested = ~board["finding"].isin([NO_TEST, NO_TRUST])
    board["shown"] = ((board["ci_low"] > 0) | (board["ci_high"] < 0)) & tested
    shown = ["attribute", "reward_model", "effect", "ci_low", "ci_high", "shown", "verdict", "estimator", "estimand"]
    return board[shown]


def leaderboard_html(board: pd.DataFrame) -> str:
    """A static page of a board: attributes by reward models, those with the fewest effects that are shown first.

    What is not to be trusted or has no test may be an effect too, and counts as one here.
    """
    untold = (board["verdict"] == NO_TRUST) | (board["estimator"] == "naive") | board["ci_low"].isna()
    board = board.assign(untold=untold)
    counts = board.groupby("reward_model", sort=False)[["shown", "untold"]].sum()
    models = counts.index[np.argsort(counts.sum(axis=1).to_numpy(), kind="stable")]
    n = board.groupby("reward_model").size()
    told = [f"{counts.shown[m]} of {n[m]}" + (f", {counts.untold[m]} unknown" * bool(counts.untold[m])) for m in models]
    rows = [["shown", *told]]
    for attribute, of in board.groupby("attribute", sort=False):
        cells = {
            r["reward_model"]: "do not trust" if r["verdict"] == NO_TRUST
            else _number(r) + ((r["shown"] and {CANNOT_TELL: " (*)"}.get(r["verdict"], " *")) or "")
            for r in of.to_dict("records")
        }  # fmt: skip
        rows.append([str(attribute), *(cells.get(model, "-") for model in models)])
    table = Table(["attribute", *map(str, models)], [False] * (len(models) + 1), rows)
    said = (
        "Effects in SDs of each reward. The intervals hold all at once in 95 % of such boards; * leaves 0 out, "
        "(*) does so too, if the rewrites do what they should, which is not shown. "
        "What has no * is not shown, which is not to say that there is none; where the rewrites are not to be trusted, "
        "the effect is unknown."
    )
    return _page("Bias leaderboard", f"<p>{said}</p><div>{table_html(table, label='effects')}</div>")


def _read(folder: Path) -> dict[str, Any]:
    try:
        found = files.read_object(folder / "card.json")
        found["table"][0]["effect"], found["suite"]
    except (ValueError, KeyError, IndexError, TypeError):
        raise InputError(f"{folder} holds no card (no readable card.json); make it by ratekit card --out") from None
    return found


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{title}</title><style>{_PAGE}</style><main><style>{_STYLE}</style>"
        f'<div class="rk-card"><h1>{title}</h1>{body}</div></main></html>\n'
    )
