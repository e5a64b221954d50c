"""`dist-relu rl`: a policy learns in an environment, and shows in fresh episodes what it can."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from dist_relu import machine, rl
from dist_relu.checkpoint import save_model
from dist_relu.command_parts import (
    NOT_NEGATIVE,
    POSITIVE,
    PROBABILITY,
    check_writable,
    new_attempts,
    usage_errors,
    worker_options,
)
from dist_relu.coordinator import start
from dist_relu.files import write_file, write_json
from dist_relu.options import parse_sizes
from dist_relu.progress import LearningDisplay

_EPISODES = 100

ALGORITHMS: dict[str, Callable[..., rl.Algorithm]] = {"ppo": rl.PPO, "reinforce": rl.REINFORCE}
"""Names on the command line."""


@click.command("rl")
@click.option("--env", default="CartPole-v1", show_default=True, help="Of gymnasium, or module:Name-v0.")
@click.option("--algorithm", type=click.Choice(list(ALGORITHMS)), default="ppo", show_default=True)
@click.option(
    "--steps",
    type=click.IntRange(1),
    default=100_000,
    show_default=True,
    help="Of all environments together; whole lessons are done.",
)
@click.option(
    "--envs", type=click.IntRange(1), help="Side by side; a multiple of the shards. Default: 16, or the next."
)
@click.option("--hidden", default="64,64", show_default=True, help="Units of the hidden layers.")
@click.option("--horizon", type=click.IntRange(1), help="Steps of each environment between lessons.")
@click.option("--epochs", type=click.IntRange(1), help="Passes over what was seen in them; for ppo.")
@click.option("--minibatches", type=click.IntRange(1), help="Steps of a pass; for ppo.")
@click.option("--lr", type=POSITIVE, help="Learning rate at the beginning; falls to 0 along half a cosine.")
@click.option("--gamma", type=PROBABILITY, help="By how much a reward counts less a step later.")
@click.option("--entropy-weight", type=NOT_NEGATIVE, help="Of the bonus for actions that are left open.")
@worker_options
@click.option(
    "--shards", type=click.IntRange(1), help="Parts of the environments; they fix the bits. Default: the workers."
)
@click.option("--seed", type=click.IntRange(0, 2**64 - 1), default=0, show_default=True)
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Write the results as JSON.")
@click.option("--save", type=click.Path(dir_okay=False, path_type=Path), help="Write the model as safetensors.")
@click.option(
    "--export",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the policy as a Python module that needs nothing but NumPy.",
)
@click.option("--quiet", is_flag=True, help="Print errors only.")
def learn(
    env: str,
    algorithm: str,
    steps: int,
    envs: int | None,
    hidden: str,
    shards: int | None,
    seed: int,
    report: Path | None,
    save: Path | None,
    export: Path | None,
    quiet: bool,
    **others: Any,
) -> None:
    """Let a policy learn in an environment, and play fresh episodes with it.

    Options without a default here have one that suits the algorithm.
    """
    console = Console(quiet=quiet)
    for option, path in (("--report", report), ("--save", save), ("--export", export)):
        check_writable(option, path)
    paths = [path for path in (report, save, export) if path is not None]
    if len(set(paths)) < len(paths):
        raise click.UsageError("--report, --save and --export must name different files.")
    names = ("horizon", "epochs", "minibatches", "lr", "gamma", "entropy_weight")
    given = {name: value for name in names if (value := others.pop(name)) is not None}
    with usage_errors():
        if algorithm == "reinforce" and given.keys() & {"epochs", "minibatches"}:
            raise ValueError("--epochs and --minibatches are for --algorithm ppo: reinforce takes one step a lesson.")
        rule = ALGORITHMS[algorithm](**given)
        model = rl.policy_for(env, parse_sizes("--hidden ", hidden))
    with start(**others) as coordinator:
        with LearningDisplay(console) as display:
            result = rl.train(
                coordinator,
                env,
                rule,
                steps=steps,
                model=model,
                num_envs=envs,
                shards=shards,
                seed=seed,
                on_progress=display.show,
            )
        attempts = new_attempts()
        if save:
            with attempts.writing(save):
                save_model(model, save)
        if export:
            with attempts.writing(export):
                write_file(export, rl.source(model, f"A policy for {env}, trained by dist_relu"))
        returns = rl.evaluate(coordinator, model, env, episodes=_EPISODES, seed=seed)
        if report:
            numbers = {
                "env": env,
                "algorithm": algorithm,
                "backend": coordinator.backend,
                "workers": coordinator.workers,
                "nodes": coordinator.nodes,
                "shards": shards or coordinator.workers,
                "seed": seed,
                "steps": result.num_steps,
                "mean_returns": [
                    float(mean) if count else None
                    for mean, count in zip(result.mean_returns, result.num_episodes, strict=True)
                ],
                "test_mean_return": float(returns.mean()),
                "test_returns": returns.tolist(),
                "seconds": result.seconds,
                "steps_per_second": result.num_steps / result.seconds,
                "params_sha256": result.digest,
                "versions": machine.versions(),
                "cpu": machine.cpu_name(),
            }
            with attempts.writing(report):
                write_json(report, numbers)
        workers = f"{coordinator.workers} worker{'s' if coordinator.workers > 1 else ''} ({coordinator.backend})"
        console.print(
            f"Mean return {returns.mean():.1f} over {_EPISODES} fresh episodes (from {returns.min():.1f} to "
            f"{returns.max():.1f}). Learned from {result.num_steps:,} steps in {result.seconds:.1f} s with {workers}: "
            f"{result.num_steps / result.seconds:,.0f} steps/s.",
            highlight=False,
            soft_wrap=True,
        )
    attempts.check()
