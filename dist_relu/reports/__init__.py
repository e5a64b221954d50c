"""What a run was like: its log folder, its page, its pictures.

logs = reports.read_logs("runs/a")
reports.plots.draw_curves({"a": logs.steps}, Path("curves.png"))
"""

from dist_relu.reports import plots
from dist_relu.reports.log_writer import LogWriter
from dist_relu.reports.logs import Logs, read_logs
from dist_relu.run.info import RunInfo

__all__ = ["LogWriter", "Logs", "RunInfo", "plots", "read_logs"]
