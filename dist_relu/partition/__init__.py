"""Who computes what, and in which order it is added.

Everything here is a pure function of small integers, so that every process works out the same answer alone.
"""

from dist_relu.partition.rng import Purpose, epoch_order, generator
from dist_relu.partition.shards import balance, bounds, check_fit
from dist_relu.partition.tree import Fold, PartialSums, SummationTree, TreeNode, level_of_groups, stack_depth

__all__ = [
    "Fold",
    "PartialSums",
    "Purpose",
    "SummationTree",
    "TreeNode",
    "balance",
    "bounds",
    "check_fit",
    "epoch_order",
    "generator",
    "level_of_groups",
    "stack_depth",
]
