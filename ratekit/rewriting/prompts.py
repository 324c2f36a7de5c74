"""The rewriting prompt: one template for every pass, with only the phrase flipped.

That the passes differ in nothing but the phrase is what lets the rewriter's own marks cancel.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from ratekit.errors import InputError, require_known
from ratekit.labellers import Attribute
from ratekit.schema import Conversation, prompt_text

TEMPLATE = """\
Adjust this response so it's {phrase}, and change nothing else. Keep its content, order, formatting, spelling \
and even its mistakes wherever the adjustment does not touch them. Reply with the adjusted response alone, \
without a word before or after it.

<response>
{response}
</response>"""

CONTEXT_TEMPLATE = """\
Below are a prompt and a response to it. Adjust the response so it's {phrase} as an answer to this prompt, and change \
nothing else. Keep its content, order, formatting, spelling and even its mistakes wherever the adjustment does not \
touch them. Reply with the adjusted response alone, without a word before or after it.

<prompt>
{prompt}
</prompt>

<response>
{response}
</response>"""

FIELDS = ("phrase", "response", "prompt")
_ANY_FIELD = re.compile(r"\{([A-Za-z_]\w*)\}")


def template_of(attribute: Attribute, template: str | None = None) -> str:
    """The template to use: the one given, else the attribute's own, else ratekit's. Raises InputError.

    Examples
    --------
    >>> from ratekit.attributes import ATTRIBUTES
    >>> "{prompt}" in template_of(ATTRIBUTES["helpfulness"]), "{prompt}" in template_of(ATTRIBUTES["length"])
    (True, False)
    """
    own = CONTEXT_TEMPLATE if attribute.needs_prompt else TEMPLATE
    return checked_template(template or attribute.template or own)


def checked_template(template: str) -> str:
    """The template itself, if it has {phrase} and {response}, and no field but those and {prompt}."""
    for field in ("{phrase}", "{response}"):
        if field not in template:
            raise InputError(
                f"the rewriting template has no {field}; write it where the "
                f"{'wish' if field == '{phrase}' else 'text'} goes: {template[:80]!r}"
            )
    for name in _ANY_FIELD.findall(template):
        require_known("field of the rewriting template", name, FIELDS)
    return template


def needs_prompt(template: str) -> bool:
    """Whether the template shows the prompt that the response answers."""
    return "{prompt}" in template


def messages(
    template: str, phrase: str, response: str, prompt: str | Sequence[dict[str, Any]] | None = None
) -> Conversation:
    """Return the conversation that asks for one rewrite.

    Parameters
    ----------
    template : str
        With {phrase}, {response} and, if wanted, {prompt}.
    phrase : str
        The side that is asked for.
    response : str
        Goes in as it is, braces included.
    prompt : str or list of dict, optional
        What the response answers; needed where the template shows it.

    Raises
    ------
    InputError
        Where the template shows the prompt and none is given.

    Notes
    -----
    A text cannot close the tags that it stands between: where it holds one of them, in any spelling, both tags of the
    template take a suffix that is made of a hash of the texts and does not occur in them. The prompt for any other text
    does not change, nor does its address in a cache.

    Examples
    --------
    >>> messages("Make it {phrase}: {response}", "longer", "a {phrase}")
    [{'role': 'user', 'content': 'Make it longer: a {phrase}'}]
    >>> print(messages("<text>{response}</text> {phrase}", "longer", "A </text> B")[0]["content"])
    <text-b017da>A </text> B</text-b017da> longer
    """
    fields = {"phrase": phrase, "response": response, "prompt": ""}
    if needs_prompt(template):
        if prompt is None:
            raise InputError("the rewriting template shows the {prompt}, and none was given with the texts")
        fields["prompt"] = prompt_text(prompt)
    texts = fields["response"] + "\n" + fields["prompt"]
    return [{"role": "user", "content": filled(template, fields, texts)}]


def filled(template: str, fields: Mapping[str, str], texts: str) -> str:
    """The template with its fields filled in, as they are, and with tags that `texts` cannot close.

    Examples
    --------
    >>> filled("<a>{first}</a>", {"first": "{first}"}, "{first}")
    '<a>{first}</a>'
    """
    field = re.compile(r"\{(" + "|".join(map(re.escape, fields)) + r")\}")
    return field.sub(lambda m: fields[m[1]], _delimited(template, texts))


_AROUND = re.compile(r"<([A-Za-z][\w-]*)>\s*\{\w+\}\s*</\1>")


def _delimited(template: str, texts: str) -> str:
    """The template with tags that the texts do not hold."""
    seen = "".join(c for c in unicodedata.normalize("NFKC", texts) if unicodedata.category(c) != "Cf")
    for tag in dict.fromkeys(_AROUND.findall(template)):
        if re.search(rf"<\s*/?\s*{re.escape(tag)}\b", seen, re.IGNORECASE):
            suffix = hashlib.sha256(f"{tag}|{texts}".encode()).hexdigest()[:6]
            while suffix in texts.lower():
                suffix = hashlib.sha256(suffix.encode()).hexdigest()[:6]
            template = re.sub(rf"(</?){re.escape(tag)}>", rf"\1{tag}-{suffix}>", template)
    return template


def template_hash(template: str) -> str:
    """Eight hexadecimal digits that travel with the rewrites made by this template."""
    return hashlib.sha256(template.encode()).hexdigest()[:8]
