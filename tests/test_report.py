"""The report says what the run found, shows what the data hold, obeys none of it, and asks nobody for anything."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from datasets import load_from_disk
from test_textdiff import HOSTILE

import ratekit as rk
from ratekit.cli import main
from ratekit.escaping import visible
from ratekit.widgets import playground_page

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class Page(HTMLParser):
    """The tags of a page with their attributes, its text, and the text under each heading."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.sections, self.heading = [], "", {}, None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.heading = "" if tag == "h2" else self.heading
        self.in_style = tag in ("style", "title", "script")

    def handle_endtag(self, tag):
        if tag in ("style", "title", "script"):
            self.in_style = False
        if tag == "h2":
            self.sections[self.heading] = ""
            self.now, self.heading = self.heading, None

    def handle_data(self, data):
        if getattr(self, "in_style", False):
            return
        self.text += data
        if self.heading is not None:
            self.heading += data
        elif self.sections:
            self.sections[self.now] += data


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run over the bundled reviews."""
    folder = tmp_path_factory.mktemp("run") / "o"
    assert main(["run", "--data", "reviews", "-a", "length", "-r", "words", "-r", "vader", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def page(run):
    return Page((run / "report.html").read_text())


def test_a_run_leaves_a_report_with_every_part(page):
    for heading in ("In short", "How this is measured", "Effects", "Can it be trusted?", "Rewards", "Examples",
                    "All estimates", "To cite", "Where this comes from"):  # fmt: skip
        assert page.sections[heading].strip(), heading
    assert "What is missing" not in page.sections
    assert "What merging does to these effects" not in page.sections
    assert "What do words and vader really reward?" in page.text


def test_it_says_what_the_table_says(page, run):
    table = rk.standardize(pd.read_csv(run / "effects.csv")).query("estimand == 'ate'").set_index(
        ["reward_model", "estimator"]
    )  # fmt: skip
    rate = table.loc[("words", "rate")]
    short = page.sections["In short"]
    assert "Not to be acted on yet: length." in short
    assert "words: no number to read" in short  # length rewrites of the bundled reviews drift
    assert f"{rate.estimate:+.2f}" not in short
    assert "Do not trust these numbers yet" in short
    assert f"{rate.estimate:+.2f}" in page.sections["Effects"]
    assert "95 % interval" in page.sections["Effects"]
    assert "third rewrite" in page.sections["Can it be trusted?"]
    for row in pd.read_csv(run / "effects.csv").itertuples():
        assert f"{row.estimate:.4g}" in page.sections["All estimates"]


def test_the_interval_is_named_by_its_level():
    from ratekit.conclusions import unchecked
    from ratekit.reports.figures import effects_figures
    from ratekit.reports.words import summary_table
    from ratekit.widgets import dashboard_html

    ds = rk.score(rk.load("reviews", attribute="sentiment"), "words", progress=False)
    for level, column in ((0.95, "95 % interval"), (0.995, "99.5 % interval"), (0.5, "50 % interval")):
        table = rk.estimate(ds, level=level)
        assert column in summary_table(list(unchecked(table)), table).columns
        assert f"each bar its {column};" in next(effects_figures(table)).caption
        assert f">{column}</th>" in dashboard_html.behind(table)
    none = dict.fromkeys(["se", "ci_low", "ci_high", "se_sd", "ci_low_sd", "ci_high_sd"], np.nan)
    flat = table.assign(reward_model="flat", estimate=0.0, estimate_sd=0.0, **none)
    read = pd.concat([flat, table], ignore_index=True)  # a table from a file knows the level by its intervals alone
    read.attrs = {}
    shown = summary_table(list(unchecked(read)), read)
    assert [column for column in shown.columns if "interval" in column] == ["50 % interval"]
    assert shown.rows[0][shown.columns.index("50 % interval")] == "none"


def test_the_record_is_told(page, run):
    record = json.loads((run / "run.json").read_text())
    told = page.sections["Where this comes from"]
    for name, version in record["versions"].items():
        assert name in told
        assert version in told
    assert "seed0" in told.replace("\n", "").replace(" ", "")
    assert "rewrites ok" in told


def test_an_llm_run_tells_model_template_hash_and_cost(run, tmp_path):
    record = json.loads((run / "run.json").read_text())
    used = {"model": "gpt-x", "template": "1a2b3c4d", "requests": 1280, "cost": 3.5, "stopped": "budget"}
    record["rewriting"] |= used
    record["settings"]["template"] = "Make it {phrase}: {response}"
    (tmp_path / "run.json").write_text(json.dumps(record))
    (tmp_path / "audit.csv").write_text("model,length\nsoup,1.25\n")
    told = Page(rk.report(tmp_path).read_text()).sections["Where this comes from"]
    for part in ("gpt-x", "1a2b3c4d", "1,280", "3.5", "budget", "your own, hash "):
        assert part in told
    assert "Make it" not in told


def test_it_is_one_file_that_asks_for_nothing_and_runs_its_own_script_alone(page, run):
    html = (run / "report.html").read_text()
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"link", "object", "embed", "form", "base"}
    (frame,) = [attributes for tag, attributes in page.tags if tag == "iframe"]
    assert frame["sandbox"] == "allow-scripts"  # of no origin: it reaches nothing of the page
    assert frame["srcdoc"] == playground_page.page()
    ids = [a["id"] for _, a in page.tags if "id" in a]
    for tag, attributes in page.tags:
        assert not [a for a in attributes if a.startswith("on")], tag
        for name in ("src", "href", "action", "data", "srcset"):
            value = attributes.get(name, "data:")
            assert value.startswith("data:") or (tag == "a" and value[0] == "#" and value[1:] in ids), (tag, attributes)
    assert not re.search(r"@import|url\(", html)
    policies = [a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a]
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    own = re.findall(r"<script>(.*?)</script>", frame["srcdoc"], re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in (script, *own)]
    assert policies[0].startswith("default-src 'none'")
    assert policies[0].endswith("script-src " + " ".join(f"'sha256-{digest}'" for digest in digests))
    pictures = [a["src"] for t, a in page.tags if t == "img"]
    assert len(pictures) >= 6
    for source in pictures:
        svg = base64.b64decode(source.partition(",")[2]).decode()
        assert svg.rstrip().endswith("</svg>")
        assert not re.search(r"<script|<image|href=\"(?!#)", svg)
    assert all(a.get("alt") for t, a in page.tags if t == "img")


def test_an_author_finds_what_it_takes_to_cite_it(page, run):
    record = json.loads((run / "run.json").read_text())
    told = page.sections["To cite"]
    for part in (record["dataset"], "reviews", "the rewrites that the data hold", "2410.11348", "@software{ratekit"):
        assert part in told
    assert re.search(r"length\s*79\s*81\s*160", told)
    (csv,) = [a["href"] for t, a in page.tags if t == "a" and a.get("download") == "effects.csv"]
    held = pd.read_csv(io.BytesIO(base64.b64decode(csv.partition(",")[2])))
    table = pd.read_csv(run / "effects.csv")
    pd.testing.assert_frame_equal(held[list(table.columns)], table)
    best = held[held.recommended]
    p = sorted(best.p_value)
    assert sorted(best.p_adjusted) == pytest.approx([min(2 * p[0], p[1]), p[1]])  # Benjamini and Hochberg for two
    assert held.p_adjusted.notna().sum() == 2
    assert set(best.verdict) == {"do not trust"}


def test_the_prompt_is_told_where_the_record_says_that_it_is_this_one():
    from ratekit.reports.contents import Contents
    from ratekit.reports.provenance import identity, prompts
    from ratekit.rewriting.prompts import TEMPLATE, template_hash

    own = "Make it {phrase}: {response}"
    for settings, used, told in (({}, TEMPLATE, TEMPLATE), ({"template": own}, own, own), ({}, own, None)):
        rewriting = {"model": "gpt-x", "params": "temperature=0.7", "template": template_hash(used)}
        found = Contents(Path("x"), record={"settings": {"attributes": ["length"], **settings}, "rewriting": rewriting})
        assert [prompt for _, prompt in prompts(found)] == ([told] if told else [])
        assert dict(identity(found))["rewriter"] == "gpt-x temperature=0.7"


# --- what data may hold ------------------------------------------------------------------------------------

HUGE = "word " * 20_000  # 100,000 characters


@pytest.fixture(scope="module")
def hostile():
    """Rows whose texts, prompts and reward model's name hold what must only be shown."""
    from datasets import Dataset

    texts = [t for t in HOSTILE if "\ud800" not in t]  # Arrow holds no lone surrogate
    texts = [*texts, HUGE, "a $x$ y"] * 4
    rows = [
        {"prompt_id": f"p{i}", "prompt": [{"role": "user", "content": text[:200]}], "response": text,
         "attribute": "<i>length</i>", "treated": i % 2 == 0, "rewrites": [f"{text} other", f"{text} again"],
         "rewrite_status": ["ok", "ok"], "reward/<img src=x onerror=alert(1)>\x1b[31m": [1.0 + i, i * 0.5, 2.0 + i % 3]}
        for i, text in enumerate(texts)
    ]  # fmt: skip
    return Dataset.from_list(rows)


