"""An attribute in the making: what is typed, which rows it is tried on, its code. No widgets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ratekit.attributes import ATTRIBUTES
from ratekit.errors import InputError
from ratekit.labellers import Attribute
from ratekit.measures import Measure, formality, mentions, readability, starts_with_vowel, vader, values_of, words
from ratekit.rewriting.rules import RULES
from ratekit.schema import ATTRIBUTE, TREATED, columns_of, require
from ratekit.sources.loading import without_duplicates
from ratekit.stages import label
from ratekit.widgets.attribute_code import as_code, identifier
from ratekit.widgets.explorer_rows import taken

if TYPE_CHECKING:
    from datasets import Dataset

# What an attribute may begin as: the known ones, and those that rules rewrite without a language model.
OWN, MENTIONS = "the attribute's own", "mentions of words"
# What an attribute may be measured by, and how that is written in code.
MEASURE_CHOICES: dict[str, tuple[Measure, str]] = {
    "words": (words, "rk.measures.words"),
    "sentiment": (vader, "rk.measures.vader"),
    "readability": (readability, "rk.measures.readability"),
    "formality": (formality, "rk.measures.formality"),
    "starts with a vowel": (starts_with_vowel, "rk.measures.starts_with_vowel"),
}


# --- the attribute and its rows ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Draft:
    """What is typed: a name, two phrases, the attribute it began as (None for a new one), what it is measured by, and
    the rules that rewrite it where no language model does.

    Examples
    --------
    >>> Draft("thanks", "more grateful", "less grateful", measure=MENTIONS, mentioned="thank, thanks").attribute().name
    'thanks'
    """

    name: str
    treated: str
    untreated: str
    base: Attribute | None = None
    measure: str = OWN
    mentioned: str = ""
    rules: tuple[str, ...] = ()

    def attribute(self, measures: Mapping[str, Measure] | None = None) -> Attribute:
        """The attribute; `measures` are the user's own. Raises InputError for what is missing."""
        name, treated, untreated = self.name.strip(), self.treated.strip(), self.untreated.strip()
        parts = {"a name": name, "the phrase for treated": treated, "the phrase for untreated": untreated}
        missing = [what for what, given in parts.items() if not given]
        if missing:
            raise InputError(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")
        if treated == untreated:
            raise InputError(f"both phrases are {treated!r}, so the two sides would be the same")
        if self.base and self.measure == OWN:
            return replace(self.base, name=name, treated=treated, untreated=untreated)
        return Attribute(name, treated, untreated, measure=self._measure(measures or {}))

    def _measure(self, measures: Mapping[str, Measure]) -> Measure | None:
        if self.measure == MENTIONS:
            return mentions(*self.mentioned.split(","))
        if self.measure in measures:
            return measures[self.measure]
        return MEASURE_CHOICES[self.measure][0] if self.measure in MEASURE_CHOICES else None

    def code(self, measures: Mapping[str, Measure] | None = None) -> str:
        r"""The attribute as Python that runs in a file of its own.

        Parameters
        ----------
        measures : mapping of str to callable, optional
            The user's own; one that is chosen is imported, written out with what it needs, or left as a stub that says
            so.

        Returns
        -------
        str
            Ends in the attribute, and in its rewriter where that is composed of rules.

        Examples
        --------
        >>> print(Draft("kind", "kinder", "ruder", measure="sentiment").code())
        import ratekit as rk
        <BLANKLINE>
        kind = rk.Attribute(
            name='kind',
            treated='kinder',
            untreated='ruder',
            measure=rk.measures.vader,
        )
        """
        self.attribute(measures)  # what is no attribute is no code either
        phrases = {"name": self.name.strip(), "treated": self.treated.strip(), "untreated": self.untreated.strip()}
        lines = [f"    {field}={value!r}," for field, value in phrases.items()]
        variable, imports, made = identifier(phrases["name"]), ["import ratekit as rk"], "rk.Attribute("
        own: dict[str, tuple[str, Any]] = {}
        if self.base and self.measure == OWN:
            if ATTRIBUTES.get(self.base.name) is self.base:
                imports.insert(0, "from dataclasses import replace\n")
                lines.insert(0, f"    rk.ATTRIBUTES[{self.base.name!r}],  # its label and measure")
                made = "replace("
            else:
                more = {f.name: getattr(self.base, f.name) for f in fields(self.base) if f.name not in phrases}
                own = {field: (field, value) for field, value in more.items() if callable(value)}
                lines += [
                    f"    {f}={v!r}," for f, v in more.items() if f not in own and v is not None and v is not False
                ]
        elif self.measure == MENTIONS:
            sought = [w.strip() for w in self.mentioned.split(",") if w.strip()]
            lines.append(f"    measure=rk.measures.mentions({', '.join(map(repr, sought))}),")
        elif self.measure in (measures or {}):
            own = {"measure": (self.measure, (measures or {})[self.measure])}
        elif self.measure in MEASURE_CHOICES:
            lines.append(f"    measure={MEASURE_CHOICES[self.measure][1]},")
        before, names = as_code(own)
        before = "\n".join(line for line in before.split("\n") if line != imports[0]).strip("\n")
        lines += [f"    {field}={name}," for field, name in names.items()]
        variable += "_attribute" if f"def {variable}(" in before or f"\n{variable} = " in f"\n{before}" else ""
        after = ""
        if self.rules and self.rules != (phrases["name"],):
            rules = ", ".join(f"RULES[{name!r}]" for name in self.rules)
            after = (
                f"\n\nrule = composed({rules})\n\n\ndef rewriter(texts, targets):\n"
                "    return [rk.Rewrite(rule(text, target), 'ok') for text, target in zip(texts, targets)]"
            )
            imports.append("from ratekit.ruled import composed")
        if "RULES[" in after:
            imports.append("from ratekit.rewriting.rules import RULES")
        source = f"\n{before}\n" if before.startswith(("import ", "from ")) else f"\n\n{before}\n\n" if before else ""
        return "\n".join([*imports, source, f"{variable} = {made}", *lines, ")"]) + after


def draft_labelled(ds: Dataset, attribute: Attribute) -> tuple[Dataset, list[int]]:
    """The rows with their labels, and where they stand in `ds`.

    The labels are the data's own where they are for this attribute, else by its label or measure. Where the measure is
    0 for every response, all are untreated.

    Raises
    ------
    InputError
        Where nothing says who is treated.
    """
    require(ds, "label")
    have = columns_of(ds)
    if {ATTRIBUTE, TREATED} <= set(have):
        own = [i for i, name in enumerate(ds[ATTRIBUTE]) if name == attribute.name]
        if own:
            return (taken(ds, own) if len(own) < len(ds) else ds), own
    gone = ("reward/", "reward_status/", "measure/")
    bare = [c for c in have if c in (ATTRIBUTE, TREATED, "rewrites", "rewrite_status") or c.startswith(gone)]
    ds = ds.remove_columns(bare).add_column(_PLACE, list(range(len(ds))))
    ds = without_duplicates(ds, "label", "drop")  # each response once, whatever it was made for
    if attribute.label is None and attribute.measure is None:
        raise InputError(
            f"nothing says which responses are {attribute.name!r}: choose what it is measured by (above the median is "
            "treated), or give data with the columns attribute and treated"
        )
    if attribute.label is None and attribute.measure is not None:
        values = values_of(attribute.measure, list(ds["response"]), attribute.name)
        if not np.any(values):  # nobody has it: then the effect on the untreated is there to be seen
            attribute = replace(attribute, label=lambda rows: [False] * len(rows), one_class=True)
    ds = label(ds, attribute)
    return ds.remove_columns(_PLACE), list(ds[_PLACE])


_PLACE = "place in the data"


def handful(ds: Dataset, k: int, seed: int = 0) -> list[int]:
    """About `k` places of `ds`, as many treated as untreated, at random.

    Examples
    --------
    >>> import ratekit as rk
    >>> ds = rk.load("reviews", attribute="length")
    >>> [ds[i]["treated"] for i in handful(ds, 4)].count(True)
    2
    """
    rng = np.random.default_rng(seed)
    treated = np.array(ds[TREATED], dtype=bool)
    chosen: list[int] = []
    for side, count in ((True, (k + 1) // 2), (False, k // 2)):
        places = np.flatnonzero(treated == side)
        chosen += rng.choice(places, size=min(count, len(places)), replace=False).tolist()
    return sorted(chosen)


def read_places(text: str, rows: Sequence[int]) -> list[int]:
    """Rows as people write them: their places among `rows`, which are numbers of rows of the data.

    Raises
    ------
    InputError
        For what is none of these rows.

    Examples
    --------
    >>> read_places("0-2, 7", rows=[1, 2, 5, 7])
    [0, 1, 3]
    """
    places: list[int] = []
    for part in filter(None, re.split(r"[,;\s]+", text.strip())):
        found = re.fullmatch(r"(\d+)(?:[-–:](\d+))?", part)
        if not found:
            raise InputError(f"rows: {part!r} is no row number; write them as in 0-5, 12")
        first, last = int(found[1]), int(found[2] or found[1])
        meant = [i for i, row in enumerate(rows) if first <= row <= last]
        if not meant or last > max(rows):
            raise InputError(
                f"rows: {part!r} is not within the {len(rows)} rows for this attribute ({min(rows)} to {max(rows)}); "
                "'Other rows' picks some"
            )
        places += meant
    if not places:
        raise InputError("rows: none is chosen; write them as in 0-5, 12")
    return list(dict.fromkeys(places))


def base_of(known: Attribute) -> Draft:
    """The draft that an attribute begins as."""
    rules = (known.name,) if known.name in RULES else ()
    return Draft(known.name, known.treated, known.untreated, base=known, rules=rules)
