"""The public names of `ratekit.merging` and where each lives; each is imported when it is first used."""

# one model of several
# permutations
from .alignment import align as align
from .auditing import audit as audit
from .landscape import barrier as barrier
from .landscape import bezier as bezier
from .landscape import direction as direction

# paths, what happens along them, and where an effect is zero
from .landscape import line as line
from .landscape import nonlinearity as nonlinearity
from .landscape import profile as profile
from .learned import ensemble as ensemble
from .learned import fisher as fisher
from .learned import fisher_information as fisher_information
from .learned import gram_matrices as gram_matrices
from .learned import greedy as greedy
from .learned import regmean as regmean
from .learned import wise_ft as wise_ft
from .mergers import merge as merge
from .methods import METHODS as METHODS

# metrics
from .metrics import Estimate as Estimate
from .metrics import Instrument as Instrument
from .metrics import accuracy_metric as accuracy_metric
from .metrics import effect_metric as effect_metric
from .metrics import loss_metric as loss_metric
from .metrics import reward_from as reward_from
from .probes import connectivity as connectivity
from .probes import convexity as convexity
from .probes import determinism as determinism
from .probes import directedness as directedness
from .solve import zero_effect as zero_effect
from .states import check_states as check_states
from .states import combine as combine
from .states import line_state as line_state

# state dicts and folders
from .states import load_state as load_state
from .states import merge_lora as merge_lora
from .symmetries import symmetries_of as symmetries_of
from .taxonomy import ASPECTS as ASPECTS
from .taxonomy import TAXONOMY as TAXONOMY
from .taxonomy import taxonomy_table as taxonomy_table
from .writing import save_state as save_state
