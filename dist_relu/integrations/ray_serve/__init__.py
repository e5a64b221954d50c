"""Models behind HTTP and Python handles, on Ray Serve.

`application` makes what Ray Serve runs, on any cluster; `dist-relu serve` is `server.ModelServer`. Both need Ray Serve:
`pip install 'dist_relu[serve]'`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dist_relu.core.checks import check_float, check_int
from dist_relu.errors import UnsuitableBackend
from dist_relu.integrations.ray_serve.limits import MOST_BYTES, MOST_QUEUED

__all__ = ["application", "from_config"]


def application(
    path: str | Path,
    *,
    name: str = "model",
    replicas: int = 1,
    max_batch_size: int = 64,
    batch_wait_timeout_s: float = 0.0,
    reload_every_s: float = 1.0,
    max_body_bytes: int = MOST_BYTES,
) -> Any:
    """What `ray.serve.run` takes to serve the model at `path`: `handle = serve.run(application("model.safetensors"))`.

    path: a file of `save_model`, or a folder of `Checkpoint`, whose newest state is served; where replicas run, so on
    clusters of several nodes it lies in a folder that all of them share. Each replica looks every `reload_every_s` for
    a newer one, and serves that from its next batch on.
    name: in the paths /v1/models/NAME and /v2/models/NAME.  replicas: processes, each with one CPU.
    max_batch_size: so many requests at most are computed together; batch_wait_timeout_s: so long a batch waits for
    more of them. Those that come while one is computed make up the next without any waiting.
    max_body_bytes: of a request's body; longer ones are refused.

    `handle.predict.remote(x).result()` are the outputs (N, ...) for samples x (N, ...), with the bits of
    `Coordinator.forward`, whatever the batch. Over HTTP there are /predict and other paths, see GUIDE.md.
    Raises UnsuitableBackend where Ray Serve is not installed.
    """
    max_body_bytes = check_int("max_body_bytes", max_body_bytes)
    max_batch_size = check_int("max_batch_size", max_batch_size)
    replica = import_serve().deployment(
        name=name,
        num_replicas=check_int("replicas", replicas),
        max_ongoing_requests=max(2 * max_batch_size, 16),
        max_queued_requests=MOST_QUEUED,
        health_check_period_s=1,
        graceful_shutdown_wait_loop_s=0.5,
        ray_actor_options={"num_cpus": 1},
    )(_replica())
    return replica.bind(
        os.path.abspath(path),
        name,
        max_batch_size,
        check_float("batch_wait_timeout_s", batch_wait_timeout_s),
        check_float("reload_every_s", reload_every_s),
        max_body_bytes,
    )


def from_config(arguments: dict[str, Any]) -> Any:
    """`application` with arguments from a file of Ray Serve, as `serve deploy` and KubeRay read it.

    import_path: dist_relu.integrations.ray_serve:from_config.  args: those of `application`.
    """
    return application(**arguments)


def import_serve() -> Any:
    """Import `ray.serve`.  Raises UnsuitableBackend where it is not installed."""
    try:
        from ray import serve
    except ImportError as error:
        raise UnsuitableBackend(
            f"Serving needs Ray Serve ({error}). Install it: pip install 'dist_relu[serve]'."
        ) from None
    return serve


def _replica() -> Any:
    from dist_relu.integrations.ray_serve.replica import Replica

    return Replica
