"""Pictures of what was measured; each is written to a .png or .svg file.  They need matplotlib."""

from dist_relu.reports.plots.activity import draw_activations, draw_activations_over_time, draw_preactivations
from dist_relu.reports.plots.boundary import draw_boundary
from dist_relu.reports.plots.curves import draw_curves, draw_training
from dist_relu.reports.plots.family import draw_family, draw_relu
from dist_relu.reports.plots.flow import draw_gradients, draw_gradients_over_time, draw_recurrence
from dist_relu.reports.plots.forecast import ForecastCurve, draw_forecast, draw_node_costs
from dist_relu.reports.plots.phases import draw_phases
from dist_relu.reports.plots.rates import draw_learning_rate
from dist_relu.reports.plots.scaling import ScalingCurve, draw_scaling
from dist_relu.reports.plots.sums import SumCurves, draw_sums
from dist_relu.reports.plots.weights import draw_weights
from dist_relu.reports.plots.what_if import Change, draw_what_if

__all__ = [
    "Change",
    "ForecastCurve",
    "ScalingCurve",
    "SumCurves",
    "draw_activations",
    "draw_activations_over_time",
    "draw_boundary",
    "draw_curves",
    "draw_family",
    "draw_forecast",
    "draw_gradients",
    "draw_gradients_over_time",
    "draw_learning_rate",
    "draw_node_costs",
    "draw_phases",
    "draw_preactivations",
    "draw_recurrence",
    "draw_relu",
    "draw_scaling",
    "draw_sums",
    "draw_training",
    "draw_weights",
    "draw_what_if",
]
