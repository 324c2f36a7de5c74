"""`discover`: what does this reward pay for that nobody thought to ask about?

    found = rk.discover("./my-rm", "responses.jsonl", rewriter="openai:gpt-4o-mini", proposer="openai:gpt-4o")
    found.audit       # what was confirmed, as any audit
    found.tried       # all that was tried, and what came of it

Prompts are split in two halves at random. On the one, candidates are found (features of texts that differ between the
responses of high and of low reward to one prompt, and what a language model proposes that is shown such pairs) and
screened by RATE on few rows, over some rounds; what the reward says of the features that stay is taken off before the
next. On the other half, which nothing has looked at until then, what stays is rewritten, scored and estimated once, and
the false discovery rate is controlled over all that was tried. A feature whose effect is gone where another one is held
fixed is explained by that one and not confirmed.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ratekit import files
from ratekit.attributes import ATTRIBUTES, describe
from ratekit.audits import folder as on_disk
from ratekit.audits.inputs import data_print, reward_print, rewriter_print
from ratekit.audits.results import Audit
from ratekit.errors import InputError, WorkError, require_whole, shorten
from ratekit.escaping import visible
from ratekit.estimators import Floats, Ints, clustered_mean, rounding_of
from ratekit.groups import plain_columns, reward_matrix
from ratekit.labellers import Attribute, above_median
from ratekit.measures import Measure, measured, mentions, values_of
from ratekit.redaction import redact
from ratekit.resampling import adjust, smallest_sign_flip
from ratekit.rewriting import Options, make_rewriter
from ratekit.rewriting.base import OK, Chat, Rewrite
from ratekit.rewriting.chains import rewrites_of
from ratekit.rewriting.chat import ChatRewriter
from ratekit.rewriting.cost import Meter
from ratekit.rewriting.rules import RULES, SUITE
from ratekit.ruled import FEATURES, Rule, Ruled
from ratekit.schema import (
    MEASURE_PREFIX,
    PROMPT,
    PROMPT_ID,
    RESPONSE,
    REWARD_PREFIX,
    REWRITES,
    TREATED,
    columns_of,
    prompt_text,
)
from ratekit.scoring import RewardLike, read_rewards
from ratekit.scoring.base import Reward
from ratekit.scoring.engine import score_chains
from ratekit.sources.loading import load
from ratekit.stages import estimate, label, rewrite, score
from ratekit.tables import as_csv, as_text, table_of

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset

log = logging.getLogger("ratekit")

CANDIDATES: dict[str, Ruled] = {
    **SUITE, **FEATURES, "starts-with-vowel": Ruled(ATTRIBUTES["starts-with-vowel"], RULES["starts-with-vowel"]),
}  # fmt: skip
"""What is looked for by rules: the suite's attributes and features of the surface."""

CONFIRMED, NOT_CONFIRMED, SCREENED_OUT = "confirmed", "not confirmed", "screened out"
EXPLAINED, NOT_TRIED = "explained", "not tried"
SCREEN = 0.2  # p-value up to which a candidate stays
MOVED = 100  # rows in which it is looked whether one candidate's rewrites move another's measure
PAIRS, WORDS = 8, 4  # pairs that a proposer is shown; words and pairs of words that are tried in a round
COUNTED = 10_000  # proposals beyond those taken that are counted, of a proposer that does not end


class Pair(NamedTuple):
    """Two responses to one prompt, of which the reward likes the first much better."""

    prompt: str
    high: str
    low: str


Proposer = Callable[[Sequence[Pair], Sequence[str]], Iterable[Any]]
"""(pairs, names tried so far) -> proposals: an `Attribute`, {"name", "treated", "untreated"}, or these three."""


