"""Analysis shows what ReLU does: sparsity, dead units, the flow of gradients.

Everything here is measured by the workers, block by block of samples, and added up in an order that blocks alone fix.
So no number depends on how many workers there are.
"""

from dist_relu.analysis.activation import LayerActivations, activation_statistics, dead_units
from dist_relu.analysis.compaction import Compaction, compact
from dist_relu.analysis.course import Course, watched_course
from dist_relu.analysis.gradient import GradientFlow, gradient_flow
from dist_relu.analysis.recurrence import TimeFlow, gradient_through_time
from dist_relu.engine.watch.moments import Magnitude

__all__ = [
    "Compaction",
    "Course",
    "GradientFlow",
    "LayerActivations",
    "Magnitude",
    "TimeFlow",
    "activation_statistics",
    "compact",
    "dead_units",
    "gradient_flow",
    "gradient_through_time",
    "watched_course",
]
