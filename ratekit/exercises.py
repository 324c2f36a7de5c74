"""The exercises of the course: an answer in, words out.

`check("05.3", answer)` says whether an answer is right and, where it is not, what to think about or what kind of answer
was expected. `question(seed)` makes a question whose numbers no two students share, from a world with known truth;
`assignment(seeds)` puts such questions into a notebook for nbgrader; `scores(folder)` is the table of a class.

>>> _ = check("05.3", 4)
05.3: Not yet. Attribute: any. The count stands above the list.
>>> _ = check("05.3", "three")
05.3: Not yet. A number was expected; this is the text 'three'.
"""

from __future__ import annotations

import copy
import json
import numbers
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ratekit.errors import InputError, require_known, require_whole, shorten, unknown
from ratekit.estimators import convergence, effects
from ratekit.simulate import Imperfections, NumericWorld

if TYPE_CHECKING:
    import pandas as pd

OPEN = "Replace the ... by your answer and run the cell again."


class Unfit(Exception):
    """An answer of another kind than was asked for; the message says which."""


@dataclass(frozen=True)
class Grade:
    """Whether an answer is right, and the words for it. It is true where the answer is right."""

    right: bool
    words: str

    def __bool__(self) -> bool:
        return self.right

    def _ipython_display_(self) -> None:
        """Nothing more is shown in a notebook: the words were printed."""


@dataclass(frozen=True)
class Exercise:
    """Whether an answer is right, and what to think about if it is not; raises `Unfit` for one of another kind."""

    is_right: Callable[[Any], bool]
    hint: str

    def grade(self, answer: object) -> Grade:
        """The answer's grade; an answer of any kind has one."""
        if answer is ...:
            return Grade(False, OPEN)
        try:
            return Grade(True, "Right.") if self.is_right(answer) else Grade(False, f"Not yet. {self.hint}")
        except Unfit as e:
            return Grade(False, f"Not yet. {e}")
        except Exception as e:  # an object whose own code fails when it is looked at
            return Grade(False, f"Not yet. The answer cannot be read: looked at, it raises {type(e).__name__}.")


def number(right: float, within: float) -> Callable[[Any], bool]:
    """Right if it is a number at most `within` away; one that is so but for its sign, or in per cent, is told."""

    def is_right(answer: Any) -> bool:
        found = one_number(answer)
        if abs(found - right) <= within:
            return True
        if right and abs(found + right) <= within:
            raise Unfit("Mind the sign.")
        if right and abs(found / 100 - right) <= within:
            raise Unfit("This is in per cent; a plain number was expected.")
        return False

    return is_right


def p_value(right: float) -> Callable[[Any], bool]:
    """Right if it is a probability whose logarithm to base 10 is at most 0.2 away: a factor of 1.6."""

    def is_right(answer: Any) -> bool:
        p = one_number(answer)
        if not 0 < p <= 1:
            raise Unfit(f"A p-value lies above 0 and is at most 1; this is {p!r}.")
        return bool(abs(np.log10(p) - np.log10(right)) <= 0.2)

    return is_right


def choice(right: str, *others: str) -> Callable[[Any], bool]:
    """Right if it is that word, in any case; words that were not to choose from are named."""
    options = sorted((right, *others))

    def is_right(answer: Any) -> bool:
        said = _spaced(answer) if isinstance(answer, str) else ""
        if said not in map(_spaced, options):
            listed = ", ".join(f'"{option}"' for option in options)
            raise Unfit(f"One of {listed} was expected; this is {_described(answer)}.")
        return said == _spaced(right)

    return is_right


def _spaced(text: str) -> str:
    return " ".join(re.split(r"[\s_-]+", text.strip().casefold()))


def function(signature: str, reference: Callable[..., Any], *cases: tuple[Any, ...]) -> Callable[[Any], bool]:
    """Right if it is a function that gives what `reference` gives for the arguments of each case."""

    def is_right(answer: Any) -> bool:
        if not callable(answer):
            raise Unfit(f"A function {signature} was expected; this is {_described(answer)}.")
        return all(agrees(answer, case) for case in cases)

    def agrees(answer: Callable[..., Any], arguments: tuple[Any, ...]) -> bool:
        try:
            found = answer(*map(_given, arguments))
        except (Exception, SystemExit) as e:
            raise Unfit(f"Called as {signature}, it raises {type(e).__name__}: {shorten(e, 100)}") from None
        expected = reference(*arguments)
        if not isinstance(expected, dict):
            return abs(one_number(found, "It should give a number; it gives") - expected) <= 1e-6
        if not isinstance(found, Mapping) or set(found) != set(expected):
            raise Unfit(f"It should give a dict with the names of its arguments; it gives {_described(found)}.")
        for name, right in expected.items():
            if np.shape(found[name]) != right.shape:
                raise Unfit(f"Its arrays should have their arguments' shape; {name!r} is {_described(found[name])}.")
            if not np.allclose(np.asarray(found[name], float), right):
                return False
        return True

    return is_right


