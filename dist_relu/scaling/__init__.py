"""How training scales: every number of workers is measured, and paired, step by step, with the fewest.

With the same shards a step is the same arithmetic on any number of workers, so what differs between the times of step t
on one worker and on four is the workers alone; that both end with the same bits is checked.

    points = scaling.strong(["mlp"], workers=[1, 2, 4], batch_sizes=[128])
    found = scaling.experiment({"mlp": nn.mlp([256, 128], 10)}, data, points=points, folder="scaling")
    for row in found.rows():
        print(row.point.workers, row.speed_up)
"""

from dist_relu.scaling.experiment import Experiment, Row, experiment
from dist_relu.scaling.grid import Point, strong, weak
from dist_relu.scaling.intervals import Interval
from dist_relu.scaling.measurement import Measurement

__all__ = ["Experiment", "Interval", "Measurement", "Point", "Row", "experiment", "strong", "weak"]
