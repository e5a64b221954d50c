"""`dist-relu completion`: bash and zsh complete commands, options and values, without starting Python for it."""

from __future__ import annotations

from collections.abc import Iterator

import click

from dist_relu.cli.types import NameOrPath, choice

_SCRIPT = """\
# Completion of dist-relu {version} for bash and zsh, written by `dist-relu completion`.
[ -n "$ZSH_VERSION" ] && autoload -U +X bashcompinit && bashcompinit

_dist_relu() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} path="" word words="" files=""
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case "$path $word" in
{paths}
        esac
    done
    case "$path $previous" in
{values}
        *)
            files=yes
            case "$path" in
{options}
            esac
            ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
    if [ -n "$files" ] && [ "${{current#-}}" = "$current" ]; then
        COMPREPLY+=($(compgen -f -- "$current"))
    fi
}}
complete -o filenames -F _dist_relu dist-relu
"""


@click.command()
@click.argument("shell", type=choice(["bash", "zsh"]))
def completion(shell: str) -> None:
    """Print a script that lets a shell complete dist-relu's commands, options, names and files.

    \b
    For bash:
      dist-relu completion bash > ~/.local/share/bash-completion/completions/dist-relu
    For zsh, write it to a file and read that in ~/.zshrc:
      source ~/.dist-relu-completion
    """
    root = click.get_current_context().find_root().command
    commands = dict(_commands(root, ""))
    paths = [f"{_quoted(path)}) path={_quoted(path)} ;;" for path in commands if path]
    values, options = [], []
    for path, command in commands.items():
        for param in command.params:
            words, takes_files = _values(param)
            if isinstance(param, click.Option) and not param.is_flag and not param.count:
                names = "|".join(_quoted(f"{path} {name}") for name in param.opts)
                values.append(f"{names}) words={_quoted(' '.join(words))} files={'yes' if takes_files else ''} ;;")
        known = [name for param in command.params if isinstance(param, click.Option) for name in param.opts]
        known += ["--help", *(command.commands if isinstance(command, click.Group) else ())]
        no_files = " files=" if isinstance(command, click.Group) else ""
        options.append(f"{_quoted(path)}) words={_quoted(' '.join(known))}{no_files} ;;")
    from dist_relu import __version__

    text = _SCRIPT.format(
        version=__version__,
        paths=_indented(paths, 12),
        values=_indented(values, 8),
        options=_indented(options, 16),
    )
    click.echo(text, nl=False)


def _commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """All commands by the words that lead to them, each after a blank."""
    yield path, command
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from _commands(child, f"{path} {name}")


def _values(param: click.Parameter) -> tuple[list[str], bool]:
    """The names that an option takes, and whether it takes files."""
    if isinstance(param.type, click.Choice):
        return list(param.type.choices), False
    if isinstance(param.type, NameOrPath):
        return list(param.type.names), True
    return [], isinstance(param.type, click.Path)


def _quoted(text: str) -> str:
    return "'" + text + "'"


def _indented(lines: list[str], by: int) -> str:
    return "\n".join(" " * by + line for line in lines)
