"""What a training is that the options of `dist-relu train` ask for: its data, model and rule.

`dist-relu reproduce` and `dist-relu at` make it again, from the options in a run.json.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields, replace
from typing import Literal, Self, final

import click

from dist_relu.checkpoint import check_can_be_saved
from dist_relu.cli.common import usage_errors
from dist_relu.cli.compression import parse_compression
from dist_relu.cli.losses import parse_class_weight, parse_loss
from dist_relu.cli.parsing import OPTIMIZERS, parse_augment, parse_model, with_normalization
from dist_relu.cli.schedules import parse_schedule, plateau_of
from dist_relu.cli.types import AUTO
from dist_relu.coordinator import Coordinator
from dist_relu.data import Augment, Split, load, split
from dist_relu.engine.arguments import loss_for
from dist_relu.engine.watch.records import Watch
from dist_relu.engine.weighting import ClassWeight, Sampler, check_class_weight, check_sampler
from dist_relu.errors import TrainingWarning
from dist_relu.nn import Loss, Sequential
from dist_relu.optim import DiLoCo, LargeBatch, LocalSGD, Optimizer, Schedule, WarmUp, no_decay
from dist_relu.partition import check_fit
from dist_relu.run.callbacks import ReduceOnPlateau
from dist_relu.run.state import RunState
from dist_relu.run.tracing.trace import Trace
from dist_relu.run.trainer import Trainer

BASE_BATCH_SIZE, WARM_UP = 64, 5.0
"""The samples of a batch that learning rates are meant for, and the epochs over which they are scaled to others."""
WARM_UP_SHARE = 0.25
"""By default a warm-up takes no more of a run, so that most of a short one has the scaled rate."""


@final
@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """These options of `dist-relu train` fix the bits of a run; the names are those of its parameters.

    shards: None for as many as there are workers, or replicas.
    """

    source: str
    model_text: str
    normalize: str
    validation: float | None
    epochs: int
    batch_size: int
    optimizer: str
    lr: float
    schedule: str
    momentum: float
    weight_decay: float
    no_decay: str | None
    clip_norm: float | None
    clip_value: float | None
    accumulate: int
    ema_decay: float | None
    on_nan: Literal["stop", "skip"]
    stale_gradients: bool
    scale_lr: Literal["linear", "sqrt"] | None
    base_batch_size: int | None
    warm_up: float | None
    compress: str | None
    groups: int | None
    replicas: int | None
    local_steps: int | None
    outer_lr: float | None
    outer_momentum: float | None
    loss: str | None
    label_smoothing: float
    class_weight: str | None
    sampler: Sampler | None
    mixup: float
    augment: str | None
    seed: int
    dtype: str | None
    shards: int | None

    @classmethod
    def of(cls, context: click.Context) -> Self:
        """The options of a command line.  The default learning rate, which depends on the optimizer, is filled in."""
        values = {field.name: context.params[field.name] for field in fields(cls)}
        if values["shards"] == AUTO:
            values["shards"] = None  # until they are found
        if values["lr"] is None:
            values["lr"] = OPTIMIZERS[values["optimizer"]].lr
        return cls(**values)

    def check(self, workers: int | None) -> None:
        """Raise ValueError for what makes no sense, whatever the data are; warn of what is hardly meant."""
        self.rule()
        self._warn_of_endless_warm_up()
        self.changes()
        parse_compression(self.compress, self.groups)
        self.averaging()
        parse_loss(self.loss, self.label_smoothing)
        if workers and self.replicas and workers > self.replicas:
            raise ValueError(
                f"--workers {workers}: a replica is computed by one worker. "
                f"Pass --workers <= {self.replicas} or --replicas >= {workers}."
            )
        if workers and not self.shards and workers > self.batch_size:
            raise ValueError(
                f"--workers {workers}: a batch of {self.batch_size} has no sample for each of them. "
                f"Pass --workers <= {self.batch_size} or --batch-size >= {workers}."
            )
        if workers or self.shards:
            shards = self.shards or self.replicas or workers or 1
            check_fit(self.batch_size, self.batch_size, shards, workers or 1)

    def rule(self) -> Optimizer:
        """Raises ValueError for a schedule that is none."""
        rule = OPTIMIZERS[self.optimizer].make(self._rate(), self.momentum, self.weight_decay)
        if self.no_decay is None:
            return rule
        if not self.weight_decay:
            raise ValueError("--no-decay goes with --weight-decay: nothing decays without.")
        return no_decay(rule, [name.strip() for name in self.no_decay.split(",") if name.strip()])

    def rate_in_words(self) -> str:
        """Tell the learning rate, and what it is scaled to."""
        rate, words = self._rate(), f"lr {self.lr:g}"
        if isinstance(rate, LargeBatch):
            words += f" scaled to {self.lr * rate.factor:.3g}"
            if rate.warm_up:
                words += f" over {rate.warm_up:g} epoch{'s' * (rate.warm_up != 1)}"
        return words

    def _rate(self) -> Schedule:
        rate = parse_schedule(self.schedule, self.lr, self.epochs)
        if self.scale_lr is None:
            return rate
        warm_up = min(WARM_UP, WARM_UP_SHARE * self.epochs) if self.warm_up is None else self.warm_up
        base_batch_size = self.base_batch_size or BASE_BATCH_SIZE
        return LargeBatch(rate, self.batch_size * self.accumulate, base_batch_size, self.scale_lr, warm_up)

    def _warn_of_endless_warm_up(self) -> None:
        rate = self._rate()
        warm_ups: dict[str, float] = {}
        if isinstance(rate, LargeBatch):
            warm_ups["--warm-up "], rate = rate.warm_up, rate.then
        if isinstance(rate, WarmUp):
            warm_ups["--schedule warmup:"] = rate.epochs
        for option, epochs in warm_ups.items():
            if epochs >= self.epochs:
                warnings.warn(
                    f"{option}{epochs:g} takes the whole run, whose learning rate never comes to what it warms up to. "
                    f"Pass a number below {self.epochs}, or --epochs above {epochs:g}.",
                    TrainingWarning,
                    stacklevel=3,
                )

    def averaging(self) -> LocalSGD | DiLoCo | None:
        """By which replicas are averaged, if there are any: DiLoCo where something is said of its outer rule."""
        if self.replicas is None or self.local_steps is None:
            return None
        if self.outer_lr is None and self.outer_momentum is None:
            return LocalSGD(self.replicas, self.local_steps)
        given = {"outer_lr": self.outer_lr, "outer_momentum": self.outer_momentum}
        return DiLoCo(
            self.replicas, self.local_steps, **{name: number for name, number in given.items() if number is not None}
        )

    def changes(self) -> Augment | None:
        """How samples are changed at random.  Raises ValueError for what is no such change."""
        return parse_augment(self.augment, self.mixup)

    def read(self, *, saves: bool) -> Task:
        """The data, and a model that is built for them.  saves: it will be saved.

        Raises click.UsageError for what does not fit together.
        """
        with usage_errors():
            data = self._data()
            model = parse_model(self.model_text, data, self.dtype)
            model = with_normalization(self.normalize, model, data).build(data.train.sample_shape)
            if self.label_smoothing and not data.train.has_classes:
                raise ValueError("--label-smoothing is for class numbers, but these targets are real numbers.")
            loss = parse_loss(self.loss, self.label_smoothing)
            for part in data.parts:
                loss_for(part, loss).check(part.y, model.output_shape)
            class_weight = check_class_weight(parse_class_weight(self.class_weight, data.train), data.train)
            check_sampler(self.sampler, data.train, class_weight, shuffle=True)
            if saves:
                check_can_be_saved(model)
            return Task(self, data, model, loss, class_weight, self.rule(), self.changes())

    def _data(self) -> Split:
        """Those to train on and to test with, and those that are held out of the former."""
        data = load(self.source)
        if self.validation is None:
            return data
        train, held_out = split(data.train, self.validation, self.seed, stratify=data.train.has_classes)
        return replace(data, train=train, validation=held_out)


@final
@dataclass(frozen=True)
class Task:
    """This is what there is to do: train the model on data.train, and test it with data.test.

    loss: None for that which suits the data.
    """

    options: TrainingOptions
    data: Split
    model: Sequential
    loss: Loss | None
    class_weight: ClassWeight | None
    rule: Optimizer
    changes: Augment | None

    def for_workers(self, workers: int) -> Task:
        """The same task with a number of shards, by default that of replicas or workers.  Raises `PartitionError`."""
        shards = self.options.shards or self.options.replicas or workers
        check_fit(len(self.data.train), self.options.batch_size, shards, workers)
        return replace(self, options=replace(self.options, shards=shards))

    def plateau(self) -> ReduceOnPlateau | None:
        """What lowers the learning rate by what the run comes to, where the schedule is such a one; a new one."""
        return plateau_of(self.options.schedule, validates=self.data.validation is not None)

    def trainer(
        self,
        coordinator: Coordinator,
        state: RunState | None = None,
        watch: Watch | None = None,
        verify_every: int | None = None,
        trace: Trace | None = None,
    ) -> Trainer:
        """See `Coordinator.trainer`."""
        options = self.options
        with usage_errors():
            return coordinator.trainer(
                self.model,
                self.data.train,
                self.rule,
                batch_size=options.batch_size,
                shards=options.shards,
                seed=options.seed,
                loss=self.loss,
                clip_norm=options.clip_norm,
                clip_value=options.clip_value,
                accumulate=options.accumulate,
                ema_decay=options.ema_decay,
                on_nan=options.on_nan,
                stale_gradients=options.stale_gradients,
                compression=parse_compression(options.compress, options.groups),
                averaging=options.averaging(),
                augment=self.changes,
                class_weight=self.class_weight,
                sampler=options.sampler,
                watch=watch,
                verify_every=verify_every,
                trace=trace,
                state=state,
            )
