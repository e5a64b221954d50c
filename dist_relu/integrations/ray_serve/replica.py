"""A replica of a served model: gathers requests into batches, and looks for a newer model meanwhile."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, final

import numpy as np
import numpy.typing as npt
from starlette.requests import Request
from starlette.responses import Response

from dist_relu.core.arrays import Array
from dist_relu.engine.arguments import checked_samples
from dist_relu.integrations.ray_serve.bodies import (
    Question,
    Refused,
    Reply,
    answer_of,
    inputs_of,
    outputs_of,
    refusal,
    samples_of,
)
from dist_relu.integrations.ray_serve.gathering import Gatherer
from dist_relu.integrations.ray_serve.http import About, Service
from dist_relu.integrations.ray_serve.served_model import ModelSource, ServedModel
from dist_relu.nn import Sequential

_log = logging.getLogger(__name__)  # Ray shows warnings where the server was started


class _Outputs(NamedTuple):
    """What became of a request in a batch: its outputs, the samples of the batch, and the model that computed them."""

    outputs: Array
    batch_rows: int
    served: ServedModel


@final
class Replica:
    """What Ray Serve makes `replicas` of, each in a process of its own.

    A batch is computed by one model from its first sample to its last; a newer one takes over between two batches.
    """

    def __init__(
        self,
        path: str,
        name: str,
        max_batch_size: int,
        batch_wait_timeout_s: float,
        reload_every_s: float,
        most_bytes: int,
    ) -> None:
        self._name, self._reload_every_s = name, reload_every_s
        self._source = ModelSource(path)
        self._computing = ThreadPoolExecutor(1, "dist_relu batches")  # a model computes one batch at a time
        self._batches = Gatherer(self._compute_apart, 1, max_batch_size, batch_wait_timeout_s)
        self._service = Service(name, self.answer, self.about, most_bytes)
        threading.Thread(target=self._watch, name="dist_relu reload", daemon=True).start()

    async def __call__(self, request: Request) -> Response:
        """Answer a request that has come through Ray Serve's own proxy."""
        return await self._service.respond(request)

    async def predict(self, x: npt.ArrayLike) -> Array:
        """Compute the outputs (N, *output_shape) for samples x (N, *input_shape), as `Coordinator.forward` does."""
        results = await self._batches.ask(np.asarray(checked_samples(self._source.current.model, x)))
        return results.outputs

    async def answer(self, question: Question) -> Reply:
        """Answer a request for predictions."""
        (reply,) = await self.answer_all([question])
        return reply

    async def answer_all(self, questions: Sequence[Question]) -> Sequence[Reply]:
        """Answer several requests, which share a batch: with a refusal where that is what a body deserves."""
        model = self._source.current.model
        found = [_samples_or_refusal(question, model) for question in questions]
        try:
            outputs = iter(await self._batches.ask_all([x for x in found if isinstance(x, np.ndarray)]))
        except Refused as error:
            return [refusal(error)] * len(questions)
        return [
            self._reply(question, next(outputs)) if isinstance(x, np.ndarray) else x
            for question, x in zip(questions, found, strict=True)
        ]

    async def about(self) -> About:
        """Describe what is served now."""
        served = self._source.current
        return About(version=served.version, inputs=inputs_of(served.model), outputs=outputs_of(served.model))

    def _reply(self, question: Question, results: _Outputs) -> Reply:
        outputs, batch_rows, served = results
        media_type, content = answer_of(question, served.model, outputs, served.version, self._name)
        return Reply(
            status=200,
            content=content,
            media_type=media_type,
            rows=len(outputs),
            batch_rows=batch_rows,
            version=served.version,
        )

    async def _compute_apart(self, samples: Sequence[Array]) -> Sequence[_Outputs]:
        """Compute a batch, while this process goes on answering and reading."""
        return await asyncio.get_running_loop().run_in_executor(self._computing, self._compute, samples)

    def _compute(self, samples: Sequence[Array]) -> Sequence[_Outputs]:
        served = self._source.current
        whole = np.concatenate(samples, dtype=served.model.dtype, casting="unsafe")
        ends = np.cumsum([len(x) for x in samples])
        outputs = np.split(served.outputs(whole), ends[:-1])
        return [_Outputs(part, int(ends[-1]), served) for part in outputs]

    def _watch(self) -> None:
        pause = threading.Event()
        while not pause.wait(self._reload_every_s):
            try:
                is_newer, refused = self._source.refresh()
            except Exception:  # whatever it is, what is there goes on being served
                _log.exception("A newer model could not be looked for.")
                continue
            for reason in refused:
                _log.warning("Not served: %s", reason)
            if is_newer:
                _log.info("Serves version %s now.", self._source.current.version)


def _samples_or_refusal(question: Question, model: Sequential) -> Array | Reply:
    try:
        return samples_of(question, model)
    except Refused as error:
        return refusal(error)
