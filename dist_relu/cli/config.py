"""Options of a command as plain data: in a TOML file, of which `--config` reads what `--write-config` wrote, or in the
run.json of a run.

They stand by the names of options, without dashes at the front. Those of the command line win.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import click

from dist_relu.cli.types import FILE
from dist_relu.core.files import write_file

Command = TypeVar("Command", bound=Callable[..., Any])

_NO_CONTENT = {"config", "write-config", "help"}


def config_options(command: Command) -> Command:
    """The options of a command that can be read from a file and written to one."""
    command = click.option(
        "--write-config",
        "write_config_to",
        metavar="FILE.toml",
        type=FILE,
        help="Write the options of this command to FILE.toml as well.",
    )(command)
    return click.option(
        "--config",
        metavar="FILE.toml",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        is_eager=True,  # what it holds must be known before other options are looked at
        callback=_read_config,
        help="Read options from FILE.toml, as --write-config writes it; those of the command line win.",
    )(command)


def options_of(context: click.Context) -> dict[str, Any]:
    """The values of a command's options by their names, as plain data; None for what was not given."""
    values = {_name(param): context.params.get(str(param.name)) for param in context.command.params}
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in values.items()
        if name not in _NO_CONTENT
    }


def defaults_from(options: Mapping[str, Any], command: click.Command, where: str) -> dict[str, Any]:
    """Options as click takes them for defaults.  where: they stand, for messages.

    Raises click.UsageError for a name that the command does not have, and for what is neither text nor a number.
    """
    params = {option.lstrip("-"): param for param in command.params for option in param.opts}
    defaults = {}
    for written, value in options.items():
        name = written.replace("_", "-")
        param = params.get(name)
        if param is None or name in _NO_CONTENT:
            raise click.UsageError(f"{where}: {command.name} has no option {written}.{_suggestion(name, params)}")
        if value is not None:
            _check_kind(value, param, f"{where}: {written} = {value!r}")
            defaults[str(param.name)] = value
    return defaults


def write_config(path: Path, context: click.Context) -> None:
    """Write the options of the present command.  Raises `WriteError`."""
    import tomli_w

    given = {name: value for name, value in options_of(context).items() if value is not None}
    write_file(path, f"# dist-relu {context.command.name} --config {path.name}\n{tomli_w.dumps(given)}")


def _read_config(context: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    if path is not None and not context.resilient_parsing:
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise click.UsageError(f"--config {path} can't be read as TOML: {error}.") from None
        context.default_map = {**(context.default_map or {}), **defaults_from(content, context.command, str(path))}
    return path


def _check_kind(value: Any, param: click.Parameter, where: str) -> None:
    is_flag = isinstance(param, click.Option) and param.is_flag
    if is_flag != isinstance(value, bool) or not isinstance(value, str | int | float):
        raise click.UsageError(f"{where}: expected {'true or false' if is_flag else 'a number or text'}.")


def _suggestion(name: str, names: Mapping[str, Any]) -> str:
    close = get_close_matches(name, [one for one in names if one not in _NO_CONTENT], 1)
    return f" Did you mean {close[0]}?" if close else ""


def _name(param: click.Parameter) -> str:
    return param.opts[0].lstrip("-")
