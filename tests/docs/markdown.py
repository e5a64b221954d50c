"""What stands in the documents: blocks of code, links, and the commands that they show."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.programs import ROOT

_BLOCK = re.compile(r"^```(\S*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
_NEEDS = "# Needs "
_END_OF_COMMAND = {"&&", "|", "&", ";", ">"}


@dataclass(frozen=True)
class Block:
    """A fenced block.  language: what stands behind the fence."""

    language: str
    text: str

    @property
    def runs_here(self) -> bool:
        """Whether it needs no more than this machine; what it needs stands in its first line."""
        return not self.text.startswith(_NEEDS)


def documents() -> list[Path]:
    """All pages of this project."""
    folders = ("cluster", "dist_relu", "scripts", "tests")
    return sorted([*ROOT.glob("*.md"), *(page for folder in folders for page in (ROOT / folder).rglob("*.md"))])


def blocks(document: Path) -> list[Block]:
    return [Block(*match) for match in _BLOCK.findall(document.read_text(encoding="utf-8"))]


def links(document: Path) -> list[str]:
    return _LINK.findall(_prose(document))


def spans(document: Path) -> list[str]:
    """What stands in backquotes, outside of blocks."""
    return _CODE.findall(_prose(document))


def anchors(document: Path) -> set[str]:
    """What links may name behind a #, as forges make it of headings."""
    headings = _HEADING.findall(_prose(document))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(text: str) -> Iterator[list[str]]:
    """The commands of a block or a span, word by word; what a terminal shows before them is left out."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(re.sub(r"^(\$|#|\w+\$) ", "", line), posix=True, punctuation_chars="&|;>")
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError:  # prose, or what a program printed
            continue
        command: list[str] = []
        for word in [*words, "&&"]:
            if word not in _END_OF_COMMAND:
                command.append(word)
            elif command:
                yield command
                command = []


def _prose(document: Path) -> str:
    return _BLOCK.sub("", document.read_text(encoding="utf-8"))
