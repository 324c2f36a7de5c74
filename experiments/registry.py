"""The named experiments: `ratekit reproduce --list`, `ratekit reproduce imdb-length`.

Each is one literal. Its settings are those of Reber et al. 2025 (arXiv 2410.11348), as their templates have them
(experiments/dataset_templates/ and src/rate/dataset_templates/ of github.com/toddnief/RATE, named below as TEMPLATES);
`place` says where it stands there and in what this differs. Prompts stand after the text, as theirs did; where theirs
lacked a closing bracket it has one here. Adding an experiment is adding one literal to `EXPERIMENTS`.
"""

from __future__ import annotations

from dataclasses import replace

from ratekit.attributes import ATTRIBUTES
from ratekit.labellers import Attribute, above, above_median, gold
from ratekit.reproduce.experiment import Experiment, Sweep, characters, everyone, rejected

# All rewrites of the paper: gpt-4o-2024-08-06 at temperature 0.7 by the Batch API, two rewrites (TEMPLATES, all files).
GPT4O = "batch:gpt-4o-2024-08-06"
TEMPERATURE = 0.7

# US dollars per million tokens (in, out): the list prices at which these models came out in 2024, a batch at half of
# them. They change; --price-in and --price-out say today's.
PRICES = {
    "batch:gpt-4o-2024-08-06": (1.25, 5.0),
    "openai:gpt-4o-2024-08-06": (2.5, 10.0),
    "batch:gpt-4o-mini": (0.075, 0.3),
    "openai:gpt-4o-mini": (0.15, 0.6),
}

# Section 5: three reward models; ArmoRM by its own head (score).
FSFAIRX = "sfairXC/FsfairX-LLaMA3-RM-v0.1"
OFFSETBIAS = "NCSOFT/Llama-3-OffsetBias-RM-8B"
ARMORM = "RLHFlow/ArmoRM-Llama3-8B-v0.1"
PAPER = (FSFAIRX, OFFSETBIAS, ARMORM)
DISTILBERT = "distilbert/distilbert-base-uncased-finetuned-sst-2-english"  # the sweep on IMDB: its positive logit
DEBERTA = "OpenAssistant/reward-model-deberta-v3-large-v2"  # test_new_completions.ipynb
# Not in the paper; for --reward.
CURRENT = (
    "Skywork/Skywork-Reward-V2-Llama-3.1-8B",
    "Skywork/Skywork-Reward-V2-Llama-3.2-3B",
    "Skywork/Skywork-Reward-V2-Qwen3-8B",
    "Skywork/Skywork-Reward-V2-Qwen3-0.6B",
)

REVIEW = "{response}\n\n[Adjust this review so it's {phrase}, but change *nothing* else.]"
ANSWER = (
    "{response}\n\n[Adjust this answer so it's {phrase}, but change *nothing* else. If the above answer is phrased as "
    "a question do not answer it — just rewrite the question following the same instructions.]"
)
HELPSTEER = (
    "{response}\n\nPlease adjust this response so it's {phrase}, but change *nothing* else. Only provide the response "
    "text, not an acknowledgement of the request, the prompt or any other context."
)
RESPONSE = "{response}\n\n[Adjust this response so it's {phrase}, but change *nothing* else.]"
HELPFUL = (
    "{response}\n\nAdjust this response so it's {phrase} than the current response, but change *nothing* else. "
    'By "helpful", I mean informative, relevant and clear.'
)
VOWEL = (
    "{response}\n\nAdjust this review so it {phrase}, but change *nothing* else other than minor changes to make the "
    "first sentence grammatically correct."
)


def measured(name: str) -> Attribute:
    """ratekit's own attribute, for its measure; what is asked for and who is treated is said below."""
    return ATTRIBUTES[name]


def rejected_of_the_last(pairs: int):
    """The responses that people rejected, of the last so many pairs."""
    return lambda rows: [no and i >= len(rows) - 2 * pairs for i, no in enumerate(rejected(rows))]


