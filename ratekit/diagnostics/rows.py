"""What the diagnostics read of a dataset: its groups of rows, and the measures of their texts."""

from ratekit.groups import Group, chains, groups
from ratekit.measures import MEASURES, measured

__all__ = ["MEASURES", "Group", "chains", "groups", "measured"]
