"""A fake server that answers as a judge with known biases, and fails on demand as `chat_server` does.

python tests/servers/judge_server.py '{"b": 0.05, "noise": 0.5, "unparsable": 0.05, "faults": {"429": 0.05}}'

Of a response it sees how often it says "fine" (the quality) and how many words it has. A score is
base + a * quality + b * words + noise, rounded to 1..10; a pair is decided by the difference of the two, to which
`position` is added for the first. Asked for criteria it scores the first by quality alone and the others by words too.
"""

import asyncio
import random
import re

import chat_server

chat_server.CONFIG |= {"base": 3.0, "a": 1.0, "b": 0.0, "position": 0.0, "noise": 0.0, "unparsable": 0.0, "tie": 0.25,
                       "forget": "", "forget_share": 0.0}  # fmt: skip
UNPARSABLE = ("It depends on what you look for.", "Somewhere between 6 and 7.", "11", "7.5", "")
asked = {}


def between(content, tag):
    found = re.search(rf"<{tag}[^>]*>\n(.*?)\n</{tag}", content, re.DOTALL)
    return found[1] if found else ""


def worth(text, b, draw):
    c = chat_server.CONFIG
    words = len(re.findall(r"\w+", text))
    return c["base"] + c["a"] * len(re.findall(r"\bfine\b", text)) + b * words + draw.gauss(0, c["noise"])


def whole(score):
    return min(10, max(1, round(score)))


def judged(content):
    c = chat_server.CONFIG
    asked[content] = asked.get(content, 0) + 1
    draw = random.Random(f"{c['seed']}|{content}|{asked[content]}")
    if draw.random() < c["unparsable"]:
        return draw.choice(UNPARSABLE)
    if "<response_a>" in content:
        one, two = (worth(between(content, tag), c["b"], draw) for tag in ("response_a", "response_b"))
        margin = one - two + c["position"]
        return "tie" if abs(margin) < c["tie"] else "A" if margin > 0 else "B"
    text = between(content, "response")
    names = re.findall(r"^([\w -]+): \(", content, re.MULTILINE)
    if not names:
        return str(whole(worth(text, c["b"], draw)))
    lines = [f"{name}: {whole(worth(text, c['b'] if k else 0.0, draw))}" for k, name in enumerate(names)]
    kept = [line for line in lines if not (line.startswith(c["forget"] + ":") and draw.random() < c["forget_share"])]
    return "\n".join(kept)


chat_server.rewritten = judged

if __name__ == "__main__":
    asyncio.run(chat_server.main())