def _given(argument: Any) -> Any:
    """An argument for the answer to do with as it likes; the entries of a state dict are tensors."""
    if not isinstance(argument, dict):
        return copy.deepcopy(argument)
    import torch

    return {name: torch.tensor(entry) for name, entry in argument.items()}


def one_number(answer: Any, expected: str = "A number was expected; this is") -> float:
    """The answer as a number; raises `Unfit`, with what it is instead."""
    value = answer.item() if getattr(answer, "ndim", None) == 0 else answer
    if not isinstance(value, (numbers.Real, Decimal)) or isinstance(value, bool) or np.ma.is_masked(answer):
        typed = " Leave out the quotation marks." if isinstance(value, str) and isinstance(_typed(value), float) else ""
        of_one = (
            " Take its one entry, with .item()." if getattr(value, "size", 0) == 1 and hasattr(value, "item") else ""
        )
        raise Unfit(f"{expected} {_described(answer)}.{typed}{of_one}")
    try:
        found = float(value)
    except (OverflowError, ValueError):
        found = float("inf")
    if not abs(found) < 1e300:
        raise Unfit(f"{expected} {_described(answer)}: not a finite one, or far too large.")
    return found


def _described(answer: Any) -> str:
    """What an answer is, in words.

    Examples
    --------
    >>> _described([1, 2, 3]), _described("three"), _described(None), _described(np.arange(3))
    ('a list of 3', "the text 'three'", 'None', 'an ndarray of shape (3,)')
    """
    shape = getattr(answer, "shape", None)
    if shape == () and hasattr(answer, "item"):
        answer, shape = answer.item(), None
    if isinstance(answer, str):
        return f"the text {shorten(answer, 40)!r}"
    if isinstance(answer, complex):
        return f"the complex number {answer}"
    if answer is None or isinstance(answer, numbers.Number):
        return shorten(answer, 40)
    if isinstance(answer, type):
        return f"the class {answer.__name__}"
    if callable(answer):
        return "a function"
    name = type(answer).__name__
    kind = f"{'an' if name[0] in 'aeioAEIO' or name.startswith('nd') else 'a'} {name}"
    if isinstance(shape, tuple):
        return f"{kind} of shape {shape}"
    return f"{kind} of {len(answer)}" if isinstance(answer, Collection) else kind


def _keeps_mistakes(answer: Any) -> bool:
    if not (isinstance(answer, (tuple, list)) and len(answer) == 2 and all(isinstance(part, str) for part in answer)):
        raise Unfit(f'Two phrases were expected, as in ("more hedged", "more certain"); this is {_described(answer)}.')
    hedged, certain = (part.casefold() for part in answer)
    return "hedged" in hedged and "hedged" not in certain and "mistake" in hedged and "mistake" in certain


