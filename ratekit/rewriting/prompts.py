"""The rewriting prompt: one template for every pass, with only the phrase flipped.

That the two passes differ in nothing but the phrase is what lets the rewriter's own marks cancel.
"""

from __future__ import annotations

import hashlib
import re

from ratekit.errors import InputError
from ratekit.schema import Conversation

TEMPLATE = """\
Adjust this response so it's {phrase}, and change nothing else. Keep its content, order, formatting, spelling \
and even its mistakes wherever the adjustment does not touch them. Reply with the adjusted response alone, \
without a word before or after it.

<response>
{response}
</response>"""

_FIELD = re.compile(r"\{(phrase|response)\}")


def checked(template: str) -> str:
    """The template itself, if it has both fields. Raises InputError."""
    for field in ("{phrase}", "{response}"):
        if field not in template:
            raise InputError(f"the rewriting template has no {field}: {template[:80]!r}")
    return template


def messages(template: str, phrase: str, response: str) -> Conversation:
    """The conversation that asks for one rewrite; the response goes in as it is, braces included.

    >>> messages("Make it {phrase}: {response}", "longer", "a {phrase}")
    [{'role': 'user', 'content': 'Make it longer: a {phrase}'}]
    """
    fields = {"phrase": phrase, "response": response}
    return [{"role": "user", "content": _FIELD.sub(lambda m: fields[m[1]], template)}]


def template_hash(template: str) -> str:
    """Eight hexadecimal digits that travel with the rewrites made by this template."""
    return hashlib.sha256(template.encode()).hexdigest()[:8]
