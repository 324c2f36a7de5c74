r"""The package's docstrings, which are plain text for a terminal, as reStructuredText.

>>> print("\n".join(as_rst(["n     rows drawn", "seed  of the draws, `seed=0`", "      by default"])))
``n``
   rows drawn
``seed``
   of the draws, ``seed=0`` by default
<BLANKLINE>
"""

from __future__ import annotations

import re

ENTRY = re.compile(r"^(?P<name>\S(?:[^\s]| (?! ))*?)\s{2,}(?P<text>\S.*)$")  # a name, two spaces, what it is
CODE = re.compile(r"`([^`]+)`")
SPECIAL = re.compile(r"([\\*_|])")


def as_rst(lines: list[str]) -> list[str]:
    """Paragraph by paragraph: examples and pictures as they are, lists of names as definitions, words as words."""
    out: list[str] = []
    for paragraph in _paragraphs(lines):
        out += [*_converted(paragraph), ""]
    return out


def _paragraphs(lines: list[str]) -> list[list[str]]:
    found: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            found[-1].append(line.rstrip())
        elif found[-1]:
            found.append([])
    return [p for p in found if p]


def _converted(lines: list[str]) -> list[str]:
    first = lines[0].lstrip()
    if first.startswith(">>>"):
        return lines
    if lines[0][:1] == " " or first.startswith("|"):
        return ["::", "", *(f"   {line}" for line in lines)]
    if first.startswith("- "):
        return _bullets(lines)
    if ENTRY.match(lines[0]) and not first.endswith((".", ":")):
        return _definitions(lines)
    head = [i for i, line in enumerate(lines) if ENTRY.match(line) and i]
    if head and all(line[:1] == " " or ENTRY.match(line) for line in lines[head[0] :]):
        return [*_words(lines[: head[0]]), "", *_definitions(lines[head[0] :])]
    return _words(lines)


def _definitions(lines: list[str]) -> list[str]:
    entries: list[tuple[str, list[str]]] = []
    for line in lines:
        found = ENTRY.match(line)
        if found and line[:1] != " ":
            entries.append((found["name"], [found["text"]]))
        elif entries:
            entries[-1][1].append(line.strip())
    out = []
    for name, text in entries:
        out += [f"``{name}``", *(f"   {line}" for line in _words(text))]
    return out


def _bullets(lines: list[str]) -> list[str]:
    items: list[list[str]] = []
    for line in lines:
        if line.startswith("- "):
            items.append([line[2:]])
        else:
            items[-1].append(line.strip())
    return [f"- {' '.join(_words(item))}" for item in items]


def _words(lines: list[str]) -> list[str]:
    """One line of running text: code as code, and nothing else has a meaning."""
    parts = CODE.split(" ".join(line.strip() for line in lines))
    return ["".join(f"``{part}``" if i % 2 else SPECIAL.sub(r"\\\1", part) for i, part in enumerate(parts))]