def _drawn(seed: int) -> tuple[Any, Any, Any]:
    """Rewards of nine rows at three depths, and two labels of them, for the functions of exercises."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(9, 3)), rng.permutation(9) < 4, rng.permutation(9) < 5


def _gap(rewards: Any, treated: Any) -> float:
    return float(rewards[treated].mean() - rewards[~treated].mean())


def _within(rewards: Any, treated: Any, positive: Any) -> float:
    return float(sum(of.mean() * _gap(rewards[of], treated[of]) for of in (positive, ~positive)))


def _change(first: int, then: int) -> Callable[[Any], bool]:
    return function(
        "f(r, w)",
        lambda r, w: (np.where(w, 1, -1) * (r[:, first] - r[:, then])).mean(),
        *((r, w) for r, w, _ in _DRAWN),
    )


_DRAWN = [_drawn(0), _drawn(1)]
_WEIGHTS = [({"w": np.array([0.0, 2.0])}, {"w": np.array([4.0, 0.0])}, t) for t in (0.25, 0.6)]

EXERCISES: dict[str, Exercise] = {
    "01.1": Exercise(choice("sentiment", "length"), "Compare the grey squares with the blue dots."),
    "01.2": Exercise(number(87.275, 0.5), "One row of rk.estimate(counted): RATE's ATE, in words."),
    "02.1": Exercise(number(1.0, 0.02), "What is the mean sentiment reward of the long reviews? Of the short ones?"),
    "02.2": Exercise(function("f(rewards, treated)", _gap, *((r[:, 0], w) for r, w, _ in _DRAWN)),
                     "The mean over one class minus the mean over the other."),
    "02.3": Exercise(function("f(rewards, treated, positive)", _within, *((r[:, 0], w, z) for r, w, z in _DRAWN)),
                     "Two differences of means, then their mean, weighted by how many rows each is of."),
    "03.1": Exercise(_change(0, 1), "r[:, 0] is the response's reward, r[:, 1] its rewrite's."),
    "03.2": Exercise(_change(2, 1), "Which two columns have both been through the rewriter?"),
    "03.3": Exercise(choice("ate", "att", "atu"),
                     "For treated rows the mended typos are subtracted, for untreated rows they are added."),
    "03.4": Exercise(number(0.1, 0.03), "Half of the texts on one side of the comparison are worth 0.2 more."),
    "04.1": Exercise(number(0.5, 0.05), "Try rho = 0.25, 0.5 and 0.75 in the playground."),
    "04.2": Exercise(number(0.0, 0.02),
                     "If nothing is mended, what differs between a response and its rewrite besides the attribute?"),
    "04.3": Exercise(function("f(m)", lambda m: (m[1] - m[3]) / (m[0] - m[2]),
                              (np.array([1.0, 2.25, 1.5, 2.5]),), (np.array([0.5, 1.0, 1.25, 1.6]),)),
                     "Two texts on the same side differ by what was mended between them."),
    "05.1": Exercise(choice("readability", "sentiment", "faults"),
                     "A longer review has longer sentences. What does that move?"),
    "05.2": Exercise(number(0, 0), "Shortened and made longer again: would you write the same words?"),
    "05.3": Exercise(number(3, 0), "Attribute: any. The count stands above the list."),
    "06.1": Exercise(number(-0.2, 0.01), "It stands in the definition of `strict`."),
    "06.2": Exercise(_keeps_mistakes, 'Both phrases have to speak of mistakes, and only the first of "hedged".'),
    "06.3": Exercise(choice("single_rewrite", "rate"), "Which compares a text with mistakes and one without?"),
    "07.1": Exercise(number(1.788, 0.02), "One attribute, one estimator, one estimand: the column estimate_sd."),
    "07.2": Exercise(p_value(2.15e-35),
                     "The column p_value, the row of length and ate. The exponent counts, not the decimals."),
    "07.3": Exercise(number(5456, 0), "rk.plan(ds, se=0.02) has a column n_more."),
    "08.1": Exercise(number(-0.01298, 0.003), "RATE's ATE, and reward_sd of the same row."),
    "08.2": Exercise(number(-7.1, 0.1), "Which rows of by_source are ArmoRM's? The estimate is the pooled table's."),
    "08.3": Exercise(number(0, 0), "Compare the signs of the two columns of a pivot table."),
    "08.4": Exercise(number(0.03, 0.002), "An SE r times too wide is that of r**2 times fewer rows."),
    "09.1": Exercise(number(0.3, 0.01), "RATE is a mean of differences of rewards: average rewards, average effect."),
    "09.2": Exercise(
        function("f(a, b, t)", lambda a, b, t: {name: (1 - t) * a[name] + t * b[name] for name in a}, *_WEIGHTS),
        "(1 - t) of one and t of the other, tensor by tensor: {name: ... for name in a}."),
    "09.3": Exercise(choice("neuron alignment", "ensembling", "weight aggregation"),
                     "What was the matter with unit 7?"),
    "09.4": Exercise(number(-1.0, 0.1),
                     "zero_effect along rk.merging.direction(models['complex'], models['complex'], base)."),
    "10.1": Exercise(number(30.8, 0.3), "Each sentence ends its estimate with: for a change of ... in words."),
}  # fmt: skip


def check(exercise: str, answer: object) -> Grade:
    """Say whether the answer to an exercise of the course is right, and what to think about if it is not.

    Parameters
    ----------
    exercise : str
        Notebook and number, such as "07.2".
    answer
        Of any kind. Words may be in any case; a number is right within the exercise's own tolerance, a p-value within
        one of its logarithm; of a function, what it gives for arguments of the exercise's own is compared.

    Returns
    -------
    Grade
        True where the answer is right; its words are printed.

    Raises
    ------
    InputError
        For an exercise that does not exist.

    Examples
    --------
    >>> _ = check("01.1", "Sentiment")
    01.1: Right.
    >>> _ = check("07.2", 0.019)
    07.2: Not yet. The column p_value, the row of length and ate. The exponent counts, not the decimals.
    """
    if not isinstance(exercise, str) or exercise not in EXERCISES:
        raise unknown("exercise", exercise, EXERCISES)
    if answer is ... and os.environ.get("SERVER_SOFTWARE", "").startswith("voila"):
        from IPython.display import display

        display(field(exercise))
        return Grade(False, OPEN)
    return _said(exercise, EXERCISES[exercise].grade(answer))


def field(exercise: str) -> Any:
    """A field to answer an exercise in where the code is hidden, as under Voila: `check` shows it there by itself.

    Parameters
    ----------
    exercise : str
        Notebook and number. A number or a word can be typed; a function is written in the notebook.

    Returns
    -------
    ipywidgets.Box
        A line to type in, a button, and the words of the grade.

    Examples
    --------
    >>> asked = field("05.3")
    >>> asked.children[0].value = "3"
    >>> asked.children[1].click()
    >>> asked.children[2].value
    '05.3: Right.'
    """
    import ipywidgets

    from ratekit.escaping import escaped

    typed = ipywidgets.Text(description="Your answer", style={"description_width": "initial"}, continuous_update=False)
    button, said = ipywidgets.Button(description=f"Check {exercise}"), ipywidgets.HTML()

    def answered(_: object) -> None:
        said.value = escaped(f"{exercise}: {EXERCISES[exercise].grade(_typed(typed.value)).words}")

    button.on_click(answered)
    return ipywidgets.HBox([typed, button, said], layout={"flex_flow": "row wrap", "align_items": "center"})


def _typed(text: str) -> object:
    """What was typed, as a number where it is one (1/3 too)."""
    try:
        over, _, under = text[:60].partition("/")
        return float(over) / float(under or 1)
    except (ValueError, ZeroDivisionError):
        return text


def _said(name: str, grade: Grade) -> Grade:
    print(f"{name}: {grade.words}")
    return grade


# --- questions with numbers of their own -----------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Question:
    """A question with its own rows; `check(answer)` grades as `check` does.

    `rows` has a row per response: `treated`, and `r0` to `r3`, its reward after 0 to 3 rewrites.
    """

    about: str
    text: str
    rows: pd.DataFrame
    exercise: Exercise

    def check(self, answer: object) -> Grade:
        """The answer's grade, whose words are printed."""
        return _said(self.about, self.exercise.grade(answer))


