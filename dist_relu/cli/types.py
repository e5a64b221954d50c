"""What options of the command line take: finite numbers, data sets and models, with their completion in a shell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import click
from click.shell_completion import CompletionItem

from dist_relu.comm.buckets import LEAST_BUCKET_BYTES
from dist_relu.core.checks import (
    Check,
    check_float,
    check_not_negative,
    check_positive,
    check_probability,
    check_seed,
    check_share,
)
from dist_relu.core.sizes import parse_size, size_text
from dist_relu.run.agenda import parse_every
from dist_relu.run.monitoring import MONITORS, check_monitor, check_validation_monitor
from dist_relu.runtime.recovery import parse_workers

DATA_FORMS = (
    "digits, mnist, cifar10, cifar100, adding:STEPS; a .npz, .libsvm or HDF5 file; table.csv:COLUMN, also .parquet and "
    ".feather; .tar files; a folder of such, of IDX or .npy files, or of images by class"
)
DATA_NAMES = ("digits", "mnist", "cifar10", "cifar100", "adding:")
MODEL_FORMS = "mlp:UNITS,UNITS,..., cnn, resnet:8|20, rnn:UNITS[,pixels], policy:UNITS,..."
SCHEDULE_FORMS = (
    "constant, step:EVERY,FACTOR, cosine, onecycle:SHARE, polynomial:POWER, exponential:FACTOR, "
    "plateau:FACTOR,PATIENCE, or warmup:EPOCHS+one of them"
)
COMPRESSION_FORMS = "bf16, fp16, topk:SHARE, powersgd:RANK"
MODEL_NAMES = ("mlp:", "cnn", "resnet:8", "resnet:20", "rnn:", "policy:")


OPTION_GROUPS = {
    "Data and model": (
        "--data --model --normalize --dtype --depth --activation --init --samples --augment --mixup --loss "
        "--label-smoothing --class-weight --sampler --env --hidden"
    ),
    "Training": (
        "--epochs --batch-size --optimizer --lr --schedule --momentum --weight-decay --no-decay --clip-norm "
        "--clip-value --accumulate --ema-decay --on-nan --scale-lr --base-batch-size --warm-up --compress --groups "
        "--change --validation --metrics --algorithm --steps --envs --horizon "
        "--minibatches --gamma --entropy-weight --seeds --lowest --highest --seed --shards "
        "--stale-gradients --replicas --local-steps --outer-lr --outer-momentum --regime --warm-up --repetitions"
    ),
    "Workers": (
        "--workers --nodes --at-once --bucket --backend --threads-per-worker --address --host --hosts --mpirun "
        "--spread --on-failure --max-restarts --worker-timeout --verify-every"
    ),
    "Stop and go on": "--patience --min-delta --monitor --max-time --checkpoint --every --keep --resume",
    "Results": (
        "--json --save --export --log-dir --watch-every --trace --trace-steps --report-to --output --write-config "
        "--config --quiet"
    ),
}
"""Options by what they are about; help has them in this order."""


@final
class GroupedCommand(click.Command):
    """A command with many options, which its help has in groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        records = {param.opts[0]: record for param in self.get_params(ctx) if (record := param.get_help_record(ctx))}
        for heading, names in OPTION_GROUPS.items():
            if lines := [records.pop(name) for name in names.split() if name in records]:
                with formatter.section(heading):
                    formatter.write_dl(lines)
        with formatter.section("Other options"):
            formatter.write_dl(list(records.values()))


@final
class Number(click.types.FloatParamType):
    """A real number that passes one of `dist_relu.core.checks`, which NaN never does."""

    def __init__(self, check: Check) -> None:
        self._check = check

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = super().convert(value, param, ctx)
        try:
            return float(self._check("", number))
        except ValueError as error:
            self.fail(f"{value} {str(error).rpartition(': ')[2]}", param, ctx)


POSITIVE, NOT_NEGATIVE = Number(check_positive), Number(check_not_negative)
SHARE, PROBABILITY = Number(check_share), Number(check_probability)
PART = Number(lambda name, value: check_float(name, value, above=0, below=1))
"""More than nothing, and less than all."""
SENT = Number(lambda name, value: check_float(name, value, above=0, most=1))
"""More than nothing, and all at most."""


