"""From what users pass to the plan of a training: checked, and with a model that is ready for it."""

from __future__ import annotations

import warnings

from dist_relu.core.checks import check_int, check_is, check_seed, instance_of, optional
from dist_relu.data import Augment, Dataset
from dist_relu.data.augment import ImageShape
from dist_relu.engine.arguments import (
    UNUSUAL_LOSSES,
    Data,
    check_augment,
    check_model,
    check_statistics,
    dataset_of,
    in_classes_to_train,
    loss_for,
    predicts,
    warn_of_classes,
)
from dist_relu.engine.grouping import check_groups
from dist_relu.engine.plan import StepOptions, StepPlan
from dist_relu.engine.replicas import check_replicas
from dist_relu.engine.sanity import doubts_of_data
from dist_relu.engine.weighting import ClassWeight, Sampler, check_class_weight, check_sampler
from dist_relu.errors import TrainingWarning
from dist_relu.nn import Loss, Sequential
from dist_relu.optim import DiLoCo, LocalSGD, Optimizer
from dist_relu.optim.averaging import Averaging
from dist_relu.partition import check_fit, level_of_groups


def planned(
    num_workers: int,
    model: Sequential,
    data: Data,
    optimizer: Optimizer,
    *,
    options: StepOptions | None = None,
    batch_size: int | None = None,
    loss: Loss | None,
    shards: int | None,
    seed: int,
    shuffle: bool,
    averaging: Averaging | None = None,
    augment: Augment | None = None,
    class_weight: ClassWeight | None = None,
    sampler: Sampler | None = None,
) -> tuple[Dataset, StepPlan, ImageShape | None]:
    """Check what users pass; return the data, a plan of steps, and the shape of images. The model is ready then.

    batch_size: None for all samples.
    """
    data = dataset_of(data)
    if loss is None:
        warn_of_classes(data)
    loss = loss_for(data, loss)
    optional(instance_of(LocalSGD | DiLoCo))("averaging", averaging)
    shards = (averaging.replicas if averaging else num_workers) if shards is None else check_int("shards", shards)
    seed = check_seed(seed)
    check_is("model", model, Sequential)
    data = in_classes_to_train(model, data)
    batch_size = len(data) if batch_size is None else batch_size
    optional(instance_of(Augment))("augment", augment)
    class_weight = check_class_weight(class_weight, data)
    sampler = check_sampler(sampler, data, class_weight, shuffle=shuffle)
    check_fit(len(data), batch_size, shards, num_workers)
    compression = options.compression if options else None
    if compression and (groups := compression.num_groups(shards)) is not None:
        level_of_groups(shards, groups)  # raises where they are no nodes of the tree
    built = check_model(model, data, loss)
    for doubt in doubts_of_data(built, data, batch_size):
        warnings.warn(doubt, TrainingWarning, stacklevel=4)
    batch_size = min(batch_size, len(data))
    check_statistics(built, len(data), batch_size, shards)
    image_shape = check_augment(augment, built, data) if augment else None
    check_groups(optimizer, built)
    model.build(data.sample_shape)
    if not model.has_values:
        model.initialize(seed)
    model.predicts, model.classes = predicts(data, loss), data.classes
    model.loss = loss if isinstance(loss, UNUSUAL_LOSSES) else None
    plan = StepPlan(
        loss=loss,
        optimizer=optimizer,
        options=options or StepOptions(),
        batch_size=batch_size,
        shards=shards,
        seed=seed,
        augment=augment,
        class_weight=class_weight,
        sampler=sampler,
        averaging=averaging,
    )
    check_replicas(plan, num_workers)
    return data, plan, image_shape
