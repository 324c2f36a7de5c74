"""An attribute in the making: what is typed, which rows it is tried on, its code. No widgets; trials.py tries it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ratekit.attributes import ATTRIBUTES, Attribute
from ratekit.errors import InputError, unknown
from ratekit.measures import Measure, formality, mentions, readability, starts_with_vowel, vader, words
from ratekit.schema import ATTRIBUTE, TREATED, columns_of, require
from ratekit.stages import label
from ratekit.widgets.facts import taken

if TYPE_CHECKING:
    from datasets import Dataset

OWN, MENTIONS = "the attribute's own", "mentions of words"
# What an attribute may be measured by, and how that is written in code.
MEASURES: dict[str, tuple[Measure, str]] = {
    "words": (words, "rk.measures.words"),
    "sentiment": (vader, "rk.measures.vader"),
    "readability": (readability, "rk.measures.readability"),
    "formality": (formality, "rk.measures.formality"),
    "starts with a vowel": (starts_with_vowel, "rk.measures.starts_with_vowel"),
}


# --- the attribute and its rows ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Draft:
    """What is typed: a name, two phrases, the attribute it began as ("" for a new one), and what it is measured by.

    >>> Draft("thanks", "more grateful", "less grateful", measure=MENTIONS, mentioned="thank, thanks").attribute().name
    'thanks'
    """

    name: str
    treated: str
    untreated: str
    base: str = ""
    measure: str = OWN
    mentioned: str = ""

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
        return MEASURES[self.measure][0] if self.measure in MEASURES else None

    def code(self, measures: Mapping[str, Measure] | None = None) -> str:
        r"""The attribute as Python that makes it anew.

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
        variable = re.sub(r"\W+", "_", fields["name"]).strip("_").lower() or "attribute"
        variable = f"_{variable}" if variable[0].isdigit() else variable
        if self.base and self.measure == OWN:
            return "\n".join([
                "from dataclasses import replace\n", "import ratekit as rk\n",
                f"{variable} = replace(", f"    rk.ATTRIBUTES[{self.base!r}],  # its label and measure", *lines, ")",
            ])  # fmt: skip
        if self.measure == MENTIONS:
            sought = [w.strip() for w in self.mentioned.split(",") if w.strip()]
            lines.append(f"    measure=rk.measures.mentions({', '.join(map(repr, sought))}),")
        elif self.measure in (measures or {}):
            lines.append(f"    measure={getattr((measures or {})[self.measure], '__name__', self.measure)},  # yours")
        elif self.measure in MEASURES:
            lines.append(f"    measure={MEASURES[self.measure][1]},")
        return "\n".join(["import ratekit as rk\n", f"{variable} = rk.Attribute(", *lines, ")"])


def labelled(ds: Dataset, attribute: Attribute) -> Dataset:
    """The rows with their labels: the data's own where they are for this attribute, else by its label or measure.

    Raises InputError where nothing says who is treated.
    """
    require(ds, "label")
    have = columns_of(ds)
    if {ATTRIBUTE, TREATED} <= set(have):
        own = [i for i, name in enumerate(ds[ATTRIBUTE]) if name == attribute.name]
        if own:
            return taken(ds, own) if len(own) < len(ds) else ds
        bare = [c for c in have if c in ("rewrites", "rewrite_status") or c.startswith(("reward/", "reward_status/"))]
        ds = _once(ds.remove_columns([*bare, ATTRIBUTE, TREATED]))
    if attribute.label is None and attribute.measure is None:
        raise InputError(
            f"nothing says which responses are {attribute.name!r}: choose what it is measured by (above the median is "
            "treated), or give data with the columns attribute and treated"
        )
    return label(ds, attribute)


def _once(ds: Dataset) -> Dataset:
    """Each response once: data of several attributes hold it under each of them."""
    seen: set[tuple[str, str]] = set()
    kept = []
    for i, key in enumerate(zip(map(str, ds["prompt_id"]), ds["response"], strict=True)):
        if key not in seen:
            seen.add(key)
            kept.append(i)
    return taken(ds, kept) if len(kept) < len(ds) else ds


def handful(ds: Dataset, k: int, seed: int = 0) -> list[int]:
    """About `k` places, as many treated as untreated, at random.

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

    >>> read_places("0-2, 7", n=10)
    [0, 1, 2, 7]

    Raises InputError for what is no place of n rows.
    """
    places: list[int] = []
    for part in filter(None, re.split(r"[,;\s]+", text.strip())):
        found = re.fullmatch(r"(\d+)(?:[-–:](\d+))?", part)
        if not found:
            raise InputError(f"rows: {part!r} is no row number; write them as in 0-5, 12")
        first, last = int(found[1]), int(found[2] or found[1])
        if last >= n or first > last:
            raise InputError(f"rows: {part!r} is not within 0 to {n - 1}")
        places += range(first, last + 1)
    if not places:
        raise InputError("rows: none is chosen; write them as in 0-5, 12")
    return list(dict.fromkeys(places))


def base_of(name: str) -> Draft:
    """The draft that an attribute of `ATTRIBUTES` begins as."""
    if name not in ATTRIBUTES:
        raise unknown("attribute", name, ATTRIBUTES)
    known = ATTRIBUTES[name]
    return Draft(known.name, known.treated, known.untreated, base=name)
