"""The command as a person calls it: what it prints, what it leaves on disk, how it fails."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

import ratekit as rk
from ratekit.cli import main


def run(capsys, *arguments):
    """Exit code, stdout and stderr of the command."""
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    path = tmp_path_factory.mktemp("scored") / "scored.parquet"
    rk.score(rk.load("reviews"), "words", progress=False).to_parquet(str(path))
    return path


@pytest.mark.commands
def test_run_does_all_stages_and_leaves_what_it_made(capsys, tmp_path):
    from datasets import load_from_disk

    arguments = ["run", "--data", "reviews", "--attribute", "length", "--reward", "words", "--out", tmp_path / "o"]
    code, out, err = run(capsys, *arguments)
    assert code == 0, err
    assert "RATE effect" in out
    assert "do not trust" in out or "trust" in out
    assert {p.name for p in (tmp_path / "o").iterdir()} >= {"dataset", "effects.csv", "effects.png", "run.json"}
    ds = load_from_disk(str(tmp_path / "o" / "dataset"))
    assert len(ds[0]["reward/words"]) == 4
    record = json.loads((tmp_path / "o" / "run.json").read_text())
    assert record["settings"]["attributes"] == ["length"]
    assert record["rewards"] == {"words": "words"}


@pytest.mark.commands
def test_run_on_a_file_with_rules_and_a_sample(capsys, tmp_path):
    data = tmp_path / "x.jsonl"
    with data.open("w") as f:
        for i, text in enumerate(rk.load("reviews", attribute="length")["response"]):
            f.write(json.dumps({"question": f"Q{i}", "answer": text}) + "\n")
    code, out, err = run(
        capsys, "run", "--data", data, "--column", "response=answer", "--column", "prompt=question", "-a",
        "starts_with_vowel", "-r", "vader", "--n", 50, "--depth", 3, "--out", tmp_path / "o", "--format", "json",
    )  # fmt: skip
    assert code == 0, err
    rows = json.loads(out)
    assert {row["n"] + row["n_dropped"] for row in rows if row["estimand"] == "ate"} == {50}
    assert {row["estimator"] for row in rows} == {"naive", "single_rewrite", "rate", "rate_late", "rate_extrapolated"}


@pytest.mark.commands
def test_the_same_run_goes_on_where_it_was_and_another_is_refused(capsys, tmp_path, monkeypatch):
    arguments = ["run", "--data", "reviews", "-a", "length", "--out", tmp_path]
    assert run(capsys, *arguments, "-r", "words")[0] == 0

    def not_again(*args, **kwargs):
        raise AssertionError("made again")

    with monkeypatch.context() as patched:
        patched.setattr("ratekit.audits.study.rewrite", not_again)
        code, out, _ = run(capsys, *arguments, "-r", "words", "-r", "vader", "--format", "csv")
    assert code == 0
    assert {line.split(",")[1] for line in out.splitlines()[1:]} == {"words", "vader"}
    code, _, err = run(capsys, "run", "--data", "reviews", "-a", "sentiment", "-r", "words", "--out", tmp_path)
    assert code == 2
    assert "holds another run (attributes 'length' there, 'sentiment' here)" in err


def test_what_was_computed_before_a_fault_stays_on_disk(capsys, tmp_path, monkeypatch):
    from datasets import load_from_disk

    import ratekit.scoring

    monkeypatch.setitem(ratekit.scoring.REWARD_MODELS, "broken", lambda p, r: [float("nan")] * len(r))
    code, _, err = run(
        capsys, "run", "--data", "reviews", "-a", "length", "-r", "words", "-r", "broken", "--out", tmp_path
    )
    assert code == 1
    assert "broken gave no finite reward" in err
    assert "reward/words" in load_from_disk(str(tmp_path / "dataset")).column_names


@pytest.mark.commands
def test_rewrite_score_estimate_are_the_run_in_three_calls(capsys, tmp_path):
    assert run(capsys, "rewrite", "reviews", "-a", "length", "--out", tmp_path / "a")[0] == 0
    assert run(capsys, "score", tmp_path / "a" / "dataset", "-r", "words", "--out", tmp_path / "b")[0] == 0
    code, three, _ = run(capsys, "estimate", tmp_path / "b" / "dataset", "--format", "csv", "--out", tmp_path / "c")
    assert code == 0
    run(capsys, "run", "--data", "reviews", "-a", "length", "-r", "words", "--out", tmp_path / "d")
    assert (tmp_path / "c" / "effects.csv").read_text() == (tmp_path / "d" / "effects.csv").read_text()
    assert (tmp_path / "c" / "effects.png").stat().st_size > 10_000
    assert "rate_extrapolated" in three


def test_two_rewards_of_one_name_are_refused_before_any_work(capsys, scored, tmp_path):
    for arguments in (["run", "--data", "reviews", "-a", "length"], ["score", scored]):
        code, _, err = run(capsys, *arguments, "-r", "words", "-r", "words", "--out", tmp_path / "o")
        assert code == 2
        assert "two rewards are called 'words'" in err
    assert not (tmp_path / "o").exists()


def test_json_is_a_list_of_rows_and_nothing_else_on_stdout(capsys, scored):
    code, out, _ = run(capsys, "estimate", scored, "--format", "json")
    assert code == 0
    rows = json.loads(out)
    assert len(rows) == len(rk.estimate(rk.score(rk.load("reviews"), "words", progress=False)))
    assert all(isinstance(row["estimate"], float) for row in rows)


def test_nan_is_null_in_json(capsys, tmp_path):
    path = tmp_path / "x.jsonl"
    rows = [{"prompt_id": "p", "attribute": "x", "treated": bool(i % 2), "reward/r": [float(i), 2.0]} for i in range(6)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, err = run(capsys, "estimate", path, "--format", "json")
    assert code == 0
    assert {row["se"] for row in json.loads(out)} == {None}
    assert "one cluster, so no standard error" in err


@pytest.mark.parametrize("format", ["table", "markdown", "csv"])
def test_every_format_shows_the_estimates(capsys, scored, format):
    code, out, _ = run(capsys, "estimate", scored, "--format", format)
    assert code == 0
    assert "24.34" in out or "24.3375" in out


def test_diagnose_contrast_and_attributes_print_tables(capsys, scored):
    assert "drift" in run(capsys, "diagnose", scored)[1]
    assert "longer" in run(capsys, "attributes")[1]
    code, _, err = run(capsys, "contrast", scored, "words", "vader")
    assert code == 2
    assert "unknown reward model 'vader'" in err


WRONG = {
    "no such file or folder": ["estimate", "missing.parquet"],
    "is a folder, but not a saved dataset": ["estimate", "."],
    "unknown attribute 'lenght'; did you mean 'length'": ["run", "--data", "reviews", "-a", "lenght", "-r", "words"],
    "unknown source 'revews'; did you mean 'reviews'": ["run", "--data", "revews", "-a", "length", "-r", "words"],
    "unknown reward model 'wrods'; did you mean 'words'": ["run", "--data", "reviews", "-a", "length", "-r", "wrods"],
    "unknown rewriter 'rulez'; did you mean 'rules'": [
        "run", "--data", "reviews", "-a", "length", "-r", "words", "--rewriter", "rulez",
    ],
    "Missing option '--data'": ["run"],
    "No such option": ["run", "--dta", "reviews"],
    "No such command 'runn'": ["runn"],
    "write ours=theirs": ["run", "--data", "reviews", "-a", "length", "-r", "words", "--column", "response"],
}  # fmt: skip


@pytest.mark.parametrize("message", WRONG)
def test_a_wrong_call_is_one_line_and_exit_code_2(capsys, tmp_path, monkeypatch, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *WRONG[message])
    assert code == 2
    assert out == ""
    lines = [line for line in err.splitlines() if line]
    assert len(lines) == 1, err
    assert message in lines[0]
    assert "Traceback" not in err


def test_help_and_version_exit_with_0(capsys):
    for arguments in (["--help"], ["run", "--help"], ["estimate", "--help"], ["demo", "--help"], []):
        code, out, _ = run(capsys, *arguments)
        assert code == 0
        assert "Usage: ratekit" in out
    assert run(capsys, "--version") == (0, f"ratekit {rk.__version__}\n", "")


def commands(command, *path):
    """Every command with its words: those of a group too."""
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from commands(inner, *path, name)
    else:
        yield " ".join(path), command


def test_every_command_has_two_examples_whose_options_it_has():
    import shlex

    import typer

    from ratekit.cli.app import app

    found = dict(commands(typer.main.get_command(app)))
    assert {"audit", "notebooks", "merge models", "cache ls"} <= set(found)
    for name, command in found.items():
        examples = (command.epilog or "").splitlines()
        assert len(examples) >= 2, name
        for parameter in command.params:
            assert "[default" not in str(getattr(parameter, "help", "")) or parameter.default in (None, ()), (
                parameter.name
            )
        options = {option for parameter in command.params for option in getattr(parameter, "opts", ())}
        for example in examples:
            assert example.startswith(f"ratekit {name.removesuffix(' models')}"), example
            assert {word for word in shlex.split(example) if word.startswith("-")} <= options, example


HELD = ["", "cache", "merge"]  # groups: their help lists their commands


@pytest.mark.parametrize("columns", [80, 200])
def test_help_has_lines_of_under_60_characters_and_says_each_command_in_one(monkeypatch, columns):
    import typer

    from ratekit.cli.app import app

    monkeypatch.setenv("COLUMNS", str(columns))
    top = typer.main.get_command(app)
    for name in [*HELD, *dict(commands(top))]:
        text = help_of(top, name)
        assert all(len(line) < 60 for line in text.splitlines()), text
        assert not re.search(r"\w-$", text, re.M), text  # a name is not broken
        assert not set("<>{}") & set(re.sub(r"\{(phrase|response|prompt)\}", "", text)), text
        command = found(top, name)
        assert name in HELD or " " in name or command.rich_help_panel, name
        for called, inner in getattr(command, "commands", {}).items():
            if not inner.hidden:
                assert re.search(rf"^  {called} +{re.escape(inner.get_short_help_str(limit=1000))}$", text, re.M), (
                    called
                )
        examples = re.sub(r" \\\n +", " ", text.partition("Examples:\n")[2])
        assert [line.strip() for line in examples.splitlines()] == (command.epilog or "").splitlines()


def found(top, name):
    """The command of this name."""
    for word in name.split():
        top = top.commands[word]
    return top


def help_of(top, name):
    """What `ratekit NAME --help` prints."""
    context = top.make_context("ratekit", [], resilient_parsing=True)
    for word in name.split():
        context = context.command.commands[word].make_context(word, [], parent=context, resilient_parsing=True)
    return context.command.get_help(context)


def test_help_names_the_defaults(monkeypatch):
    import inspect
    from dataclasses import fields

    import typer

    from ratekit.cli.app import app
    from ratekit.rewriting import Options

    monkeypatch.setenv("COLUMNS", "80")
    top = typer.main.get_command(app)
    asked = {f.name.replace("_", "-"): f.default for f in fields(Options) if f.default not in (None, False)}
    assert {"temperature", "max-tokens", "concurrency", "timeout", "grace"} <= set(asked)
    depth = inspect.signature(rk.rewrite).parameters["depth"].default
    for name in ("audit", "card", "rewrite", "reproduce", "discover"):
        said = dict(
            re.findall(r"--([a-z-]+) (?:(?!--)[^\[])*\[default: ([^;\]]+)[;\]]", " ".join(help_of(top, name).split()))
        )
        expected = asked | {"seed": 0} | ({"depth": depth} if name != "discover" else {})
        assert {option: said.get(option) for option in expected} == {o: str(v) for o, v in expected.items()}, name
        unset = {"llm-seed", "top-p", "reasoning-effort", "template", "base-url", "price-in", "price-out", "budget"}
        assert unset <= set(said), name  # what happens where nothing is given


def test_an_option_has_one_name_and_one_short_one_in_all_commands():
    import typer

    from ratekit.cli.app import app

    names, shorts, meant = {}, {}, {}
    for _, command in commands(typer.main.get_command(app)):
        for parameter in command.params:
            long = [o for o in getattr(parameter, "opts", ()) if o.startswith("--")]
            if long:
                assert len(long) == 1, long
                names.setdefault(parameter.name, set()).add(long[0])
                meant.setdefault(long[0], set()).add(parameter.name)
                for short in set(parameter.opts) - set(long):
                    shorts.setdefault(short, set()).add(long[0])
    assert {name for name, flags in names.items() if len(flags) > 1} == set()
    assert {short for short, flags in shorts.items() if len(flags) > 1} == set()
    assert {flag for flag, parameters in meant.items() if len(parameters) > 1} == set()


def test_the_course_is_copied_and_what_was_worked_on_is_left(capsys, tmp_path):
    code, out, _ = run(capsys, "notebooks", tmp_path / "course")
    assert code == 0
    n = len(list((ROOT / "notebooks").glob("*.ipynb")))
    assert f"{n} notebooks copied" in out
    first = tmp_path / "course" / "01_quickstart.ipynb"
    assert first.read_bytes() == (ROOT / "notebooks" / first.name).read_bytes()
    assert "<title>Playground" in (tmp_path / "course" / "playground.html").read_text()
    first.write_text("mine")
    code, out, _ = run(capsys, "notebooks", tmp_path / "course")
    assert (code, out.splitlines()[0]) == (0, f"0 notebooks copied to {tmp_path / 'course'}, {n} were there")
    assert first.read_text() == "mine"


@pytest.mark.slow
def test_a_built_wheel_carries_the_course(tmp_path):
    pytest.importorskip("hatchling", reason="hatchling is not installed: it builds the wheel")
    pytest.importorskip("hatch_fancy_pypi_readme", reason="hatch-fancy-pypi-readme is not installed")

    def python(*arguments, **more):
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, **more)
        assert done.returncode == 0, done.stderr
        return done.stdout

    python("-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path), cwd=ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    python("-m", "zipfile", "-e", str(wheel), str(tmp_path / "installed"))
    environment = {"PYTHONPATH": str(tmp_path / "installed"), "PATH": ""}
    python("-m", "ratekit", "notebooks", "course", cwd=tmp_path, env=environment)
    copied = sorted(path.name for path in (tmp_path / "course").iterdir())
    assert copied == [*sorted(p.name for p in (ROOT / "notebooks").glob("*.ipynb")), "playground.html"]


@pytest.mark.commands
def test_the_module_runs_as_the_command_and_survives_a_closed_pipe(scored):
    script = f"{sys.executable} -m ratekit estimate {scored} --format csv | head -1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {script}"], capture_output=True, text=True)
    assert done.stdout.startswith("attribute,reward_model,estimator")
    assert "Traceback" not in done.stderr


def test_plan_sensitivity_and_uncertainty_from_the_command_line(capsys, scored):
    code, out, _ = run(capsys, "plan", scored, "--se", "0.05", "--format", "json")
    assert code == 0
    assert {row["se_wanted"] for row in json.loads(out)} == {0.05}
    assert run(capsys, "plan", scored)[0] == 2
    code, out, _ = run(capsys, "sensitivity", scored, "--format", "json")
    assert code == 0
    assert "tips_sign" in json.loads(out)[0]
    code, out, _ = run(capsys, "estimate", scored, "--uncertainty", "bootstrap", "--draws", "50", "--format", "json")
    assert code == 0
    assert json.loads(out)
    code, _, err = run(capsys, "estimate", scored, "--uncertainty", "bootstrp")
    assert code == 2
    assert "bootstrap" in err


@pytest.mark.parametrize(
    ("command", "call"),
    [
        (["spillover"], lambda ds: rk.spillover(ds)),
        (["dose-response", "--bins", "3"], lambda ds: rk.dose_response(ds, bins=3)),
        (["heterogeneity", "--by", "style"], lambda ds: rk.heterogeneity(ds, "style")),
        (["sequential", "--estimand", "att"], lambda ds: rk.sequential(ds, estimand="att")),
    ],
)
def test_what_lies_behind_an_effect_is_the_same_from_the_command_line(capsys, scored, command, call):
    from ratekit import files

    code, out, _ = run(capsys, command[0], scored, *command[1:], "--format", "json")
    assert code == 0
    table = call(files.read(scored))
    rows = json.loads(out)
    assert [list(row) for row in rows] == [list(table.columns)] * len(table)
    for name in table.select_dtypes("number"):
        np.testing.assert_allclose([np.nan if r[name] is None else r[name] for r in rows], table[name])
    assert run(capsys, *command[:1], scored, *command[1:])[0] == 0
    assert run(capsys, command[0], "nowhere.parquet", *command[1:])[0] == 2


def test_warranted_needs_what_people_chose(capsys, scored):
    code, out, err = run(capsys, "warranted", scored)
    assert (code, out) == (2, "")
    assert "people's choices" in err


def test_calibrate_grades_a_reward_by_name(capsys):
    code, out, _ = run(capsys, "calibrate", "words", "--n", "20", "--format", "json")
    assert code == 0
    rows = json.loads(out)
    assert {row["estimator"] for row in rows} == {"naive", "single_rewrite", "rate", "rate_extrapolated"}
    assert run(capsys, "calibrate", "wrods")[0] == 2


# --- a place that cannot be written ----------------------------------------------------------------------


def leaves(command, before=()):
    """Every command with its words."""
    for name, below in command.commands.items():
        yield from leaves(below, (*before, name)) if hasattr(below, "commands") else [((*before, name), below)]


READ = {"data", "data_files", "audit", "against", "cards", "folder", "reference", "pairs", "template"}
WRITTEN = {"out", "cache", "junit", "summary"}


def places():
    """Every option that is written to, with its command."""
    import typer

    from ratekit.cli.app import app

    for words, command in leaves(typer.main.get_command(app)):
        for parameter in command.params:
            if parameter.name in WRITTEN or (words == ("notebooks",) and parameter.name == "folder"):
                yield pytest.param(words, command, parameter, id=f"{' '.join(words)} {parameter.name}")


def test_a_path_is_read_or_written():
    import inspect
    from typing import get_type_hints

    import typer

    from ratekit.cli.app import app

    kinds = {}
    for words, command in leaves(typer.main.get_command(app)):
        for name, kind in get_type_hints(inspect.unwrap(command.callback)).items():
            if "Path" in str(kind):
                kinds.setdefault(name, words)
    assert {*kinds} - READ == WRITTEN
    assert len([*places()]) >= 15


@pytest.mark.parametrize(("words", "command", "parameter"), list(places()))
def test_a_place_that_cannot_be_made_is_refused_before_any_work(words, command, parameter, tmp_path):
    """Whatever else is asked for is not there: the place is looked at before it."""
    (tmp_path / "file").write_text("kept")
    for wrong in ("file/x", "file/x/y", f"new/{'x' * 300}", "/dev/null/x"):
        call = []
        for p in command.params:
            value = str(tmp_path / wrong) if p is parameter else "no-such-thing"
            if p is parameter or p.required:
                call += [value] if p.param_type_name == "argument" else [p.opts[0], value]
        with pytest.raises(rk.InputError, match="nothing can be written at"):
            command.main(call, standalone_mode=False)
        assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_such_a_place_is_said_in_one_line(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    code, out, err = run(capsys, "demo", "--out", tmp_path / "file" / "x")
    assert (code, out) == (2, "")
    assert err.startswith("ratekit: nothing can be written at")
    assert len(err.splitlines()) == 1


def test_a_device_or_a_pipe_is_never_replaced_by_a_file(tmp_path):
    from ratekit.files import check_place, replace_file

    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "out").symlink_to("/proc/self/fd/1")
    for place in ("pipe", "out"):
        for write in (check_place, lambda path: replace_file(path, lambda new: new.write_text("x"))):
            with pytest.raises(rk.InputError, match="a device or a pipe"):
                write(tmp_path / place)
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "out").is_symlink()


def test_a_place_that_can_be_made_is_left_as_it_was(tmp_path):
    from ratekit.files import check_place

    (tmp_path / "file").write_text("kept")
    for place in ("file", "new", "new/er", "."):
        check_place(tmp_path / place)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