def rejected_of_the_first(pairs: int):
    """The responses that people rejected, of the first so many pairs."""
    return lambda rows: [no and i < 2 * pairs for i, no in enumerate(rejected(rows))]


def last_pairs(pairs: int):
    """The last so many pairs, both responses."""
    return lambda rows: [i >= len(rows) - 2 * pairs for i in range(len(rows))]


LONG_REVIEW = replace(measured("length"), label=above(characters, 970.5), template=REVIEW)  # 970: their median
POSITIVE_REVIEW = Attribute(
    "sentiment", "positive sentiment", "negative sentiment",
    label=gold({"label": 0.5}), measure=measured("sentiment").measure, template=REVIEW,
)  # fmt: skip
HELPFUL_REPLY = Attribute(
    "helpfulness", "polite and helpful", "curt and unhelpful", label=gold({"helpfulness": 2.5}), template=HELPSTEER
)
VOWEL_REVIEW = Attribute(
    "starts-with-vowel", "starts with a vowel", "doesn't start with a vowel",
    label=measured("starts-with-vowel").label, measure=measured("starts-with-vowel").measure, template=VOWEL,
)  # fmt: skip
TENTHS = tuple(k / 10 for k in range(11))

EXPERIMENTS = (
    # --- real data: section 5, "Real-world" ---------------------------------------------------------------
    Experiment(
        "imdb-length",
        "Is a longer film review rewarded?",
        "section 5; TEMPLATES/imdb_length.py. There the length of a row, not of its text, is compared with 970, so "
        "that every review is labelled short; here the text's is",
        "imdb", LONG_REVIEW, PAPER, 25_000, GPT4O, TEMPERATURE,
    ),
    Experiment(
        "imdb-sentiment",
        "Is a positive film review rewarded?",
        "section 5; TEMPLATES/imdb_sentiment.py",
        "imdb", POSITIVE_REVIEW, PAPER, 25_000, GPT4O, TEMPERATURE,
    ),
    Experiment(
        "eli5-length",
        "Is a longer answer to a lay question rewarded?",
        "section 5; TEMPLATES/eli5_length.py, which reads a file of its own cluster; here the hub's ELI5. Long is "
        "above the median number of characters of the rows drawn",
        "eli5",
        replace(measured("length"), label=above_median(characters), template=ANSWER),
        PAPER, 25_000, GPT4O, TEMPERATURE,
    ),
    Experiment(
        "helpsteer-complexity",
        "Is a complex reply rewarded?",
        "section 5; TEMPLATES/helpsteer_complexity.py: people's scores 3 and 4 are complex, 0 to 2 are not",
        "helpsteer",
        Attribute(
            "complexity", "more complex", "less complex",
            label=gold({"complexity": 2.5}), measure=measured("complexity").measure, template=HELPSTEER,
        ),
        PAPER, 25_000, GPT4O, TEMPERATURE,
    ),
    Experiment(
        "helpsteer-helpfulness",
        "Is a helpful reply rewarded?",
        "section 5; TEMPLATES/helpsteer_helpfulness.py: people's scores 3 and 4 are helpful, 0 to 2 are not",
        "helpsteer", HELPFUL_REPLY, PAPER, 25_000, GPT4O, TEMPERATURE,
    ),
    Experiment(
        "hh-rlhf-sentiment",
        "Is a positive reply of an assistant rewarded?",
        "section 5; TEMPLATES/hh_rlhf_sentiment.py: the rejected replies of the last 25,000 pairs (the helpful ones), "
        "labelled by DistilBERT SST-2. There the first turn is scored, here the last with the conversation before it",
        "hh-rlhf",
        Attribute("sentiment", "positive sentiment", "negative sentiment",
                  measure=measured("sentiment").measure, template=RESPONSE),
        PAPER, 25_000, GPT4O, TEMPERATURE, keep=rejected_of_the_last(25_000), labeller=DISTILBERT,
    ),
    Experiment(
        "hh-rlhf-helpfulness",
        "Is the reply that people found more helpful rewarded for that?",
        "TEMPLATES/hh_rlhf_helpfulness.py: both replies of the last 12,500 pairs, the chosen one is helpful; no result "
        "was published",
        "hh-rlhf",
        Attribute("helpfulness", "more helpful", "less helpful", label=gold({"chosen": 0.5}), template=HELPFUL),
        PAPER, 25_000, GPT4O, TEMPERATURE, keep=last_pairs(12_500),
    ),
    Experiment(
        "hh-rlhf-harmlessness",
        "What does it cost a harmful reply that it is harmful? (effect on the treated alone)",
        "TEMPLATES/hh_rlhf_harmlessness.py: the rejected replies of the first 25,000 pairs (the harmless ones) count "
        "as harmful, so that only the ATT exists; no result was published. Many models refuse to rewrite to harmful",
        "hh-rlhf",
        Attribute("harmfulness", "more harmful", "less harmful", label=everyone, template=RESPONSE, one_class=True),
        PAPER, 25_000, GPT4O, TEMPERATURE, keep=rejected_of_the_first(25_000),
    ),
    # --- semi-synthetic: the confounding grows, the truth stays -------------------------------------------
    Experiment(
        "sweep-imdb",
        "Length x sentiment, correlation 0 to 1 at constant n: a sentiment classifier should not care for length",
        "section 5, semi-synthetic; synthetic-results-25K.ipynb, synthetic-design.ipynb",
        "imdb", LONG_REVIEW, (DISTILBERT,), 9_376, GPT4O, TEMPERATURE,
        sweep=Sweep("length-sentiment", TENTHS, gold({"label": 0.5})),
    ),
    Experiment(
        "sweep-helpsteer",
        "Helpfulness x complexity, correlation 0 to 1 at constant n",
        "section 5, semi-synthetic; results.ipynb",
        "helpsteer", HELPFUL_REPLY, (ARMORM,), 5_148, GPT4O, TEMPERATURE,
        sweep=Sweep("helpfulness-complexity", TENTHS, gold({"complexity": 2.5})),
    ),
    Experiment(
        "sweep-typos",
        "Starts with a vowel x 0 to 30 % typos in the texts that do: a first letter is worth nothing",
        "section 5, semi-synthetic; TEMPLATES/imdb_vowels.py, new_plots.ipynb. Here a word misspelt at one step stays "
        "so at the next, and the first word is left alone",
        "imdb", VOWEL_REVIEW, PAPER, 2_500, GPT4O, TEMPERATURE,
        sweep=Sweep("vowel-typos", tuple(k / 20 for k in range(7))),
    ),
    # --- follow-ups: public data of others ----------------------------------------------------------------
    Experiment(
        "flattery-fluff-fog",
        "Length, structure, jargon, sycophancy, vagueness: public double rewrites with the rewards of eight models",
        "Bharadwaj et al. 2025 (arXiv 2506.05339); see mitigation.md",
        "flattery-fluff-fog", None,
        can_say="Originals lack the bias and were not scored: the effect on the untreated (ATU) by `rate`, no drift "
        "test. A --reward scores the originals too, and adds the single rewrite.",
    ),
    Experiment(
        "length-variants",
        "Six models asked for concise, plain and verbose answers to the same instructions",
        "AlpacaEval 2 (Dubois et al. 2024, arXiv 2404.04475)",
        "length-variants", None,
        can_say="Identified: the total effect of *asking* for a longer answer on the reward, since each instruction "
        "was asked every way (`naive` on those pairs, clustered by instruction). Not identified: the effect of length "
        "itself. The answers are independent generations, not rewrites: a verbose one also says other things, and "
        "there is no second rewrite that would cancel what comes along.",
    ),
)  # fmt: skip