def test_hostile_data_is_shown_and_obeyed_nowhere(hostile, tmp_path):
    hostile.save_to_disk(str(tmp_path / "ds"))
    path = rk.report(tmp_path / "ds")
    assert path == tmp_path / "ds-report.html"
    html = path.read_text()
    page = Page(html)
    assert {tag for tag, _ in page.tags} <= {
        "html", "head", "meta", "title", "style", "body", "header", "main", "section", "article", "figure", "img",
        "figcaption", "div", "span", "p", "b", "i", "em", "ul", "li", "dl", "dt", "dd", "h1", "h2", "h3", "h4",
        "table", "thead", "tbody", "tr", "th", "td", "del", "ins", "bdi", "nav", "a", "details", "summary", "label",
        "input", "select", "option", "output", "pre", "script", "br", "iframe",
    }  # fmt: skip
    assert not [a for t, a in page.tags for a in a if a.startswith("on")]
    assert all(a.get("src", "data:").startswith("data:") for _, a in page.tags)
    assert html.count("<script") == 1
    assert "<img src=x onerror=alert(1)>␛[31m" in page.text
    assert "<i>length</i>" in page.text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", html)
    examples = page.sections["Examples"]
    assert any(visible(text)[:20] in examples for text in hostile["response"])


@pytest.mark.usefixtures("reports_without_pictures")
@pytest.mark.parametrize("text", [t for t in HOSTILE if "\ud800" not in t])
def test_every_hostile_text_is_shown_as_it_is(hostile, tmp_path, text):
    rows = hostile.filter(lambda row: row["response"] == text)
    rows.to_parquet(str(tmp_path / "x.parquet"))
    page = Page(rk.report(tmp_path / "x.parquet").read_text())
    assert visible(text) in page.sections["Examples"]


