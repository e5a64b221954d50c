"""`dist-relu rl`: a policy learns in an environment, and shows in fresh episodes what it can."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from dist_relu import rl
from dist_relu.checkpoint import save_model
from dist_relu.cli.common import (
    check_model_path,
    check_writable,
    new_attempts,
    run_console,
    started,
    usage_errors,
    worker_options,
    wrote,
)
from dist_relu.cli.options import shards_option
from dist_relu.cli.parsing import parse_sizes
from dist_relu.cli.progress import LearningDisplay, StatusLine, counted, tell
from dist_relu.cli.running import Interrupted
from dist_relu.cli.types import FILE, NOT_NEGATIVE, POSITIVE, PROBABILITY, SEED, GroupedCommand, choice
from dist_relu.core import machine
from dist_relu.core.files import Attempts, write_file, write_json
from dist_relu.nn import Sequential

_EPISODES = 100

ALGORITHMS: dict[str, Callable[..., rl.Algorithm]] = {"ppo": rl.PPO, "reinforce": rl.REINFORCE}
"""Names on the command line."""


_EXAMPLES = """
\b
Examples:
  dist-relu rl --env CartPole-v1 --save policy.safetensors
  dist-relu rl --env Pendulum-v1 --gamma 0.9 --export policy.py
"""


@click.command("rl", cls=GroupedCommand, epilog=_EXAMPLES)
@click.option(
    "--env",
    default="CartPole-v1",
    show_default=True,
    help="The environment: a name that gymnasium knows, or module:Name-v0.",
)
@click.option("--algorithm", type=choice(ALGORITHMS), default="ppo", show_default=True, help="How the policy learns.")
@click.option(
    "--steps",
    type=click.IntRange(1),
    default=100_000,
    show_default=True,
    help="Take at least so many steps, of all environments together.",
)
@click.option(
    "--envs",
    type=click.IntRange(1),
    help="The number of environments, a multiple of the shards. Default: 16, or the next multiple.",
)
@click.option("--hidden", default="64,64", show_default=True, help="The units of the hidden layers.")
@click.option("--horizon", type=click.IntRange(1), help="Steps of each environment between two lessons.")
@click.option("--epochs", type=click.IntRange(1), help="With ppo: how often a lesson goes over what was seen.")
@click.option("--minibatches", type=click.IntRange(1), help="With ppo: the steps that the optimizer takes meanwhile.")
@click.option("--lr", type=POSITIVE, help="The learning rate at first; it falls to 0 along half a cosine.")
@click.option("--gamma", type=PROBABILITY, help="What a reward a step later counts for, between 0 and 1.")
@click.option("--entropy-weight", type=NOT_NEGATIVE, help="How much the policy is rewarded for staying undecided.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Fixes all that is random.")
@worker_options
@shards_option
@click.option("--json", "--report", "report", metavar="FILE", type=FILE, help="Write the results to FILE as JSON.")
@click.option("--save", metavar="FILE", type=FILE, help="Write the model to FILE, as safetensors.")
@click.option(
    "--export", metavar="FILE", type=FILE, help="Write the policy to FILE.py, a module that needs nothing but NumPy."
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

    Options without a default here have one that suits the algorithm. Ctrl-C ends it early: --save and --export are
    written then, with the weights after the last complete step.
    """
    attempts = new_attempts()
    console = run_console(attempts, quiet=quiet)
    for option, path in (("--json", report), ("--export", export)):
        check_writable(option, path)
    check_model_path(save)
    paths = [path for path in (report, save, export) if path is not None]
    if len(set(paths)) < len(paths):
        raise click.UsageError("--json, --save and --export must name different files.")
    names = ("horizon", "epochs", "minibatches", "lr", "gamma", "entropy_weight")
    given = {name: value for name in names if (value := others.pop(name)) is not None}
    with usage_errors():
        if algorithm == "reinforce" and given.keys() & {"epochs", "minibatches"}:
            raise ValueError("--epochs and --minibatches are for --algorithm ppo: reinforce takes one step a lesson.")
        rule = ALGORITHMS[algorithm](**given)
        model = rl.policy_for(env, parse_sizes("--hidden ", hidden))
    with StatusLine(console) as status, started(**others) as coordinator:
        status.phase("Starting workers and environments")
        display = LearningDisplay(console, status)
        try:
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
        except KeyboardInterrupt as stop:
            if (last := display.last) is None or not (save or export):
                raise
            _write(attempts, model, env, save, export)
            told = f"interrupted in iteration {last.iteration + 1} of {last.iterations}"
            raise Interrupted(told + wrote(attempts, save, export)) from stop
        _write(attempts, model, env, save, export)
        status.phase("Testing")
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
        workers = f"{counted(coordinator.workers, 'worker')} ({coordinator.backend})"
        tell(
            console,
            f"Mean return {returns.mean():.1f} over {_EPISODES} fresh episodes (from {returns.min():.1f} to "
            f"{returns.max():.1f}). Learned from {result.num_steps:,} steps in {result.seconds:.1f} s with {workers}: "
            f"{result.num_steps / result.seconds:,.0f} steps/s.",
        )
    attempts.check()


def _write(attempts: Attempts, model: Sequential, env: str, save: Path | None, export: Path | None) -> None:
    if save:
        with attempts.writing(save):
            save_model(model, save)
    if export:
        with attempts.writing(export):
            write_file(export, rl.source(model, f"A policy for {env}, trained by dist_relu"))
