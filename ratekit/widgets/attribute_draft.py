"""An attribute in the making: what is typed, which rows it is tried on, its code. No widgets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ratekit.attributes import ATTRIBUTES
from ratekit.errors import InputError, unknown
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
    """What is typed: a name, two phrases, the attribute it began as ("" for a new one), what it is measured by, and the
    rules that rewrite it where no language model does.

    Examples
    --------
    >>> Draft("thanks", "more grateful", "less grateful", measure=MENTIONS, mentioned="thank, thanks").attribute().name
    'thanks'
    """

    name: str
    treated: str
    untreated: str
    base: str = ""
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
            return replace(ATTRIBUTES[self.base], name=name, treated=treated, untreated=untreated)
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
        fields = {"name": self.name.strip(), "treated": self.treated.strip(), "untreated": self.untreated.strip()}
        lines = [f"    {field}={value!r}," for field, value in fields.items()]
        variable, imports, before = identifier(fields["name"]), ["import ratekit as rk"], ""
        made = "rk.Attribute("
        if self.base and self.measure == OWN:
            imports.insert(0, "from dataclasses import replace\n")
            lines.insert(0, f"    rk.ATTRIBUTES[{self.base!r}],  # its label and measure")
            made = "replace("
        elif self.measure == MENTIONS:
            sought = [w.strip() for w in self.mentioned.split(",") if w.strip()]
            lines.append(f"    measure=rk.measures.mentions({', '.join(map(repr, sought))}),")
        elif self.measure in (measures or {}):
            before, measure = as_code((measures or {})[self.measure], self.measure)
            before = "\n".join(line for line in before.split("\n") if line != imports[0]).strip("\n")
            lines.append(f"    measure={measure},")
            variable += "_attribute" if f"def {variable}(" in before or f"\n{variable} = " in f"\n{before}" else ""
        elif self.measure in MEASURE_CHOICES:
            lines.append(f"    measure={MEASURE_CHOICES[self.measure][1]},")
        after = ""
        if self.rules and self.rules != (fields["name"],):
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


def draft_labelled(ds: Dataset, attribute: Attribute) -> Dataset:
    """The rows with their labels: the data's own where they are for this attribute, else by its label or measure.

    Where the measure is 0 for every response, all are untreated.

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
            return taken(ds, own) if len(own) < len(ds) else ds
    gone = ("reward/", "reward_status/", "measure/")
    bare = [c for c in have if c in (ATTRIBUTE, TREATED, "rewrites", "rewrite_status") or c.startswith(gone)]
    ds = without_duplicates(ds.remove_columns(bare), "label", "drop")  # each response once, whatever it was made for
    if attribute.label is None and attribute.measure is None:
        raise InputError(
            f"nothing says which responses are {attribute.name!r}: choose what it is measured by (above the median is "
            "treated), or give data with the columns attribute and treated"
        )
    if attribute.label is None and attribute.measure is not None:
        values = values_of(attribute.measure, list(ds["response"]), attribute.name)
        if not np.any(values):  # nobody has it: then the effect on the untreated is there to be seen
            nobody = replace(attribute, label=lambda rows: [False] * len(rows), one_class=True)
            return label(ds, nobody)
    return label(ds, attribute)


def handful(ds: Dataset, k: int, seed: int = 0) -> list[int]:
    """About `k` places, as many treated as untreated, at random.

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


def read_places(text: str, n: int) -> list[int]:
    """Places as people write them.

    Raises
    ------
    InputError
        For what is no place of n rows.

    Examples
    --------
    >>> read_places("0-2, 7", n=10)
    [0, 1, 2, 7]
    """
    places: list[int] = []
    for part in filter(None, re.split(r"[,;\s]+", text.strip())):
        found = re.fullmatch(r"(\d+)(?:[-–:](\d+))?", part)
        if not found:
            raise InputError(f"rows: {part!r} is no row number; write them as in 0-5, 12")
        first, last = int(found[1]), int(found[2] or found[1])
        if last >= n or first > last:
            raise InputError(f"rows: {part!r} is not within 0 to {n - 1}, the rows for this attribute")
        places += range(first, last + 1)
    if not places:
        raise InputError("rows: none is chosen; write them as in 0-5, 12")
    return list(dict.fromkeys(places))


def base_of(name: str) -> Draft:
    """The draft that an attribute of `ATTRIBUTES` begins as."""
    if name not in ATTRIBUTES:
        raise unknown("attribute", name, ATTRIBUTES)
    known = ATTRIBUTES[name]
    return Draft(known.name, known.treated, known.untreated, base=name, rules=(name,) if name in RULES else ())
