"""Groups of commands: where their commands are, and how help shows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, cast, final

import click

_MODULES = {"import": "importing", "what-if": "what_if"}
"""Of commands whose names are words of Python's own, or none that a module may have."""


@final
class Commands(click.Group):
    """A group whose help has a whole sentence for each command.

    sections: the sentences, by names and headings, of commands that are imported when they are needed: each is in the
    module of `dist_relu.cli` that is called as it is, or in that of `_MODULES`.
    """

    def __init__(
        self, *arguments: Any, sections: Mapping[str, Mapping[str, str]] | None = None, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self._sections = sections
        if sections:
            names = [name for section in sections.values() for name in section]
            self.commands = cast(dict[str, click.Command], _Modules(names))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections = self._sections or {
            "Commands": {name: one.get_short_help_str(limit=1000) for name, one in sorted(self.commands.items())}
        }
        for heading, section in sections.items():
            with formatter.section(heading):
                formatter.write_dl(list(section.items()), col_max=max(map(len, self.commands)))


@final
class _Modules(Mapping[str, click.Command]):
    """Commands by their names, each of which is imported when somebody asks for it."""

    def __init__(self, names: list[str]) -> None:
        self._names = names

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._names:
            raise KeyError(name)
        module = import_module(f"dist_relu.cli.{_MODULES.get(name, name)}")
        return next(one for one in vars(module).values() if isinstance(one, click.Command) and one.name == name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
