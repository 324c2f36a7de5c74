"""The public names and where each lives. `ratekit` reads them here and imports one when it is first used."""

from . import attributes as attributes
from . import audits as audits
from . import demo as demo
from . import diagnostics as diagnostics
from . import estimators as estimators
from . import exercises as exercises
from . import measures as measures
from . import merging as merging
from . import plots as plots
from . import reports as reports
from . import reproduce as reproduce
from . import resampling as resampling
from . import rewriting as rewriting
from . import scoring as scoring
from . import simulate as simulate
from . import sources as sources
from . import widgets as widgets
from .attributes import ATTRIBUTES as ATTRIBUTES

# the whole study
from .audits.results import Audit as Audit
from .audits.study import audit as audit

# what selection by a reward does
from .best_of_n import reach as reach

# what a model in training rewards
from .callbacks import AuditCallback as AuditCallback
from .cards import Card as Card
from .cards import card as card
from .diagnostics import across_rewriters as across_rewriters
from .diagnostics import adjusted as adjusted
from .diagnostics import compare_counterfactuals as compare_counterfactuals
from .diagnostics import contrast as contrast

# what to ask of the result
from .diagnostics import diagnose as diagnose
from .diagnostics import dose_response as dose_response
from .diagnostics import heterogeneity as heterogeneity
from .diagnostics import plan as plan
from .diagnostics import position as position
from .diagnostics import refusal_bounds as refusal_bounds
from .diagnostics import sensitivity as sensitivity
from .diagnostics import sequential as sequential
from .diagnostics import spillover as spillover
from .diagnostics import verdicts as verdicts
from .diagnostics import warranted as warranted

# what nobody thought to ask about
from .discovery import discover as discover

# faults
from .errors import InputError as InputError
from .errors import WorkError as WorkError
from .estimators import ESTIMATORS as ESTIMATORS
from .estimators import standardize as standardize

# whether an effect is shown to be small
from .gates import assert_effect_below as assert_effect_below
from .gates import gate as gate

# what to vary, with what to rewrite, what to score
from .labellers import Attribute as Attribute

# merging reward models
from .merging.taxonomy import TAXONOMY as TAXONOMY

# to show it to somebody
from .reports import report as report

# the paper's own numbers
from .reproduce.facts import published as published
from .resampling import adjust as adjust
from .resampling import bootstrap as bootstrap
from .rewriting.base import Reply as Reply
from .rewriting.base import Rewrite as Rewrite
from .rewriting.batch import BatchChat as BatchChat
from .rewriting.chat import ChatRewriter as ChatRewriter
from .rewriting.local import LocalChat as LocalChat
from .rewriting.openai_chat import OpenAIChat as OpenAIChat
from .rewriting.rules import RuleRewriter as RuleRewriter
from .scoring import REWARD_MODELS as REWARD_MODELS
from .scoring.check_reward import check_reward as check_reward
from .scoring.llm_judges import LLMJudge as LLMJudge
from .scoring.llm_judges import PairwiseLLMJudge as PairwiseLLMJudge
from .scoring.rubrics import Rubric as Rubric
from .scoring.rubrics import Scale as Scale

# stages
from .sources.loading import as_dataset as as_dataset
from .sources.loading import load as load
from .sources.public import SOURCES as SOURCES
from .stages import estimate as estimate
from .stages import label as label
from .stages import placebo as placebo
from .stages import rewrite as rewrite
from .stages import score as score

# whether an audit's numbers are those of its texts and rewards
from .verification import Verification as Verification
from .verification import verify as verify

__version__: str
