"""The public names of `ratekit.reproduce` and where each lives; each is imported when it is first used."""

from .experiment import Experiment as Experiment
from .experiment import Sweep as Sweep
from .experiment import experiments as experiments
from .experiment import get_experiment as get_experiment
from .facts import published as published
from .pipeline import planned as planned
from .pipeline import run as run
from .share import push as push
from .verdicts import compare as compare
