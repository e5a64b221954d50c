"""How training scales: every number of workers is measured, and paired, step by step, with the fewest.

With the same shards a step is the same arithmetic on any number of workers, so what differs between the times of step t
on one worker and on four is the workers alone; that both end with the same bits is checked.

    points = scaling.strong(["mlp"], workers=[1, 2, 4], batch_sizes=[128])
    found = scaling.experiment({"mlp": nn.mlp([256, 128], 10)}, data, points=points, folder="scaling")
    for row in found.rows():
        print(row.point.workers, row.speed_up)

What nobody has is forecast: what a worker of many does is measured on one core, and only the network is modelled.

    measured = scaling.profiles({"mlp": nn.mlp([256, 128], 10)}, data, points=points, folder="scaling")
    cluster = scaling.Cluster(network=scaling.Network.of_ethernet("10G"))
    for one in scaling.forecast(points[0], measured, cluster, nodes=[1, 8, 64]):
        print(one.nodes, one.efficiency, one.limit)
"""

from dist_relu.scaling.calibration import calibrated
from dist_relu.scaling.cost import Part, Step, Traffic, Work, step_of, traffic_of_scheme, traffic_of_training
from dist_relu.scaling.experiment import Experiment, Row, experiment
from dist_relu.scaling.forecast import Forecast, forecast
from dist_relu.scaling.grid import Point, strong, weak
from dist_relu.scaling.intervals import Interval
from dist_relu.scaling.job import Cluster
from dist_relu.scaling.measurement import Measurement, Placement
from dist_relu.scaling.network import Network
from dist_relu.scaling.profile import Profile, Share, profiles
from dist_relu.scaling.simulation import Failures, Simulated, simulate
from dist_relu.scaling.what_if import Outcome, what_if

__all__ = [
    "Cluster",
    "Experiment",
    "Failures",
    "Forecast",
    "Interval",
    "Measurement",
    "Network",
    "Outcome",
    "Part",
    "Placement",
    "Point",
    "Profile",
    "Row",
    "Share",
    "Simulated",
    "Step",
    "Traffic",
    "Work",
    "calibrated",
    "experiment",
    "forecast",
    "profiles",
    "simulate",
    "step_of",
    "strong",
    "traffic_of_scheme",
    "traffic_of_training",
    "weak",
    "what_if",
]