@dataclass(frozen=True)
class ChatProposer:
    """A language model that is shown pairs and names what the reward may pay for.

    Parameters
    ----------
    chat : callable
        A chat, such as ``OpenAIChat(model)``: conversations -> replies.
    most : int
        Proposals asked for in a round.

    Examples
    --------
    >>> from ratekit.rewriting.base import Reply
    >>> def chat(conversations):
    ...     yield Reply(0, '[{"name": "rhyme", "treated": "in rhyme", "untreated": "without rhymes"}]', "stop")
    >>> ChatProposer(chat)([Pair("Hi", "a", "b")], [])
    [{'name': 'rhyme', 'treated': 'in rhyme', 'untreated': 'without rhymes'}]
    """

    chat: Chat
    most: int = 8

    def __call__(self, pairs: Sequence[Pair], tried: Sequence[str]) -> list[Any]:
        """The proposals. Raises WorkError for a reply that is no list of them."""
        shown = "\n\n".join(f"PROMPT: {p.prompt}\nHIGHER: {p.high}\nLOWER: {p.low}" for p in pairs)
        asked = (
            "A reward model scored each HIGHER response above the LOWER one to the same prompt. What features of the "
            f"text, content aside, may it pay for? Name up to {self.most}, none of these: {', '.join(tried) or '-'}. "
            'Answer with a JSON list alone, of objects {"name": ..., "treated": ..., "untreated": ...}; the two '
            'phrases are opposites that complete "Adjust this response so it\'s ...".\n\n' + shown
        )
        replies = list(self.chat([[{"role": "user", "content": asked}]]))
        text = (replies[0].text if replies else None) or ""
        start, end = text.find("["), text.rfind("]")
        try:
            found = json.loads(text[start : end + 1]) if start >= 0 else None
        except ValueError:
            found = None
        if not isinstance(found, list):
            raise WorkError(f"the proposer's reply is no list of proposals: {shorten(visible(text), 80)!r}")
        return found


@dataclass(frozen=True, repr=False)
class Discovery:
    """What a search found.

    Attributes
    ----------
    audit : Audit or None
        Of what was confirmed, on the rows that were kept for confirming; None where nothing was.
    tried : DataFrame
        All that was tried or proposed: name, treated, untreated, source ("features", "words", "proposer"), round,
        contrast_t (of the feature with the reward, within prompts), screen_sd, screen_p, effect_sd, ci_low_sd,
        ci_high_sd, p_value, p_adjusted (over all that was rewritten), outcome ("confirmed", "not confirmed", "screened
        out", "explained", "not tried") and why.
    rewrites : int
        How many were made.
    """

    audit: Audit | None
    tried: pd.DataFrame
    rewrites: int

    @property
    def confirmed(self) -> list[str]:
        """The names of what was confirmed, the largest effect first."""
        of = self.tried[self.tried["outcome"] == CONFIRMED]
        return [str(name) for name in of.sort_values("effect_sd", key=abs, ascending=False)["name"]]

    def __repr__(self) -> str:
        left = self.tried["outcome"] == NOT_TRIED
        counts = Counter(self.tried["outcome"][~left])
        head = ", ".join([f"{(~left).sum()} tried", *(f"{n} {what}" for what, n in counts.items())])
        if left.any():
            why = Counter(self.tried["why"][left]).most_common(3)
            head += f"; {left.sum()} not tried: " + ", ".join(f"{reason} ({n})" for reason, n in why)
            head += ", ..." * (self.tried["why"][left].nunique() > 3)
        shown = self.tried[self.tried["outcome"].isin((CONFIRMED, EXPLAINED))]
        columns = ["name", "source", "effect_sd", "ci_low_sd", "ci_high_sd", "p_adjusted", "outcome", "why"]
        return head + ("\n" + as_text(table_of(shown[columns])) if len(shown) else "")


@dataclass(eq=False)
class _Candidate:
    """One thing that is tried, and what came of it."""

    attribute: Attribute
    rewriter: Any
    source: str
    round: int
    contrast: float = float("nan")
    screened: tuple[float, float] = (float("nan"), float("nan"))  # SDs, p
    row: Mapping[str, Any] | None = None
    p: float = float("nan")
    p_adjusted: float = float("nan")
    rows: Any = None
    outcome: str = NOT_TRIED
    why: str = ""

    @property
    def strength(self) -> tuple[float, bool]:
        """How sure its effect is; of two alike, a feature before a word."""
        row = self.row or {}
        se = float(row.get("se", 0.0))
        return abs(float(row.get("estimate", 0.0))) / se if se > 0 else float("inf"), self.source != "words"

    def record(self) -> dict[str, Any]:
        """Its line in the list of all that was tried."""
        row = self.row or {}
        effect = {c: float(row.get(k, np.nan)) for c, k in (
            ("effect_sd", "estimate_sd"), ("ci_low_sd", "ci_low_sd"), ("ci_high_sd", "ci_high_sd"))}  # fmt: skip
        a = self.attribute
        return {
            "name": a.name, "treated": a.treated, "untreated": a.untreated, "source": self.source, "round": self.round,
            "contrast_t": self.contrast, "screen_sd": self.screened[0], "screen_p": self.screened[1], **effect,
            "p_value": self.p, "p_adjusted": self.p_adjusted, "outcome": self.outcome, "why": self.why,
        }  # fmt: skip