@pytest.mark.usefixtures("reports_without_pictures")
def test_a_very_long_text_is_cut_and_says_so(hostile, tmp_path):
    hostile.filter(lambda row: row["response"] == HUGE).to_parquet(str(tmp_path / "x.parquet"))
    html = rk.report(tmp_path / "x.parquet").read_text()
    assert "98,500 more characters" in html
    assert html.count("word ") < 5000


KEEP = ["--duplicates", "keep"]


@pytest.mark.parametrize(
    "command", [["estimate", *KEEP], ["estimate", *KEEP, "--format", "markdown"], ["diagnose"], ["plan", "--se", "1"]]
)
def test_no_control_character_reaches_the_terminal(hostile, tmp_path, capsys, command):
    hostile.to_parquet(str(tmp_path / "x.parquet"))
    capsys.readouterr()  # the bar of writing the file
    assert main([command[0], str(tmp_path / "x.parquet"), *command[1:]]) == 0
    out, err = capsys.readouterr()
    assert ("&lt;i&gt;length" if "markdown" in command else "<i>length</i>") in out
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", out + err)


def test_a_name_as_long_as_a_response_leaves_a_table_that_can_be_read(tmp_path, capsys):
    rows = [{"prompt_id": i, "attribute": "x" * 100_000, "treated": i % 2, "reward/r": [i, 2.0 * i]} for i in range(8)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert main(["estimate", str(tmp_path / "x.jsonl")]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) < 500
    assert "xxx...xxx" in out
    html = re.sub(r'href="data:text/csv[^"]*"', "", rk.report(tmp_path / "x.jsonl").read_text())
    assert len(html) < 300_000  # its figure, and no name in full but in effects.csv


def test_a_fault_about_such_data_keeps_the_terminal_whole(hostile, tmp_path, capsys):
    hostile.to_parquet(str(tmp_path / "x.parquet"))
    capsys.readouterr()
    assert main(["contrast", str(tmp_path / "x.parquet"), "\x1b[31mred", "b"]) == 2
    err = capsys.readouterr().err
    assert "red'" in err
    assert "onerror=alert(1)>␛[31m" in err
    assert "\x1b" not in err


# --- what is missing ---------------------------------------------------------------------------------------


def test_parts_that_are_missing_are_said_and_the_rest_is_there(run, tmp_path):
    (tmp_path / "effects.csv").write_text((run / "effects.csv").read_text())
    page = Page(rk.report(tmp_path).read_text())
    assert "length raises the reward. Cannot tell." in page.sections["In short"]
    missing = page.sections["What is missing"]
    assert "there is no dataset/" in missing
    assert "no run.json" in missing
    assert "Examples" not in page.sections


@pytest.mark.commands
def test_broken_parts_are_said_too(run, tmp_path):
    rows = load_from_disk(str(run / "dataset")).select(range(0, 160, 8))
    rows.save_to_disk(str(tmp_path / "dataset"))
    (tmp_path / "effects.csv").write_text("a,b\n1,2\n")
    (tmp_path / "run.json").write_text("{ not json")
    (tmp_path / "audit.csv").write_bytes(b"\xff\xfe\x00\x00")
    page = Page(rk.report(tmp_path).read_text())
    missing = page.sections["What is missing"]
    assert "effects.csv is not of the rows beside it" in missing
    assert "run.json is not readable" in missing
    assert "audit.csv cannot be read" in missing
    assert "words: " in page.sections["In short"]  # estimated anew from the dataset


def test_rows_without_rewards_or_rewrites_still_have_a_report(tmp_path):
    ds = rk.load("reviews", attribute="length")
    ds.to_parquet(str(tmp_path / "rewritten.parquet"))
    page = Page(rk.report(tmp_path / "rewritten.parquet", tmp_path / "page.html").read_text())
    assert "nothing is scored yet" in page.sections["What is missing"]
    assert "Examples" in page.sections
    assert "Can it be trusted?" in page.sections
    rewards = [[1.0, 2.0, 3.0], [2.0, 4.0, 1.0], [3.0, 1.0, 2.5], [5.0, 2.0, 2.0]]
    scored = pd.DataFrame({"prompt_id": list("abcd"), "attribute": "x", "treated": [True, False] * 2})
    scored["reward/r"] = rewards
    scored.to_json(tmp_path / "scored.jsonl", orient="records", lines=True)
    page = Page(rk.report(tmp_path / "scored.jsonl").read_text())
    assert "Giving a response x rather than taking it away" in page.sections["In short"]
    assert "no rewritten texts" in page.sections["What is missing"]


def test_rows_that_cannot_be_used_are_said_and_are_not_fatal(tmp_path):
    frame = rk.load("reviews", attribute="length").to_pandas().head(6)
    frame["reward/r"] = [[1.0, 2.0, 3.0, 4.0]] * 6
    frame["treated"] = [None, True, False, True, False, True]
    frame.to_parquet(tmp_path / "x.parquet")
    missing = Page(rk.report(tmp_path / "x.parquet").read_text()).sections["What is missing"]
    for part in ("there are no effects: the Dataset, row 1: 'treated' is null", "cannot be checked", "no examples"):
        assert part in missing


def test_the_audit_of_a_merge_has_its_section(run, tmp_path):
    columns = "model,method,accuracy,length,length_se,length_ci_low,length_ci_high,length - a,sentiment,note"
    rows = [columns, "soup,linear,0.91,1.25,0.1,1.0,1.5,-0.25,,", "<b>x</b>,ties,0.9,0.5,0.1,0.25,0.75,0.125,1,"]
    (tmp_path / "audit.csv").write_text("\n".join(rows))
    (tmp_path / "audit.png").write_bytes(PNG)
    page = Page(rk.report(tmp_path).read_text())
    section = page.sections["What merging does to these effects"]
    for part in ("soup", "0.91", "1.25 [1, 1.5]", "0.5 [0.25, 0.75]", "<b>x</b>", "Against each parent", "length - a"):
        assert part in section
    assert "length se" not in section
    assert "note" not in section  # nothing stands in it
    assert [a["src"] for t, a in page.tags if t == "img"] == [f"data:image/png;base64,{base64.b64encode(PNG).decode()}"]


def test_a_table_of_effects_by_itself_has_a_report(run, tmp_path):
    page = Page(rk.report(run / "effects.csv", tmp_path / "page.html").read_text())
    assert "if the rewrites do what they should, length raises the reward" in page.sections["In short"]
    assert "no texts" in page.sections["What is missing"]


NOTHING = {
    "effects.csv has no column 'attribute'": ("o/effects.csv", "x,y\n1,2\n"),
    "nothing is scored yet": ("rows.jsonl", '{"x": 1}\n'),
    r"rows.csv: the table is empty \(0 rows\)": ("rows.csv", "response,rewrites\n"),
}


@pytest.mark.parametrize("message", NOTHING)
def test_what_has_nothing_to_report_is_a_fault_and_leaves_no_page(tmp_path, message):
    name, text = NOTHING[message]
    (tmp_path / "o").mkdir()
    (tmp_path / name).write_text(text)
    with pytest.raises(rk.InputError, match=message):
        rk.report(tmp_path / (name.split("/")[0]))
    assert not list(tmp_path.rglob("*.html"))


def test_faults(tmp_path, capsys):
    with pytest.raises(rk.InputError, match="no such file or folder"):
        rk.report(tmp_path / "nowhere")
    with pytest.raises(rk.InputError, match="holds no run: there is no dataset/, effects"):
        rk.report(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "effects.csv").write_text("")
    assert main(["report", str(tmp_path)]) == 2
    assert "runs are in its folders mine" in capsys.readouterr().err


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """A folder with so little to report that the page is made at once."""
    folder = tmp_path_factory.mktemp("audited")
    (folder / "audit.csv").write_text("model,length\nsoup,1.25\n")
    return folder


def test_a_page_that_cannot_be_written_is_one_clear_fault(audited, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(rk.WorkError, match="cannot be written"):
        rk.report(audited, tmp_path / "file" / "page.html")
    assert rk.report(audited, tmp_path) == tmp_path / "report.html"
    assert {p.name for p in tmp_path.iterdir()} == {"file", "report.html"}


def test_the_command_writes_the_page_and_says_where(audited, tmp_path, capsys):
    assert main(["report", str(audited), "--out", str(tmp_path / "new" / "page.html")]) == 0
    assert f"written: {tmp_path / 'new' / 'page.html'}" in capsys.readouterr().out
    assert "What merging does" in (tmp_path / "new" / "page.html").read_text()


@pytest.mark.commands
def test_a_large_run_is_checked_on_a_sample_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("ratekit.audits.results.CHECKED_ROWS", 40)
    ds = rk.score(rk.load("reviews").select(range(0, 320, 2)), "words", progress=False)
    ds.to_parquet(str(tmp_path / "x.parquet"))
    page = Page(rk.report(tmp_path / "x.parquet").read_text())
    assert "a random 80 of 160 rows" in page.sections["In short"]


def test_what_decided_a_verdict_comes_first_and_names_its_reward_model():
    from ratekit.conclusions import CANNOT_TELL, NO_TRUST, Check, Verdict
    from ratekit.reports.words import reasons_of

    def check(text, word):
        return Check("x", "shown bad", text, 0.5, 0.4, 0.6, 0.9, word)

    shared, own, vague = check("few succeeded", NO_TRUST), check("drifts", NO_TRUST), check("balance", CANNOT_TELL)
    verdicts = [
        Verdict("length", "a", NO_TRUST, None, "few succeeded", (vague, shared)),
        Verdict("length", "b", NO_TRUST, None, "few succeeded; drifts", (shared, own)),
    ]
    assert reasons_of(verdicts) == (["few succeeded", "b: drifts"], ["a: balance"])
