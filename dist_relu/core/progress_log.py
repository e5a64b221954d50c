"""The logger by which a user hears of what takes long."""

PROGRESS_LOG = "dist_relu.cli.progress"
