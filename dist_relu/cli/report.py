"""`dist-relu report`: from the log folder of a run to a page."""

from __future__ import annotations

from pathlib import Path

import click

from dist_relu.cli.common import check_installed, check_writable, tell_left_out, usage_errors
from dist_relu.core.files import write_file
from dist_relu.reports.logs import read_logs
from dist_relu.reports.page import page


@click.command()
@click.argument("folder", metavar="RUN", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--output",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    default="report.html",
    show_default=True,
    metavar="FILE",
    help="Write the page to FILE, which ends in .html.",
)
def report(folder: Path, path: Path) -> None:
    """Write what is known of a RUN as one page, with all pictures in it.

    RUN: the folder that `train --log-dir` wrote, also of a run that still goes on.
    """
    check_installed("Reports", "matplotlib", "jinja2")
    check_writable("--output", path)
    if path.suffix != ".html":
        raise click.UsageError(f"--output {path}: expected a name that ends in .html.")
    if not any((folder / name).is_file() for name in ("run.json", "steps.jsonl")):
        raise click.UsageError(f"{folder} has no run.json; expected a folder that dist-relu train --log-dir wrote.")
    with usage_errors():
        logs = read_logs(folder)
    tell_left_out(folder, logs.left_out)
    write_file(path, page(logs, folder))
    click.echo(f"Wrote {path}.")
