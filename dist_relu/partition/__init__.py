"""Who computes what, and in which order it is added.

Everything here is a pure function of small integers, so that every process works out the same answer alone.
"""

from dist_relu.partition.rng import Purpose, epoch_order, generator
from dist_relu.partition.rounds import Doubling, Halving, Owner, Part, Round, Way
from dist_relu.partition.shards import balance, bounds, check_fit
from dist_relu.partition.tree import Fold, PartialSums, SummationTree, TreeNode, level_of_groups, stack_depth

__all__ = [
    "Doubling",
    "Fold",
    "Halving",
    "Owner",
    "Part",
    "PartialSums",
    "Purpose",
    "Round",
    "SummationTree",
    "TreeNode",
    "Way",
    "balance",
    "bounds",
    "check_fit",
    "epoch_order",
    "generator",
    "level_of_groups",
    "stack_depth",
]