ABOUT = {
    "naive": "The attribute's true effect in this world is {effect:g}. By how much is the naive estimate off in these "
    "rows, estimate minus truth?",
    "rate": "What does RATE estimate as the effect on the {side} rows?",
    "convergence": "Which share of the flaws survives a pass of the rewriter, estimated from the {side} rows?",
}


def question(seed: int, about: str = "rate") -> Question:
    """A question from a world with known truth, drawn from `seed`: each student another world, other rows, one task.

    Parameters
    ----------
    seed : int
        Of the world and its 200 rows.
    about : str
        "naive", "rate" or "convergence".

    Raises
    ------
    InputError
        For another `about`, or a seed that is no whole number from 0 on.

    Examples
    --------
    >>> asked = question(7, "rate")
    >>> asked.text
    'What does RATE estimate as the effect on the untreated rows?'
    >>> rows = asked.rows[~asked.rows.treated]
    >>> _ = asked.check((rows.r1 - rows.r2).mean())
    rate: Right.
    """
    import pandas as pd

    require_known("question", about, ABOUT)
    require_whole("seed", seed)
    rng = np.random.default_rng(int(seed))
    effect, rho = round(float(rng.uniform(0.2, 0.8)), 2), float(rng.uniform(0.3, 0.6))
    world = NumericWorld(
        effect=effect, confounding=0.8, z_weight=0.6, xi_gap=0.8, xi_base=1.8, rewriter=Imperfections(rho, noise=0.05)
    )
    sample = world.sample(200, rng)
    treated = bool(rng.random() < 0.5)
    rows = pd.DataFrame(sample.rewards, columns=["r0", "r1", "r2", "r3"]).assign(treated=sample.treated)
    found = {(e.estimator, e.estimand): e.estimate for e in effects(sample.rewards, sample.treated)}
    exercise = {
        "naive": Exercise(
            number(found["naive", "ate"] - effect, 0.005), "A difference of two means of r0, less the truth."
        ),
        "rate": Exercise(
            number(found["rate", "att" if treated else "atu"], 0.005),
            "Both texts have been through the rewriter; the effect is with the attribute minus without it.",
        ),
        "convergence": Exercise(
            number(
                convergence(sample.rewards[sample.treated == treated], np.arange(200)[sample.treated == treated]).rho,
                0.005,
            ),
            "Two texts on the same side differ by what was mended between them: r0 - r2, and r1 - r3.",
        ),
    }[about]
    text = ABOUT[about].format(effect=effect, side="treated" if treated else "untreated")
    return Question(about, text, rows, exercise)