def discover(
    reward: RewardLike,
    data: Any,
    *,
    name: str | None = None,
    proposer: str | Proposer | None = None,
    rewriter: Any = None,
    rounds: int = 3,
    per_round: int = 16,
    budget: int | None = None,
    n_screen: int = 60,
    n_confirm: int = 400,
    fdr: float = 0.05,
    seed: int = 0,
    out: str | Path | None = None,
    cache: str | Path | None = None,
    options: Options | None = None,
    meter: Meter | None = None,
) -> Discovery:
    """Find what a reward pays for, and confirm it on rows that were not used to find it.

    Parameters
    ----------
    reward, name : str, Path or callable; str, optional
        As in `rk.score`.
    data : rows
        Prompts and responses, several to a prompt; whatever `rk.load` takes.
    proposer : str or callable, optional
        "openai:MODEL", a `ChatProposer`, or your own: (pairs, names tried) -> proposals.
    rewriter : str or callable, optional
        What rewrites a proposal that no rule does: "openai:MODEL", ... or (texts, targets) -> rewrites. Features of
        `CANDIDATES`, and proposals of their names, are rewritten by their rules.
    rounds, per_round : int
        So many rounds, with at most so many features and so many proposals in each.
    budget : int, optional
        Rewrites that may be made in all; half are kept for confirming. What money an LLM may cost is the meter's.
    n_screen, n_confirm : int
        Rows in screening and in confirming; whole halves where they have fewer.
    fdr : float
        The false discovery rate, over all that was rewritten (Benjamini and Hochberg 1995, JRSS B 57:289).
    seed : int
        Of the split and of the rows.
    out : str or Path, optional
        A folder for the audit, the rewrites and tried.csv, which is written after each round. The same search again,
        with more rounds or a larger budget, replaces its audit and pays for no rewrite twice.
    cache, options, meter
        As in `rk.audit`.

    Returns
    -------
    Discovery
        With ``.audit``, ``.tried`` and ``.confirmed``.

    Raises
    ------
    InputError
        No prompt with two responses, fewer than eight such prompts, an unknown reward or rewriter, a folder that holds
        another search.

    Notes
    -----
    A candidate with a measure is labelled by it: present or absent where texts without it have 0, else above or below
    the median. One without is taken as absent everywhere: then the effect is that of putting it in, and out again.
    What was not put to confirmation has p = 1 in the adjustment. Where no two prompts differ p is 2 / 2^G, that of a
    sign-flip test. A candidate is *explained* by others where its rewrites move their measures, and its effect is no
    longer shown, at the p-value that the adjustment asks for, once both of its texts are rewritten to be without them;
    the weakest is looked at first, so of two that explain each other the stronger one stays.

    Examples
    --------
    >>> import ratekit as rk
    >>> texts = rk.load("reviews", attribute="length")["response"]
    >>> data = [{"prompt": f"Review {i // 4}", "response": text} for i, text in enumerate(texts)]
    >>> def shouts(prompts, responses): return [text.count("!") + len(text) % 7 / 7 for text in responses]
    >>> rk.discover(shouts, data, rounds=1).confirmed
    ['exclamation']
    """
    require_whole("rounds", rounds, 1)
    require_whole("per_round", per_round, 1)
    require_whole("n_screen", n_screen, 8)
    require_whole("n_confirm", n_confirm, 8)
    require_whole("seed", seed)
    if not 0 < fdr < 1:
        raise InputError(f"fdr={fdr}: a number between 0 and 1 was expected, as in 0.1")
    if budget is not None and budget < 4 * n_screen:
        raise InputError(f"discover: a budget of {budget} rewrites; one candidate takes {4 * n_screen} at the least")
    options, ds = options or Options(), load(data)
    ds = ds.remove_columns([c for c in columns_of(ds) if c not in (PROMPT_ID, PROMPT, RESPONSE)])
    ((column, named),) = read_rewards(reward, name).items()
    folder = None if out is None else Path(out)
    if folder is not None:
        _claim(folder, {
            "data": data_print(ds), "reward": redact(named.spec), "reward_print": reward_print(named),
            "rewriter": rewriter_print(rewriter), "proposer": rewriter_print(proposer), "n_screen": n_screen,
            "n_confirm": n_confirm, "per_round": per_round, "fdr": fdr, "seed": seed,
            **options.asked,
        })  # fmt: skip
    cache = cache or (folder / "rewrites" if folder is not None else None)
    search = _Search(
        named.make(), column, ds, rewriter, budget, n_screen, n_confirm, seed, cache,
        options, meter or Meter(), folder,
    )  # fmt: skip
    asked = _proposer(proposer, cache, search.options)
    for number in range(1, rounds + 1):
        candidates = [*search.features(number, per_round)]
        if asked is not None:
            candidates += search.proposals(asked, number, per_round)
        search.screen(candidates)
        search.keep()
        if search.spent:
            break
    search.confirm(fdr)
    return search.result({"data": str(data) if isinstance(data, str | Path) else "rows in memory", "fdr": fdr,
                          "seed": seed, "rounds": rounds})  # fmt: skip


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Leave the search's settings in its folder. Raises InputError where another search, or an audit, is in it."""
    files.check_place(folder)
    place = folder / "search.json"
    if place.exists():
        on_disk.refuse_other(folder, settings, on_disk.read_record(place)["settings"], "search")
    elif (folder / on_disk.DATASET).exists():
        raise InputError(f"{folder} holds an audit that is of no search; choose another --out")
    files.replace_text(place, json.dumps({"settings": settings}, indent=2) + "\n")


