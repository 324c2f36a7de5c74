"""`AttributeLab`: write an attribute, try it on a handful of rows, compare versions, estimate, take the code away."""

from __future__ import annotations

import html
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets

from ratekit.attributes import ATTRIBUTES, find_attribute
from ratekit.errors import InputError
from ratekit.escaping import as_html, escaped
from ratekit.labellers import Attribute
from ratekit.measures import Measure
from ratekit.rewriting import Options
from ratekit.rewriting.base import Rewriter
from ratekit.rewriting.chat import ChatRewriter
from ratekit.rewriting.cost import Prices
from ratekit.rewriting.replay import Replay
from ratekit.rewriting.rules import RULES
from ratekit.schema import ATTRIBUTE, RESPONSE, TREATED, columns_of
from ratekit.scoring import RewardLike, read_reward, read_rewards
from ratekit.sources.loading import rows_for
from ratekit.widgets import attribute_draft, attribute_trials, dashboard_html, explorer_html, explorer_rows
from ratekit.widgets.attribute_draft import MENTIONS, OWN, Draft
from ratekit.widgets.attribute_trials import Version
from ratekit.widgets.progress import Progress
from ratekit.widgets.shared import (
    Heard,
    StaticView,
    Worker,
    block,
    button,
    embedded,
    follow,
    menu,
    row,
    style,
    text,
    text_field,
)

if TYPE_CHECKING:
    from datasets import Dataset

NEW = "a new one"
EXAMPLE = Draft("courtesy", "more courteous", "less courteous", measure=MENTIONS, mentioned="please, thank you",
                rules=("politeness",))  # fmt: skip
HANDFUL = 6
EFFECTS_OF = "Effects of the attribute"
_KEPT = "what came back is kept, and trying again goes on from there"


