r"""The package's docstrings (numpydoc sections, Markdown's code marks) as the reStructuredText that Sphinx reads.

>>> print("\n".join(as_rst(["Draw `n` rows_of a *world*.", "", "    y = x + 1"])))
Draw ``n`` rows\_of a \*world\*.
<BLANKLINE>
::
<BLANKLINE>
    y = x + 1
"""

from __future__ import annotations

import itertools
import re

CODE = re.compile(r"`+([^`]+)`+")
SPECIAL = re.compile(r"([\\*_|])")
OF_ENTRIES = ("Parameters", "Returns", "Yields", "Raises", "Warns", "Attributes")  # indented lines describe a name


def as_rst(lines: list[str]) -> list[str]:
    """Examples and pictures as they are, code as code, and nothing else has a meaning."""
    out: list[str] = []
    section = ""
    for blank, group in itertools.groupby(lines, lambda line: not line.strip()):
        paragraph = list(group)
        if not blank and len(paragraph) > 1 and set(paragraph[1].strip()) == {"-"}:
            section = paragraph[0].strip()
        if blank or section == "Examples" or paragraph[0].lstrip().startswith(">>>"):
            out += paragraph
        elif paragraph[0][:1] in (" ", "|") and section not in OF_ENTRIES:
            out += ["::", "", *(line if line[:1] == " " else f"    {line}" for line in paragraph)]
        else:
            out += _words("\n".join(paragraph)).split("\n")
    return out


def _words(text: str) -> str:
    parts = CODE.split(text)
    return "".join(
        f"``{' '.join(part.split())}``" if i % 2 else SPECIAL.sub(r"\\\1", part) for i, part in enumerate(parts)
    )
