"""`dist-relu serve`: a saved model behind HTTP, on replicas of Ray Serve."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from dist_relu.cli.common import model_file, saved_model_argument
from dist_relu.cli.running import Interrupted
from dist_relu.integrations.ray_serve import import_serve
from dist_relu.integrations.ray_serve.limits import MOST_BYTES
from dist_relu.run.checkpoints import checkpoint_files

_EXAMPLES = """
\b
Examples:
  dist-relu serve model.safetensors --replicas 2
  dist-relu train --checkpoint runs/c & dist-relu serve runs/c
  curl -d '{"instances": [[0.5, 1.0, 0.0]]}' http://127.0.0.1:8000/predict
"""

_MB = 2**20


def _check_name(context: click.Context, param: click.Parameter, name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", name):
        raise click.BadParameter(f"{name!r}: expected letters, digits and any of . _ -, for it stands in addresses.")
    return name


@click.command(epilog=_EXAMPLES)
@saved_model_argument
@click.option(
    "--name",
    default="model",
    show_default=True,
    callback=_check_name,
    help="The model's name in /v1/models/NAME and /v2/models/NAME.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Where to listen. Whoever gets there may ask: 0.0.0.0 lets in all that the network does.",
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="The port; 0 for any that is free."
)
@click.option(
    "--replicas", type=click.IntRange(1), default=1, show_default=True, help="How many processes compute, a CPU each."
)
@click.option(
    "--max-batch",
    "max_batch_size",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="How many requests a replica computes together at most.",
)
@click.option(
    "--batch-wait",
    type=click.FloatRange(0, 10_000),
    metavar="MS",
    default=0.0,
    show_default=True,
    help="How many ms a batch waits for more; those that come during one make up the next in any case.",
)
@click.option(
    "--max-body",
    type=click.IntRange(1, 1024),
    metavar="MB",
    default=MOST_BYTES // _MB,
    show_default=True,
    help="How large the body of a request may be.",
)
@click.option(
    "--address",
    metavar="HOST:PORT",
    help="Join the Ray cluster at this address. Default: $RAY_ADDRESS, or the one on this machine.",
)
def serve(model_path: Path, batch_wait: float, max_body: int, **options: Any) -> None:
    """Serve predictions of a saved MODEL over HTTP, until it is interrupted.

    MODEL is a file that `train --save` wrote, the folder of a run that `train --log-dir` wrote, or one that `train
    --checkpoint` writes, of which the newest checkpoint is served, also those that come later. A file that is replaced
    is served anew, too, without a request being lost.

    POST /predict takes JSON, {"instances": [sample, ...]}, or an array as np.save writes it, and answers in kind: with
    classes and probabilities, or with the model's raw outputs, to the bits of `evaluate` and `predict --output`. So do
    /v1/models/NAME:predict and /v2/models/NAME/infer, as TensorFlow Serving and the Open Inference Protocol have them.
    /healthz, /readyz and /metrics are for those who look after it. Ctrl-C and SIGTERM end it when all have their
    answers.
    """
    import_serve()
    from dist_relu.integrations.ray_serve.served_model import ModelSource
    from dist_relu.integrations.ray_serve.server import ModelServer

    path = model_path if checkpoint_files(model_path) else model_file(model_path)
    shape = ModelSource(path).current.model.input_shape
    server = ModelServer(path, batch_wait_timeout_s=batch_wait / 1000, max_body_bytes=max_body * _MB, **options)
    try:
        with server:
            name, replicas = options["name"], options["replicas"]
            click.echo(
                f"Serving {model_path} as {name!r} at {server.url} (samples of shape {shape}, {replicas} "
                f"replica{'s' * (replicas != 1)})."
            )
            server.wait()
    except KeyboardInterrupt:
        raise Interrupted("interrupted; all that had been asked was answered") from None
