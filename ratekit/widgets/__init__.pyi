"""The public names of `ratekit.widgets` and where each lives; each is imported when it is first used."""

from .attribute_lab import AttributeLab as AttributeLab
from .dashboard import EffectsDashboard as EffectsDashboard
from .explorer import Explorer as Explorer
from .playground import Playground as Playground
