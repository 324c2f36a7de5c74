"""Marks of the model's own in a reply: its thinking, chat-template tokens, role headers, and the prompt's frame.

What they enclose or announce is taken off where that is certain. A mark that the source text has itself belongs to
the text: of each mark, as many as the source has are kept, counted from the end.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable

from ratekit.columns import nested

_WORD = (
    r"(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflect(?:ion)?|analysis|scratch[_-]?pad|(?:inner[_-]?)?monologue|cot"
    r"|chain[_-]of[_-]thoughts?|deliberation|rationale)"
)
_THOUGHT = re.compile(
    rf"(?:[<◁⟨〈＜]|&lt;)\s*[|｜]?\s*(?P<close>/)?\s*(?P<before>(?:[A-Za-z]+[_▁:-])*)(?:ant|mm|seed)?{_WORD}"
    r"(?P<after>(?:[_▁:-][A-Za-z]+)*)(?:\s[^<>\n]{0,60})?[|｜]?\s*(?:[>▷⟩〉＞]|&gt;)"
    r"|[\[【](?P<close2>/)?(?:think(?:ing)?|thoughts?|reasoning)[\]】]"
    r"|(?P<open3><unused94>(?:thought)?|<\|channel>\s*\w*|<\|inner_prefix\|>)"
    r"|(?P<close3><unused95>|<channel\|>|<\|inner_suffix\|>)",
    re.IGNORECASE,
)
_ENDS = re.compile(r"(?:end|stop|close)", re.IGNORECASE)

_HARMONY = re.compile(r"<\|channel\|>", re.IGNORECASE)
_HARMONY_FINAL = re.compile(
    r".*<\|channel\|>\s*final\b[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>", re.IGNORECASE | re.DOTALL
)
_BARE_FINAL = re.compile(
    r"\A(?:.*assistantfinal|(?:assistant)?\s*(?:analysis|commentary)\b.*\bassistant\s*final"
    r"|(?:assistant)?(?:analysis|commentary)?final(?=[A-Z\"“]))[:\s]*",
    re.DOTALL,
)
_BARE_ANALYSIS = re.compile(r"\A(?:assistant)?(?:analysis|commentary)(?=[A-Z\"'“])")

_TOKEN = re.compile(
    r"<[|｜][^<>|｜\n]{1,40}[|｜]>|</?s>|<<?/?SYS>>?"
    r"|<(?:bos|eo[adhmstu]|pad|unk|sep|cls|(?:start|begin|end)_of_\w{2,20}|im_start|im_end|reserved_\d+|_start|_end)>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|BOS|EOS|PAD|UNK)\]|<\|\w+>|<\w+\|>"
    r"|\[[|｜]/?\w{1,20}[|｜]\]|<\w{1,12}:(?:bos|eos|eot|pad|end)>|\[e~\[|\]~!?b\[?\]",
    re.IGNORECASE,
)
MAX_TOKENS = 20  # of a chat template before a text; more is a loop
_OF_A_TOOL = re.compile(r"python_tag|tool|function|plugin", re.IGNORECASE)
_TURN_ENDS = re.compile(
    r"end|eot|eos|eom|return|stop|im_start|start|inst|user|assistant|system|human|</s>|sys|turn|pad|unk|bos|bom",
    re.IGNORECASE,
)
_ROLE = r"(?:assistant|model|ai|bot|chatbot|gpt)"
_HEADER = re.compile(
    rf"\A(?:\W{{0,4}}(?:im_start\W+|(?:gpt\d?|code)[\w ]{{0,16}} )?{_ROLE}\W{{0,4}}(?:\n+|:\s*\**\s*)"
    rf"|[\[<(]{_ROLE}[\])>]:?\s*)",
    re.IGNORECASE,
)
_TURNS = re.compile(  # what is left of a chat template when its tokens are gone
    r"\A(?:system|user|human)[ \t]*\n.*(?:assistant|model)[ \t]*\n+(?=\S)"
    r"|\A\s*(?:\[INST\]|<s>).*\[/INST\]\s*|\A<extra_id_\d>\s*assistant\s+",
    re.DOTALL | re.IGNORECASE,
)
_BYTES = re.compile(r"<0x[0-9A-F]{2}>|<extra_id_\d+>|\ufffd")  # also half of a letter that was cut
_PIECE = "\u2581"  # sentencepiece's mark of a space
_OTHER_HEADER = re.compile(r"\A(?:user|system|human|developer|tool)\s*\n", re.IGNORECASE)
_NEXT_TURN = re.compile(
    r"(?:\A|\n)[ \t]*(?:\*\*|#{1,4} ?)?(?:human|user|assistant|system|instruction)(?:\*\*)?\s*:", re.IGNORECASE
)

_COMPARED = r"(?:longer|shorter|simpler|better|clearer|plainer|warmer|friendlier|politer|briefer|ruder|harsher|safer)"
_SIDE = (
    r"(?:adjusted|rewritten|re-written|revised|modified|edited|updated|new|original|structured|final|improved|corrected"
    r"|reformatted|simplified|expanded|condensed|shortened|lengthened|complete|full|(?:more|less) [\w-]+"
    rf"|{_COMPARED})"
)
_LABEL = (
    rf"(?:(?:the|my|your|here is the)\s+)?(?:(?:{_SIDE}\s+){{0,3}}(?:response|reply|rewrite|rewriting|output)"
    rf"|(?:{_SIDE}\s+){{1,3}}(?:version|text|answer|review|message|passage|paragraph|result|query|question))"
)
_DECOR = r"[\s#>*_]*"
OPTION = r"(?:option|version|alternative|variant|variation|rewrite|draft|take)\s*#?(?:\d|one|two|three|[A-C])\b"
_NAMED = rf"(?:{_LABEL}|answer|result|rewritten|revised|adjusted|edited|text)"
_LABELLED = re.compile(
    rf"\A(?:{_DECOR}{_LABEL}(?:[ \t]*\([^()\n]{{1,60}}\))?[*_]*"
    r"(?:\s*:[\s*_]*|[ \t]*[*_]{1,2}\s*\n+|[ \t]+[-–—]+[ \t]+|[ \t]*\n+)"
    r"|\W{0,4}(?:réponse|antwort|respuesta|resposta|risposta|ответ|回复|回答|答案|返信)[*_]*[ \u00a0]?[:：][*_]*\s*"
    rf"|{_DECOR}{_NAMED}[*_]*:[*_]*\s*|#+ *{_NAMED} *#*\n+|[\[(]{_NAMED}[\])]:?\s*"
    rf"|{_DECOR}{OPTION}[*_]*:(?![\s\S]*\n[ \t#>*_]*{OPTION})[*_]*\s*)",
    re.IGNORECASE,
)
_LONG_LABEL = re.compile(rf"\A{_DECOR}{_LABEL}\b[^\n:]{{0,60}}:[*_]*[ \t]*\n+", re.IGNORECASE)
_ASKED = re.compile(
    rf"\A{_DECOR}(?:(?:original|user(?:['’]s)?|the)\s+)?(?:query|question|prompt|instruction|input)[*_]*\s*:",
    re.IGNORECASE,
)
_THEN_LABEL = re.compile(rf"\n{_DECOR}(?:{_LABEL}|answer)[*_]*\s*:[\s*_]*", re.IGNORECASE)
_ORIGINAL = re.compile(
    rf"\A{_DECOR}(?:original(?:\s+(?:response|text|answer|version|review))?|before)[*_]*\s*:", re.IGNORECASE
)
_THEN_ADJUSTED = re.compile(
    rf"\n{_DECOR}(?:adjusted|rewritten|revised|modified|edited|updated|new|improved|final|after|{_COMPARED})"
    r"(?:\s+(?:\w+\s+)?(?:response|text|answer|version|review))?[*_]*\s*:[\s*_]*",
    re.IGNORECASE,
)
_ASIDE = re.compile(
    rf"\A(?:```{_WORD}\n.*?\n```|<!--\s*{_WORD}\s*-->.*?<!--\s*/\s*{_WORD}\s*-->"
    rf"|<details>\s*<summary>[^<]{{0,20}}{_WORD}[^<]{{0,20}}</summary>.*?</details>)\s*",
    re.DOTALL | re.IGNORECASE,
)
_THOUGHT_HEAD = re.compile(rf"\A[*_#>(\s]*(?:{_WORD}|thinks)[*_):\s]*\n", re.IGNORECASE)
_THOUGHT_IN_WORDS = re.compile(
    r"\A\W*(?:here is my thought process|(?:my )?thought process|thinking(?: process)?|my (?:reasoning|thoughts)"
    r"|reasoning|step[- ]by[- ]step)\W{0,3}:",
    re.IGNORECASE,
)
_THEN_RESPONSE = re.compile(
    rf"\n{_DECOR}(?:here is my (?:final )?(?:response|answer)|{_LABEL}|(?:final )?answer)[*_]*\s*:[\s*_]*",
    re.IGNORECASE,
)

_TAG = (
    r"(?:response|adjusted_response|rewritten_response|review|text|answer|final|final_answer|output|solution|result"
    r"|rewrite|rewritten|adjusted|revised|revised_response|response-\w+|rewritten_text|adjusted_text)"
)
WRAPPED = re.compile(rf"(?:<|&lt;)({_TAG})(?:>|&gt;)\s*(.*?)\s*(?:<|&lt;)/\1(?:>|&gt;)", re.DOTALL | re.IGNORECASE)
PARAGRAPH = re.compile(  # one element of HTML around everything
    r"<(p|div|span|body|html|section|article)(?:\s[^<>]{0,80})?>\s*((?:(?!</?\1\b).)*?)\s*</\1>",
    re.DOTALL | re.IGNORECASE,
)
ITEM = re.compile(r"1[.)][ \t]+(\S[^\n]*)")  # a list of one line
_FRAME_EDGES = re.compile(
    rf"\A\s*<(?:{_TAG}|prompt(?:-\w+)?)>(?:\s*<!\[CDATA\[)?|(?:\]\]>\s*)?</(?:{_TAG}|prompt(?:-\w+)?)>\s*\Z",
    re.IGNORECASE,
)
_FENCED_JSON = re.compile(r"(```|~~~)\w*\n([\[{].*[\]}])\s*\1", re.DOTALL)
_JSON = re.compile(r"""\[?\s*\{\s*["'][\w -]{1,40}["']\s*:|\[\s*["']""")
_JSON_NAME = re.compile(
    r"(?:\w*[ _-])?(?:response|reply|rewrite|rewritten|rewriting|text|answer|output|result|review|content|version"
    r"|adjusted|revised)(?:[ _-]\w*)?",
    re.IGNORECASE,
)
_CLOSING_TAG = re.compile(r"</[a-z][\w:.-]*\s*>", re.IGNORECASE)
_OF_HTML = re.compile(
    r"</(?:a|abbr|b|big|blockquote|body|br|button|center|cite|code|dd|del|div|dl|dt|em|font|footer|form|h[1-6]|head|header"
    r"|html|i|img|ins|kbd|label|li|main|mark|nav|ol|option|p|pre|q|s|samp|section|small|span|strike|strong|style|sub|sup"
    r"|table|tbody|td|th|thead|title|tr|tt|u|ul|var)\s*>",
    re.IGNORECASE,
)


_BRACKET = re.compile(r"[<\[◁⟨〈＜【]|&lt;")


def own_marks(found: Iterable[re.Match[str]], source: str) -> list[re.Match[str]]:
    """The marks among `found` that the source does not have, or has fewer times."""
    found, lower = list(found), source.casefold()
    seen: Counter[str] = Counter()
    kept = []
    first = len(found[0].string) - len(found[0].string.lstrip()) if found else 0
    for match in reversed(found):
        mark = match[0].strip().casefold()
        seen[mark] += 1
        leads = match.start() <= first and not lower.startswith(mark)
        if leads or seen[mark] > lower.count(mark):
            kept.append(match)
    return kept[::-1]


def foreign_tags(text: str, source: str) -> bool:
    """Whether a tag is closed that the source does not close and that formats nothing: a call of a tool, a part.

    Examples
    --------
    >>> foreign_tags("<tool_call>{}</tool_call>", "A text."), foreign_tags("A <b>text</b>.", "A text.")
    (True, False)
    """
    return any(not _OF_HTML.match(tag[0]) for tag in own_marks(_CLOSING_TAG.finditer(text), source))


def without_thoughts(text: str, source: str) -> str | None:
    """The text without the model's thinking; None where what is thinking and what is text cannot be told apart.

    Examples
    --------
    >>> without_thoughts("They want more.\\n</think>\\n\\nA long text.", "A text.")
    'A long text.'
    >>> without_thoughts("<think>\\nThey want", "A text.") is None
    True
    """
    if _HARMONY.search(text) and not _HARMONY.search(source):
        final = _HARMONY_FINAL.match(text)
        return text[final.end() :].strip() if final else None
    if (bare := _BARE_FINAL.match(text)) and not _BARE_FINAL.match(source):
        return text[bare.end() :].strip()
    if _BARE_ANALYSIS.match(text) and not _BARE_ANALYSIS.match(source):
        return None
    if (aside := _ASIDE.match(text)) and not _ASIDE.match(source):
        text = text[aside.end() :]
    thoughts = next((p for p in (_THOUGHT_IN_WORDS, _THOUGHT_HEAD) if p.match(text) and not p.match(source)), None)
    if thoughts is not None:
        then = _THEN_RESPONSE.search(text)
        return text[then.end() :].strip() if then else None
    outside: list[str] = []
    inside, at = False, 0
    for mark in own_marks(_THOUGHT.finditer(text), source) if _BRACKET.search(text) else ():
        if _closes(mark):
            outside = outside if inside else []  # thinking whose opening mark is in the prompt
            inside, at = False, mark.end()
        elif not inside:
            outside.append(text[at : mark.start()])
            inside = True
    if inside:
        return None
    parts = [
        part for part in (*outside, text[at:]) if any(map(str.isalnum, part)) and without_template(part, source) != ""
    ]
    if len(parts) > 1:
        return None
    return parts[0].strip() if parts else ""


def _closes(mark: re.Match[str]) -> bool:
    slash = mark["close"] or mark["close2"] or mark["close3"]
    return bool(slash or _ENDS.search(f"{mark['before'] or ''} {mark['after'] or ''}"))


def _without_start(pattern: re.Pattern[str], text: str, source: str) -> str:
    """The text without what it starts with, where its source does not."""
    found = None if pattern.match(source) else pattern.match(text)
    return text if found is None else text[found.end() :].strip()


def without_template(text: str, source: str) -> str | None:
    """The text without role headers and chat-template tokens; None where one stands within it.

    Examples
    --------
    >>> without_template("<|start_header_id|>assistant<|end_header_id|>\\n\\nA text.<|eot_id|>", "A text")
    'A text.'
    """
    if _PIECE in text and _PIECE not in source:
        text = text.replace(_PIECE, " ").strip()
    text = _without_start(_TURNS, text, source)
    if own_marks(_BYTES.finditer(text), source):
        return None
    n_tokens = 0
    while (first := next(iter(own_marks(_TOKEN.finditer(text), source)), None)) and not text[: first.start()].strip():
        text = text[first.end() :].strip()
        n_tokens += 1
        if _OTHER_HEADER.match(text) or _OF_A_TOOL.search(first[0]) or n_tokens > MAX_TOKENS:
            return None
        if header := re.match(rf"{_ROLE}\s*(?=\n|\Z|{_TOKEN.pattern})|:(?=[\s\w\"'“])", text, re.IGNORECASE):
            text = text[header.end() :].strip()
    text = _without_start(_HEADER, text, source)
    if tokens := own_marks(_TOKEN.finditer(text), source):
        if not (_TURN_ENDS.search(tokens[0][0]) or not text[tokens[0].end() :].strip()):
            return None
        text = text[: tokens[0].start()].strip()
    if own_marks(_NEXT_TURN.finditer(text), source):
        return None
    return text


def without_json(text: str, source: str) -> str | None:
    """The text that JSON holds: alone in a list, or under the one name that is a rewrite's; None for JSON without one.

    Examples
    --------
    >>> without_json('{"rewritten_response": "A long text."}', "A text."), without_json("['A long text.']", "A text.")
    ('A long text.', 'A long text.')
    >>> without_json('{"name": "rewrite", "parameters": {}}', "A text.") is None
    True
    """
    fenced = _FENCED_JSON.fullmatch(text)
    inner = fenced[2] if fenced else text
    if not _JSON.match(inner) or _JSON.search(source):
        return text
    try:
        found = json.loads(inner, strict=False)
    except (ValueError, RecursionError):
        try:
            found = nested(inner)
        except ValueError:
            return text if inner.startswith("[") else None  # a text may begin with a bracket
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    if isinstance(found, str):
        return found.strip()
    named = found.items() if isinstance(found, dict) else ()
    texts = [v for k, v in named if isinstance(v, str) and _JSON_NAME.fullmatch(k)]
    return texts[0].strip() if len(texts) == 1 else None


def without_frame(text: str, source: str) -> str | None:
    """The text without the labels and tags of the prompt's frame; None where the text's beginning is not certain.

    "Response:" or "Query: ... Response:" before a rewrite names a part of the prompt and is no part of the text.
    It is taken off, for two reasons: where it ends is certain, and to reject the reply would drop rows by what the
    rewriter's format happens to be.

    Examples
    --------
    >>> without_frame("**Query:** Why?\\n\\n**Response:** Because.", "Because")
    'Because.'
    """
    if not _FRAME_EDGES.search(source):
        text = _FRAME_EDGES.sub("", text).strip()
    if _ASKED.match(text) and not _ASKED.match(source):
        then = _THEN_LABEL.search(text)
        if then is None:
            return None
        text = text[then.end() :].strip()
    if _ORIGINAL.match(text) and not _ORIGINAL.match(source) and (then := _THEN_ADJUSTED.search(text)):
        text = text[then.end() :].strip()
    for label in (_LABELLED, _LONG_LABEL):
        text = _without_start(label, text, source)
    return text