class AttributeLab(StaticView):
    """Prototype an attribute: two phrases, a handful of rewrites, what they changed, another version, an estimate.

    `versions` holds what was tried, `attribute` and `code` the chosen version. Rewriting runs in a thread: Cancel keeps
    what is there, and trying again goes on from it.

    Parameters
    ----------
    ds
        responses, as `rk.as_dataset` takes them; labels and rewrites are not needed
    rewriter
        "openai:MODEL", "hf:MODEL", "rules", a `ChatRewriter` (asked with whatever phrases are typed), or any (texts,
        targets) -> rewrites, which knows nothing of the phrases
    reward
        as in `rk.score`; `reward_name` names it where it has no name of its own
    attribute
        to begin with: a name of `rk.ATTRIBUTES`, or an `rk.Attribute`
    measures
        {name: texts -> numbers} of your own, to choose as the attribute's measure and to watch off target
    cache
        folder of the rewrites; by default an LLM's default one, else one that lasts as long as the lab
    prices
        money per million tokens, (in, out): then the cost is shown in money
    options
        how an LLM that a spec names is asked (`ratekit.rewriting.Options`)

    Raises
    ------
    InputError
        Where ds has no responses.

    Examples
    --------
    >>> import ratekit as rk
    >>> lab = AttributeLab(rk.load("reviews"), "rules", "vader", attribute="length")
    >>> lab.try_it()
    >>> lab.versions[0].attribute.treated
    'longer'
    >>> print(lab.code.splitlines()[0])
    from dataclasses import replace
    """

    def __init__(
        self,
        ds: Any,
        rewriter: str | Rewriter | Replay,
        reward: RewardLike,
        *,
        attribute: str | Attribute | None = None,
        measures: Mapping[str, Measure] | None = None,
        reward_name: str | None = None,
        cache: str | Path | None = None,
        prices: tuple[float, float] | None = None,
        options: Options | None = None,
    ) -> None:
        ds = rows_for("explore", ds, [RESPONSE])
        begin = None if attribute is None else find_attribute(attribute)
        self.bases = ATTRIBUTES if begin is None else {**ATTRIBUTES, begin.name: begin}
        # a misspelt reward is better known before any rewriting
        if reward_name is None and not read_reward(reward).column:
            raise InputError("this reward has no name of its own; give one with reward_name='...'")
        ((self.reward_name, self.reward),) = read_rewards(reward, reward_name).items()
        if prices is not None and len(prices) != 2:
            raise InputError(f"prices={prices}: two numbers were expected, money per million tokens in and out")
        self.ds, self.rewriter = ds, rewriter
        self.measures = dict(measures or {})
        self.prices = Prices(*prices) if prices else None
        self.options = options
        self._folder = None if cache else tempfile.TemporaryDirectory(prefix="ratekit-lab-")
        self.cache = Path(cache) if cache else None
        self.versions: list[Version] = []
        self.worker = Worker()
        self._seed = 0
        self._labelled_for = set(ds[ATTRIBUTE]) if {ATTRIBUTE, TREATED} <= set(columns_of(ds)) else set()
        self._make_draft()
        self._make_tabs()
        super().__init__([
            style(explorer_html.EXPLORER_STYLE),
            row(self.base, self.name),
            row(ipywidgets.Label("Adjust this response so it's ..."), self.treated, ipywidgets.Label("or"),
                self.untreated),
            row(self.measure, self.mentioned, self.rules),
            row(self.rows, self.others, self.depth, self.try_button), self.labels_said,
            self.worker,
            self.tabs,
        ])  # fmt: skip
        self.base.value = begin.name if begin else _first_of(ds)
        self._show_versions()

    # --- controls ---

    def _make_draft(self) -> None:
        self.base = menu("Begin with", [NEW, *self.bases])
        self.name = text_field("Name", "politeness", "200px")
        self.treated = text_field("treated", "more polite", "380px")
        self.untreated = text_field("untreated", "less polite", "380px")
        self.measure = menu("Measured by", [OWN, MENTIONS, *self.measures, *attribute_draft.MEASURE_CHOICES])
        self.mentioned = text_field("words", "please, thank you", "300px")
        self.rules = ipywidgets.SelectMultiple(
            options=list(RULES), description="Rewritten by rules", rows=5, tooltip="Several: Ctrl or Shift and a click",
            style={"description_width": "initial"}, layout={"width": "330px", "max_width": "100%"},
        )  # fmt: skip
        self.rules.layout.display = "" if attribute_trials.is_rules(self.rewriter) else "none"
        self.rows = text_field("Rows", "0-5, 12", "260px")
        self.labels_said = text()
        self.others = button("Other rows", "Another handful at random", lambda: self._pick_rows(again=True))
        self.depth = menu("Rewrites", [("2: there and back", 2), ("3: and there again", 3)])
        self.try_button = button("Try", "Rewrite these rows with these phrases", self._start_trying, primary=True)
        follow(self._begin_with, self.base)
        follow(self._show_mentioned, self.measure)
        self.name.observe(self._renamed, names="value")
        self._show_mentioned()

    def _make_tabs(self) -> None:
        self.compared, self.texts, self.cost, self.picture, self.result = text(), text(), text(), text(), text()
        self.left, self.right, self.row_shown = menu("Left", ["–"]), menu("Right", ["–"]), menu("Row", ["–"])
        self.chosen = menu("Version", ["–"])
        self.n = ipywidgets.IntSlider(
            value=min(60, len(self.ds)), min=min(10, len(self.ds)), max=len(self.ds), description="Rows n",
            continuous_update=False, layout={"width": "420px", "max_width": "100%"},
        )  # fmt: skip
        self.estimate_button = button("Estimate", "At the cost that is shown", self._start_estimating, primary=True)
        self.estimate_button.disabled = True
        self.code_shown = text()
        follow(self._side_by_side, self.left, self.right, self.row_shown)
        follow(self._choose, self.chosen)
        follow(self._show_cost, self.n)
        self.tabs = ipywidgets.Tab(
            [
                ipywidgets.VBox([self.compared, row(self.left, self.right, self.row_shown), self.texts]),
                ipywidgets.VBox([row(self.chosen, self.n), self.cost, self.estimate_button, self.picture, self.result]),
                ipywidgets.VBox([self.code_shown]),
            ],
            titles=("Versions", "Estimate", "Code"),
        )

    # --- what others ask of it ---

    @property
    def draft(self) -> Draft:
        """What is typed at the moment."""
        return Draft(
            self.name.value, self.treated.value, self.untreated.value, self.bases.get(self.base.value),
            self.measure.value, self.mentioned.value,
            tuple(self.rules.value) if attribute_trials.is_rules(self.rewriter) else (),
        )  # fmt: skip

    @property
    def version(self) -> Version:
        """The version chosen under Estimate; the last one tried, at first. Raises InputError where none was tried."""
        for version in self.versions:
            if version.name == self.chosen.value:
                return version
        raise InputError("no version was tried yet: write two phrases and press Try")

    @property
    def attribute(self) -> Attribute:
        """The chosen version as an `rk.Attribute`."""
        return self.version.attribute

    @property
    def code(self) -> str:
        """The chosen version as Python."""
        return self.version.draft.code(self.measures)

    def try_it(self) -> None:
        """Press Try and wait until it is done; raises its fault. For scripts: the button does not wait."""
        self._start_trying()
        self.worker.wait()

    def estimate(self) -> None:
        """Press Estimate and wait until it is done; raises its fault."""
        self._start_estimating()
        self.worker.wait()

    def static(self) -> str:
        """What was tried so far, for where no kernel runs."""
        said = "A lab for attributes. Run this cell in Jupyter to write one and to try it."
        parts = [f"<style>{explorer_html.EXPLORER_STYLE}</style><p>{said}</p>"]
        if self.versions:
            parts += [self.compared.value, self.texts.value, self.code_shown.value]
        if self.picture.value:
            parts.append(self.picture.value)
        return "".join(parts)

    def _labelled(self, attribute: Attribute) -> tuple[Dataset, list[int]]:
        with Heard() as lines:
            found = attribute_draft.draft_labelled(self.ds, attribute)
        self.labels_said.value = block("".join(f"<p>{as_html(line, 300)}</p>" for line in lines), "rk-labels")
        return found

    # --- trying ---

    def _start_trying(self) -> None:
        try:
            draft = self.draft
            attribute = draft.attribute(self.measures)
            ds, rows = self._labelled(attribute)
            places = attribute_draft.read_places(self.rows.value, rows)
            rewriter = self._rewriter_for(attribute, draft)
        except InputError as e:
            self.worker.fail(e, str(e))
            return
        depth, tried = self.depth.value, tuple(rows[i] for i in places)
        name, some = f"v{len(self.versions) + 1}", explorer_rows.taken(ds, places)

        def work(progress: Progress) -> Version:
            audit, checks, verdict = self._audited(some, attribute, rewriter, depth, None, progress)
            return Version(name, draft, attribute, audit, checks, verdict, audit.dataset, tried)

        self.worker.start(work, self._add, f"rewrite {len(places)} rows {depth} times:", cancelled=_KEPT)

    def _audited(
        self, ds: Dataset, attribute: Attribute, rewriter: Any, depth: int, n: int | None, progress: Progress
    ) -> Any:
        return attribute_trials.audited(
            ds, attribute, rewriter, self.reward, self.reward_name, depth, self._cache_of(rewriter), progress, n=n,
            measures=self.measures, prices=self.prices,
        )  # fmt: skip

    def _add(self, version: Version) -> None:
        self.versions.append(version)
        names = [v.name for v in self.versions]
        for control, value in (
            (self.left, names[max(len(names) - 2, 0)]), (self.right, names[-1]), (self.chosen, names[-1]),
        ):  # fmt: skip
            control.options = names
            control.value = value
        self.row_shown.options = list(dict.fromkeys(p for v in self.versions[::-1] for p in v.places))
        self._show_versions()
        self._side_by_side()
        self._choose()
        self.leave()

    def _show_versions(self) -> None:
        self.compared.value = block(attribute_trials.comparison(self.versions), "rk-versions")

    def _side_by_side(self) -> None:
        wanted = dict.fromkeys([self.left.value, self.right.value])
        shown = [v for name in wanted for v in self.versions if v.name == name]
        if shown and isinstance(self.row_shown.value, int):
            self.texts.value = block(attribute_trials.side_by_side(shown, self.row_shown.value), "rk-texts")

    # --- estimating ---

    def _choose(self) -> None:
        if any(v.name == self.chosen.value for v in self.versions):
            self.code_shown.value = block(f"<pre>{html.escape(self.code)}</pre>", "rk-code")
            self._show_result()
            self._show_cost()

    def _show_cost(self) -> None:
        if not self.versions:
            return
        try:
            ds, _ = self._labelled(self.attribute)
            rewriter = self._rewriter_for(self.attribute, self.version.draft)
            said = attribute_trials.cost_in_words(ds, rewriter, self.n.value, self.depth.value, self.prices)
        except InputError as e:
            self.cost.value = block(f'<div class="rk-fault">{escaped(str(e))}</div>', "rk-cost")
            return
        self.cost.value = block(escaped(said), "rk-cost")
        self.estimate_button.disabled = False  # not before the cost was seen

    def _start_estimating(self) -> None:
        try:
            version = self.version
            ds, _ = self._labelled(version.attribute)
            rewriter = self._rewriter_for(version.attribute, version.draft)
        except InputError as e:
            self.worker.fail(e, str(e))
            return
        n, depth = self.n.value, self.depth.value

        def work(progress: Progress) -> Version:
            audit, checks, verdict = self._audited(ds, version.attribute, rewriter, depth, n, progress)
            return replace(version, audit=audit, checks=checks, verdict=verdict, n=len(audit.dataset))

        self.worker.start(work, self._estimated, f"estimate {version.name} on {n} rows:", cancelled=_KEPT)

    def _estimated(self, version: Version) -> None:
        self.versions = [version if v.name == version.name else v for v in self.versions]
        self._show_versions()
        self._show_result()
        self._show_cost()
        self.leave()

    def _show_result(self) -> None:
        version = self.version
        forest = embedded(dashboard_html.forest(version.audit.effects), EFFECTS_OF) if version.n else ""
        self.picture.value = forest
        self.result.value = block(f"<p>{as_html(version.verdict.sentence)}</p>" if version.n else "", "rk-result")

    # --- small things ---

    def _rewriter_for(self, attribute: Attribute, draft: Draft) -> Any:
        cache = self.cache
        if isinstance(self.rewriter, ChatRewriter) and not getattr(self.rewriter.chat, "paid", False):
            cache = self._own_cache()
        made = attribute_trials.rewriter_for(
            self.rewriter, attribute, cache=cache, options=self.options, rules=draft.rules
        )
        if isinstance(made, ChatRewriter):
            self.rewriter = made  # a model is loaded once, not for every version
        return made

    def _cache_of(self, rewriter: Any) -> Path | None:
        return None if isinstance(rewriter, ChatRewriter | Replay) else self._own_cache()

    def _own_cache(self) -> Path | None:
        return self.cache or (Path(self._folder.name) if self._folder else None)

    def _begin_with(self) -> None:
        base = self.bases.get(self.base.value)
        draft = attribute_draft.base_of(base) if base else EXAMPLE
        self.name.value, self.treated.value, self.untreated.value = draft.name, draft.treated, draft.untreated
        self.measure.value, self.rules.value = draft.measure, draft.rules
        self.mentioned.value = self.mentioned.value or draft.mentioned
        self._pick_rows()

    def _show_mentioned(self) -> None:
        self.mentioned.layout.display = "" if self.measure.value == MENTIONS else "none"

    def _renamed(self, change: Any) -> None:
        """The rows of a name that the data are labelled for are others than those of a new one."""
        if {change["old"], change["new"]} & self._labelled_for:
            self._pick_rows()

    def _pick_rows(self, again: bool = False) -> None:
        self._seed += again
        try:
            ds, rows = self._labelled(self.draft.attribute(self.measures))
            chosen = attribute_draft.handful(ds, HANDFUL, self._seed)
            self.rows.value = ", ".join(str(rows[i]) for i in chosen)
        except InputError:  # nothing typed yet: then the first rows will do
            self.rows.value = f"0-{min(HANDFUL, len(self.ds)) - 1}"


def _first_of(ds: Any) -> str:
    """What the lab begins with: an attribute that the data are labelled for, else one whose words nobody lacks."""
    labelled = ds[ATTRIBUTE] if ATTRIBUTE in columns_of(ds) else []
    return next((name for name in labelled if name in ATTRIBUTES), "politeness")