def assignment(path: str | Path, seed: int) -> Path:
    """Write a notebook with a question about each idea, marked up for nbgrader: a cell to answer in, one that grades.

    Parameters
    ----------
    path : str or Path
        Of the notebook; a file that is there is replaced.
    seed : int
        Of the questions: give each student another.

    Notes
    -----
    The cells carry nbgrader's metadata, schema version 3. The graded cells assert, so any runner of notebooks grades.

    Examples
    --------
    >>> assignment("ann.ipynb", seed=7)  # doctest: +SKIP
    """
    import nbformat

    cell = nbformat.v4.new_code_cell
    cells = [cell("import ratekit as rk")]
    for about in ABOUT:
        asked = f"rk.exercises.question({seed}, {about!r})"
        cells.append(nbformat.v4.new_markdown_cell(f"**{about}.** {question(seed, about).text} Put it into `{about}`."))
        cells.append(cell(f"rows = {asked}.rows\nrows.head()"))
        for name, source, marks in (
            ("answer", f"{about} = ...", {"solution": True, "grade": False, "locked": False}),
            ("test", f"assert {asked}.check({about})", {"solution": False, "grade": True, "locked": True, "points": 1}),
        ):
            marked = {"grade_id": f"{about}-{name}", "schema_version": 3, "task": False, **marks}
            cells.append(cell(source, metadata={"nbgrader": marked}))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return Path(path)


# --- a class ---------------------------------------------------------------------------------------------


def scores(folder: str | Path) -> pd.DataFrame:
    """Who has solved what: a row per student, a column per exercise (1 right, 0 not, NaN not asked), and their sum.

    Parameters
    ----------
    folder : str or Path
        Notebooks that were run, as `NAME.ipynb` or in a folder per student; what was said last on an exercise counts.

    Raises
    ------
    InputError
        For a folder without notebooks, or a file that is none.

    Notes
    -----
    What the notebooks' outputs say is believed. Run them again first where it should not be:
    `jupyter nbconvert --to notebook --execute --inplace FILE`.

    Examples
    --------
    >>> scores("class").sort_values("right")  # doctest: +SKIP
    """
    import pandas as pd

    folder = Path(folder)
    found: dict[str, dict[str, float]] = {}
    for path in sorted(folder.rglob("*.ipynb")):
        inside = path.relative_to(folder)
        if any(part.startswith(".") for part in inside.parts):
            continue
        said = found.setdefault(inside.with_suffix("").parts[0], {})
        try:
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            printed = ["".join(o.get("text", "")) for c in cells for o in c.get("outputs", ())]
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise InputError(f"{path} is no notebook: {shorten(e)}") from None
        for name, words in re.findall(r"(?m)^([\d.]+|\w+): (Right\.|Not yet\.|Replace the \.\.\.)", "\n".join(printed)):
            if name in EXERCISES or name in ABOUT:
                said[name] = float(words == "Right.")
    if not found:
        raise InputError(f"no notebooks in {folder}")
    table = pd.DataFrame.from_dict(found, orient="index")
    table = table.reindex(columns=[name for name in (*EXERCISES, *ABOUT) if name in table])
    return table.assign(right=table.sum(axis=1).astype(int)).rename_axis("student")
