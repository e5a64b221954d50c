"""Validations: what a model is worth, between steps of a run, on data that it is not trained on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import final

from dist_relu.core.checks import check_sequence, instance_of
from dist_relu.engine.arguments import Data, check_model, dataset_of
from dist_relu.engine.results import Validated
from dist_relu.engine.scoring import checked_metrics
from dist_relu.engine.site import Site
from dist_relu.errors import DataError
from dist_relu.metrics.named import is_number
from dist_relu.nn import Loss, Sequential

_log = logging.getLogger(__name__)


def check_metric_names(metrics: str | Sequence[str], *, validates: bool) -> list[str]:
    """Return the names of metrics of validations.

    validates: whether there are any.  Raises ValueError for what is no name of a single number.
    """
    names = (metrics,) if isinstance(metrics, str) else check_sequence("metrics", metrics, instance_of(str), "names")
    for name in names:
        if not is_number(name):
            raise ValueError(f'metrics={name!r}: validations measure single numbers, such as "f1_macro".')
    if names and not validates:
        raise ValueError(f"metrics={names!r} are of validations, and this call has none: pass validation=....")
    return list(names)


@final
class Validation:
    """A validation measures a model, as it is then, on the same data again and again.

    metrics: see `check_metric_names`.  Raises DataError for data that don't suit the model, ValueError for metrics that
    don't suit the data.
    """

    def __init__(self, site: Site, model: Sequential, loss: Loss, data: Data, metrics: Sequence[str]) -> None:
        try:
            self._data = dataset_of(data, "validation").in_classes(model.classes)
            check_model(model, self._data, loss)
        except ValueError as error:
            raise DataError(f"validation: {error}") from None
        checked_metrics(metrics, model, self._data, loss)
        self._site, self._model, self._loss, self._metrics = site, model, loss, metrics

    def measure(self, step: int, epoch: int) -> Validated:
        """Measure after so many steps and epochs; collective."""
        evaluation = self._site.evaluate(self._model, self._data, self._loss, self._metrics)
        validated = Validated(
            step=step,
            epoch=epoch,
            loss=evaluation.loss,
            accuracy=evaluation.accuracy,
            metrics=dict(evaluation.metrics),
        )
        _log.info("Validation after step %d: %s", step, validated.in_words)
        return validated