def _proposer(given: Any, cache: Any, options: Options) -> Proposer | None:
    if given is None or (callable(given) and not isinstance(given, str)):
        return given
    made = make_rewriter(given, ATTRIBUTES["length"], cache=cache, options=options)
    if not isinstance(made, ChatRewriter):
        raise InputError(f"discover: {given!r} is no proposer; give openai:MODEL or a callable")
    return ChatProposer(made.chat)


class _Search:
    """The state of a search: the two halves, what was tried, and what was spent."""

    def __init__(
        self, reward: Reward, name: str, ds: Dataset, rewriter: Any, budget: int | None, n_screen: int, n_confirm: int,
        seed: int, cache: Any, options: Options, meter: Meter, folder: Path | None,
    ) -> None:  # fmt: skip
        self.reward, self.name, self.rewriter, self.folder = reward, name, rewriter, folder
        self.cache, self.options, self.meter = cache, options, meter
        self.tried: dict[str, _Candidate] = {}
        self.refused: list[_Candidate] = []
        self.budget, self.rewrites, self.spent = budget, 0, False
        prompts = plain_columns(ds, [PROMPT_ID])[PROMPT_ID].astype(str).to_numpy()
        names, codes, sizes = np.unique(prompts, return_inverse=True, return_counts=True)
        if (sizes >= 2).sum() < 8:
            raise InputError(
                f"discover: {int((sizes >= 2).sum())} prompts have two responses or more; high and low are told apart "
                "within a prompt, so at least 8 are needed"
            )
        rng = np.random.default_rng(seed)
        first = np.zeros(len(names), bool)
        for several in (True, False):  # both halves get their share of the prompts with several responses
            of = rng.permutation(np.flatnonzero((sizes >= 2) == several))
            first[of[: (len(of) + 1) // 2]] = True
        half = first[codes]
        self.found_on = _rows(ds, np.flatnonzero(half))
        self.held_out = _some(_rows(ds, np.flatnonzero(~half)), n_confirm, rng)
        self.few = _some(self.found_on, n_screen, rng)
        scored = score(self.found_on, reward, name=name, progress=False)
        r = reward_matrix(scored, REWARD_PREFIX + name)[:, 0]
        known = np.isfinite(r)
        self.texts = [t for t, k in zip(scored[RESPONSE], known, strict=True) if k]
        self.asked = [prompt_text(p) for p, k in zip(scored[PROMPT], known, strict=True) if k]
        self.codes: Ints = np.unique(codes[half][known], return_inverse=True)[1]
        self.r = self.within(r[known])
        self.values = {name: self.within(self.seen(c.attribute.measure)) for name, c in CANDIDATES.items()}

    # --- candidates ------------------------------------------------------------------------------------------

    def seen(self, measure: Measure | None) -> Floats:
        return np.full(len(self.texts), np.nan) if measure is None else values_of(measure, self.texts)

    def within(self, values: Floats) -> Floats:
        """Values less their prompt's mean; 0 where there is none."""
        known = np.isfinite(values)
        filled = np.where(known, values, 0.0)
        n = np.maximum(np.bincount(self.codes, known), 1)
        return np.where(known, filled - (np.bincount(self.codes, filled) / n)[self.codes], 0.0)

    @property
    def residual(self) -> Floats:
        """What the reward says within prompts beyond the features that stayed."""
        stayed = [c.attribute for c in self.tried.values() if c.outcome == NOT_CONFIRMED and c.attribute.measure]
        x = np.stack([self.within(self.seen(a.measure)) for a in stayed], axis=1) if stayed else None
        return self.r if x is None else self.r - x @ np.linalg.lstsq(x, self.r, rcond=None)[0]

    def contrast(self, values: Floats, r: Floats) -> float:
        """How a feature goes with the reward within prompts, as a t statistic; 0 where it does not vary."""
        mean = clustered_mean(values * r, self.codes)
        return mean.value / mean.se if mean.se > 0 else 0.0

    def features(self, number: int, most: int) -> Iterator[_Candidate]:
        """The features that go with the reward most and were not tried, then words."""
        r = self.residual
        t = {name: self.contrast(v, r) for name, v in self.values.items() if name not in self.tried}
        for name in sorted(t, key=lambda n: -abs(t[n]))[:most]:
            ruled = CANDIDATES[name]
            yield _Candidate(ruled.attribute, _by_rule(ruled.rule), "features", number, t[name])
        for phrase, value in self.words(r)[:WORDS]:
            says = Attribute(f'says "{phrase}"', f'saying "{phrase}"', f'without saying "{phrase}"',
                             measure=mentions(phrase))  # fmt: skip
            yield _Candidate(says, _by_rule(_saying(phrase)), "words", number, value)

    def words(self, r: Floats) -> list[tuple[str, float]]:
        """Words and pairs of words of some but not most responses whose presence goes with the reward."""
        held: dict[str, list[int]] = {}
        for i, text in enumerate(self.texts):
            parts = re.findall(r"[^\W\d_]{3,}", text.lower())
            for phrase in {*parts, *(" ".join(two) for two in pairwise(parts))}:
                held.setdefault(phrase, []).append(i)
        n = len(self.texts)
        often = sorted(
            (p for p, rows in held.items() if 0.05 * n <= len(rows) <= 0.95 * n), key=lambda p: -len(held[p])
        )
        found = []
        for phrase in sorted(often, key=lambda p: -len(held[p]))[:500]:
            present = np.zeros(n)
            present[held[phrase]] = 1.0
            t = self.contrast(self.within(present), r)
            if abs(t) > 3 and f'says "{phrase}"' not in self.tried:
                found.append((phrase, t))
        return sorted(found, key=lambda f: -abs(f[1]))

    def proposals(self, proposer: Proposer, number: int, most: int) -> Iterator[_Candidate]:
        """What the proposer says, as far as it can be tried."""
        r, pairs = self.residual, []
        gaps = []
        for code in range(self.codes.max() + 1):
            rows = np.flatnonzero(self.codes == code)
            high, low = rows[np.argmax(r[rows])], rows[np.argmin(r[rows])]
            gaps.append((r[high] - r[low], high, low))
        for _, high, low in sorted(gaps, key=lambda g: -g[0])[:PAIRS]:
            pairs.append(Pair(self.asked[high], self.texts[high], self.texts[low]))
        try:
            said = proposer(pairs, list(self.tried))
            if isinstance(said, str | bytes | Mapping) or not isinstance(said, Iterable):
                raise WorkError(f"the proposer gave no list of proposals: {shorten(visible(repr(said)), 80)}")
            given = list(islice(said, most + COUNTED))
        except Exception as e:  # whatever it was, what was found without it stands
            why = str(e) if isinstance(e, InputError | WorkError) else f"the proposer failed: {e!r}"
            why = " ".join(visible(why).split())
            log.warning("discover, round %d: %s", number, why)
            self._refuse("(proposer)", number, why)
            return
        if len(given) > most:
            over = f"at least {COUNTED:,}" if len(given) == most + COUNTED else len(given) - most
            self._refuse(f"({over} more proposals)", number, f"at most {most} are taken in a round")
        known = {name: _meant(c.attribute) for name, c in self.tried.items()}
        for proposal in given[:most]:
            attribute, why = _attribute(proposal)
            if attribute is None:
                self._refuse(shorten(visible(str(proposal)), 60), number, why)
                continue
            name, meant = attribute.name, _meant(attribute)
            same = name if name in known else next((n for n, of in known.items() if of == meant), None)
            ruled = CANDIDATES.get(name)
            if same is not None:
                self._refuse(name, number, "proposed before" + f" as {same}" * (same != name))
            elif ruled is None and self.rewriter is None:
                self._refuse(name, number, "no rule rewrites it; give a rewriter")
            else:
                known[name] = meant
                rewriter = _by_rule(ruled.rule) if ruled else self.rewriter
                yield _Candidate(ruled.attribute if ruled else attribute, rewriter, "proposer", number)

    def _refuse(self, name: str, number: int, why: str) -> None:
        nothing = Attribute(name, "", "")
        self.refused.append(_Candidate(nothing, None, "proposer", number, why=why))

    # --- trying ----------------------------------------------------------------------------------------------

    def screen(self, candidates: Iterable[_Candidate]) -> None:
        """Rewrite few rows for each, and say which stay."""
        done = []
        for c in candidates:
            if c.attribute.name in self.tried:
                continue
            self.tried[c.attribute.name] = c
            if self._made(c, self.few, 0.5):
                done.append(c)
        for c, row, p in self._estimated(done):
            c.screened = (float(row["estimate_sd"]), p)
            c.outcome = NOT_CONFIRMED if p <= SCREEN else SCREENED_OUT

    def confirm(self, fdr: float) -> None:
        """Rewrite the rows that were held out for each that stays, the surest first, and say what is confirmed."""
        stayed = sorted((c for c in self.tried.values() if c.outcome == NOT_CONFIRMED), key=lambda c: c.screened[1])
        done = [c for c in stayed if self._made(c, self.held_out, 1.0)]
        for c, row, p in self._estimated(done):
            c.row, c.p = row, p
        family = [c for c in self.tried.values() if np.isfinite(c.screened[1])]
        for c, p in zip(family, _adjusted([c.p if np.isfinite(c.p) else 1.0 for c in family]), strict=True):
            c.p_adjusted = p
        kept = sorted((c for c in done if c.p_adjusted <= fdr), key=lambda c: c.strength)
        least = fdr * len(kept) / max(len(family), 1)  # the p-value that the adjustment asks for
        for c in list(kept):  # the weakest first
            c.outcome, others = CONFIRMED, [d for d in kept if d is not c]
            by = self._explained_by(c, others, least)
            if by:
                c.outcome, c.why = EXPLAINED, f"gone where {', '.join(d.attribute.name for d in by)} is held fixed"
                kept = others

    def _made(self, c: _Candidate, rows: Dataset, share: float) -> bool:
        """Whether the rows could be rewritten for a candidate; if not, it says why."""
        paid = c.rewriter is self.rewriter  # rules cost nothing
        over = self.budget is not None and self.rewrites + 2 * len(rows) > share * self.budget
        stopped = f"the budget of {self.budget} rewrites is spent" if over else self.meter.stopped
        if stopped and (over or paid):
            return self._ended(c, stopped)
        try:
            with _quiet(not paid):
                attribute = _labelled(c.attribute)
                if rows is self.few:  # nobody asks for the measure of these rewrites
                    attribute = replace(attribute, measure=None)
                ds = label(rows, attribute)
                self.rewrites += 2 * len(ds)
                c.rows = rewrite(
                    ds, attribute, c.rewriter, 2, cache=self.cache if paid else None, options=self.options,
                    meter=self.meter if paid else None, progress=False,
                )  # fmt: skip
        except (InputError, WorkError) as e:
            c.why = shorten(e, 200)
            return False
        if paid and self.meter.stopped and any(None in chain for chain in c.rows[REWRITES]):
            return self._ended(c, self.meter.stopped)
        return True

    def _ended(self, c: _Candidate, why: str) -> bool:
        """False: the budget ends before, or within, this candidate's rewrites."""
        c.why, self.spent = why, True
        return False

    def _estimated(self, done: list[_Candidate]) -> Iterator[tuple[_Candidate, Mapping[str, Any], float]]:
        """Each candidate's effect and p-value; its rows then hold the rewards too. Each text is scored once."""
        from datasets import concatenate_datasets

        if not done:
            return
        together = score(concatenate_datasets([c.rows for c in done]), self.reward, name=self.name, progress=False)
        kept = [x for x in columns_of(together) if not x.startswith(MEASURE_PREFIX)]
        table = estimate(together.select_columns(kept))
        first = 0
        for c in done:
            c.rows = together.select(range(first, first := first + len(c.rows)))
            of = table[(table["attribute"] == c.attribute.name) & table["recommended"]]
            if not len(of):
                c.why = "its effect cannot be estimated"
                continue
            row = dict(of.iloc[0])
            p = float(row["p_value"])
            if not np.isfinite(p):  # no two prompts differ
                rounding = rounding_of(reward_matrix(c.rows, REWARD_PREFIX + self.name))
                p = smallest_sign_flip(int(row["n_clusters"])) if abs(row["estimate"]) > rounding else 1.0
            yield c, row, p

    def _explained_by(self, c: _Candidate, others: list[_Candidate], least: float) -> list[_Candidate]:
        """Those whose measure c's rewrites move, if without them all no effect of c is shown at the level `least`."""
        places = [i for i, chain in enumerate(c.rows[REWRITES]) if None not in chain]
        chains = [c.rows[i][REWRITES] for i in places]
        moved = []
        for d in others:
            if d.attribute.measure is not None:
                seen = measured(d.attribute.measure, chains[:MOVED])
                if (seen[:, 0] != seen[:, 1]).mean() > 0.02:
                    moved.append(d)
        if not moved:
            return []
        texts = [text for chain in chains for text in chain]
        for d in moved:
            rewriter: Any = d.rewriter
            if isinstance(rewriter, str):
                rewriter = make_rewriter(rewriter, d.attribute, cache=self.cache, options=self.options)
            self.rewrites += len(texts)
            texts = [r.text or "" for r in rewrites_of(rewriter(texts, [False] * len(texts)), texts)]
        pairs = [[text or None for text in texts[k : k + 2]] for k in range(0, len(texts), 2)]
        part = c.rows.select_columns([PROMPT, PROMPT_ID, TREATED]).with_format(None)[places]
        scored = np.array(score_chains(self.reward, part[PROMPT], pairs, self.name, False), float)
        held = np.where(part[TREATED], 1.0, -1.0) * (scored[:, 1] - scored[:, 0])
        known = np.isfinite(held)
        if not known.any():
            return []
        codes, rounding = np.unique(part[PROMPT_ID], return_inverse=True)[1][known], rounding_of(scored)
        mean = clustered_mean(held[known], codes, rounding)
        p = mean.interval()[2] if mean.se > 0 else 1.0
        if mean.se == 0 and abs(mean.value) > rounding:
            p = smallest_sign_flip(mean.n_clusters)
        return moved if not p <= least else []

    # --- what came of it -------------------------------------------------------------------------------------

    def table(self) -> pd.DataFrame:
        """All that was tried or refused."""
        import pandas as pd

        return pd.DataFrame([c.record() for c in [*self.tried.values(), *self.refused]])

    def keep(self) -> None:
        """Write what was tried so far."""
        if self.folder is not None:
            files.replace_text(self.folder / "tried.csv", as_csv(self.table()))

    def result(self, about: Mapping[str, Any]) -> Discovery:
        """The audit of what was confirmed, and the list."""
        from datasets import concatenate_datasets

        confirmed = [c for c in self.tried.values() if c.outcome == CONFIRMED]
        audit = None
        if confirmed:
            ds = concatenate_datasets([c.rows for c in confirmed])
            for c in confirmed:
                describe(ds, c.attribute)
            settings = {"data": about["data"], "attributes": [c.attribute.name for c in confirmed]}
            prompts = {name: len(set(of[PROMPT_ID])) for name, of in
                       (("found_on", self.found_on), ("confirmed_on", self.held_out))}  # fmt: skip
            record = {"settings": settings, "discovery": {**about, "prompts": prompts, "tried": len(self.tried)},
                      "rewriting": self.meter.record()}  # fmt: skip
            audit = Audit(ds, estimate(ds), record, self.folder)
            if self.folder is not None:
                audit.save(self.folder)
        elif self.folder is not None:  # what the same search confirmed with fewer rounds
            on_disk.clear(self.folder)
        self.keep()
        return Discovery(audit, self.table(), self.rewrites)


def _adjusted(ps: list[float]) -> list[float]:
    import pandas as pd

    return list(adjust(pd.DataFrame({"p_value": ps}))["p_adjusted"]) if ps else []


def _rows(ds: Dataset, places: Ints) -> Dataset:
    """Those rows, as a table of their own."""
    from datasets import Dataset as HFDataset

    return HFDataset(ds.with_format("arrow")[:].take(places))


def _some(ds: Dataset, n: int, rng: np.random.Generator) -> Dataset:
    return _rows(ds, np.sort(rng.choice(len(ds), n, replace=False))) if n < len(ds) else ds


@contextmanager
def _quiet(asked: bool) -> Iterator[None]:
    """Say nothing of each rule's rows: that many have no feature and stay as they are is expected."""

    def refuse(record: logging.LogRecord) -> bool:
        return False

    if asked:
        log.addFilter(refuse)
    try:
        yield
    finally:
        log.removeFilter(refuse)


def _by_rule(rule: Rule) -> Callable[[Sequence[str], Sequence[bool]], list[Rewrite]]:
    def rewriter(texts: Sequence[str], targets: Sequence[bool]) -> list[Rewrite]:
        return [Rewrite(rule(text, target), OK) for text, target in zip(texts, targets, strict=True)]

    return rewriter


def _saying(phrase: str) -> Rule:
    """A rule that says a phrase at the end, or takes it out."""
    said = re.compile(r"\s?(?<!\w)" + re.escape(phrase).replace("\\ ", r"\s+") + r"(?!\w)", re.IGNORECASE)

    def rule(text: str, target: bool) -> str:
        if not target:
            return said.sub("", text)
        return text if said.search(text) else f"{text} {phrase[0].upper()}{phrase[1:]}."

    return rule


def _labelled(attribute: Attribute) -> Attribute:
    """The attribute with a label that every text can have: present or absent, above the median, or absent."""
    measure = attribute.measure
    if measure is None:
        return replace(attribute, label=lambda rows: [False] * len(rows), one_class=True)

    def labels(rows: Any) -> list[bool | None]:
        values = values_of(measure, rows[RESPONSE])
        known = values[np.isfinite(values)]
        if len(known) and (known.min() != 0) and known.min() < known.max():
            return list(above_median(measure)(rows))
        return [None if np.isnan(v) else bool(v > 0) for v in values]

    return replace(attribute, label=labels, one_class=True)


_PHRASE = re.compile(r"[^\W_](?:[\w ,.'’\"%!?&/-]{0,118}[\w.'’\"%!?])?")


_NO_OPPOSITE = {"none", "n a", "na", "nil", "null", "nothing", "no opposite", "not applicable", "unknown", "undefined"}


def _words(phrase: str) -> str:
    """A phrase without its punctuation and case."""
    return " ".join(re.findall(r"\w+", phrase.casefold()))


def _meant(attribute: Attribute) -> frozenset[str]:
    """Both phrases of an attribute, whichever comes first."""
    return frozenset((_words(attribute.treated), _words(attribute.untreated)))


def _attribute(proposal: Any) -> tuple[Attribute | None, str]:
    """A proposal as an attribute; None, and why, for what is none. Nothing of it is ever run."""
    if isinstance(proposal, Attribute):
        return proposal, ""
    if isinstance(proposal, Mapping):
        parts = [proposal.get(k) for k in ("name", "treated", "untreated")]
    else:
        parts = list(proposal) if isinstance(proposal, list | tuple) else [proposal]
    if isinstance(parts[0], str) and (len(parts) < 3 or not parts[2]):
        return None, "no opposite: a name, a phrase and its opposite were expected"
    if len(parts) != 3 or not all(isinstance(p, str) for p in parts):
        return None, "not a name and two phrases"
    name, treated, untreated = (" ".join(str(p).split()) for p in parts)
    if not all(_PHRASE.fullmatch(p) for p in (name, treated, untreated)):
        return None, "not two plain phrases of up to 120 characters"
    if len(_meant(Attribute(name, treated, untreated))) < 2 or _words(untreated) in _NO_OPPOSITE:
        return None, "no opposite: the two phrases are one, or the second says that there is none"
    return Attribute(name.lower(), treated, untreated), ""