@final
class NameOrPath(click.ParamType[str]):
    """One of some names, whatever their case, or a file or folder."""

    def __init__(self, name: str, names: tuple[str, ...]) -> None:
        self.name = name
        self.names = names

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        is_name = any(text.lower() == name or (":" in name and text.lower().startswith(name)) for name in self.names)
        return text.lower() if is_name and not Path(text).exists() and ".py:" not in text else text

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        names = [CompletionItem(name) for name in self.names if name.startswith(incomplete)]
        return [*names, CompletionItem(incomplete, type="file")]


DATA = NameOrPath("data", DATA_NAMES)
MODEL = NameOrPath("model", MODEL_NAMES)


def choice(names: Any) -> click.Choice[str]:
    """One of these names, whatever its case."""
    return click.Choice(list(names), case_sensitive=False)


@final
class SomeNames(click.ParamType[str]):
    """Some of these names, with commas between them; they come in the order of `names`, each once."""

    name = "names"

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        given = [name.strip().lower() for name in str(value).split(",")]
        if unknown := [name for name in given if name not in self.names]:
            self.fail(f"{unknown[0]!r} is none of {', '.join(self.names)}.", param, ctx)
        return ",".join(name for name in self.names if name in given)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        before, comma, last = incomplete.rpartition(",")
        return [CompletionItem(before + comma + name) for name in self.names if name.startswith(last)]


FILE = click.Path(dir_okay=False, path_type=Path)
"""A file to write."""
INPUT_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
"""A file to read."""
FOLDER = click.Path(file_okay=False, path_type=Path)
"""A folder to write into."""


@final
class Seed(click.types.IntParamType):
    """What `dist_relu.core.checks.check_seed` takes."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return check_seed(super().convert(value, param, ctx))
        except ValueError as error:
            self.fail(f"{value} {str(error).rpartition(': ')[2]}", param, ctx)


SEED = Seed()


@final
class Every(click.ParamType[str]):
    """How often something is done: 500steps, 1epoch, 60s, or a number of steps."""

    name = "every"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = f"{value}steps" if str(value).isdecimal() else str(value)
        try:
            parse_every(text)
        except ValueError as error:
            self.fail(str(error).partition(": ")[2], param, ctx)
        return text


@final
class Duration(click.ParamType[float]):
    """A time in seconds, from 90s, 5min, 2h, or a number of seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = f"{value}s" if str(value).replace(".", "", 1).isdecimal() else str(value)
        try:
            unit, seconds = parse_every(text)
        except ValueError:
            unit, seconds = "steps", 0.0
        if unit != "seconds":
            self.fail(f"{value}: expected a time, such as 90s, 5min or 2h.", param, ctx)
        return seconds


AUTO = "auto"
"""What is to be found out by trying."""


@final
class OrAuto(click.ParamType[Any]):
    """What another type takes, or auto."""

    def __init__(self, other: click.ParamType[Any]) -> None:
        self.name, self._other = other.name, other

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if str(value).lower() == AUTO:
            return AUTO
        try:
            return self._other.convert(value, param, ctx)
        except click.BadParameter as error:
            self.fail(f"{error.message.removesuffix('.')}, or {AUTO}.", param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(AUTO)] if AUTO.startswith(incomplete) else []


@final
class BucketSize(click.ParamType[int]):
    """A size that `Trainer.bucket_bytes` takes, such as 256KiB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            size = parse_size(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if size < LEAST_BUCKET_BYTES:
            self.fail(f"{value}: must be at least {size_text(LEAST_BUCKET_BYTES)}.", param, ctx)
        return size


@final
class NumWorkers(click.ParamType[int | str]):
    """A number of workers, or two such as 2:8: see `dist_relu.start`."""

    name = "workers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        text = str(value)
        if text.isdecimal() and int(text) > 0:
            return int(text)
        try:
            parse_workers(text)
        except ValueError as error:
            self.fail(f"{text}: {str(error).partition(': ')[2]}", param, ctx)
        return text


@final
class Monitor(click.ParamType[str]):
    """What a run is judged by, see `dist_relu.run.monitoring`."""

    name = "monitor"

    def __init__(self, check: Callable[[str, Any], str]) -> None:
        self._check = check

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return self._check("", str(value))
        except ValueError as error:
            self.fail(f"{value}: {str(error).partition(': ')[2]}", param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in MONITORS if name.startswith(incomplete)]


EVERY, DURATION, WORKERS, BUCKET = Every(), Duration(), NumWorkers(), BucketSize()
MONITOR, VALIDATION_MONITOR = Monitor(check_monitor), Monitor(check_validation_monitor)

json_option = click.option("--json", "path", metavar="FILE", type=FILE, help="Write the results to FILE as JSON.")
