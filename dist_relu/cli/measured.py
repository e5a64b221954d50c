"""What a command has measured is told also where it ends early: by Ctrl-C, or by an error."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from dist_relu.cli.running import Interrupted

T = TypeVar("T")


def tell_last(results: Iterable[T], tell: Callable[[T, bool], object], path: Path | None = None) -> None:
    """Tell of the last of results, each of which has all that was measured until then.

    tell: gets it, and whether that is all that was to be measured.  path: where it writes it, if it does.
    Raises Interrupted after Ctrl-C, and whatever else ends the results early.
    """
    last: list[T] = []
    try:
        for result in results:
            last = [result]
    except BaseException as error:
        for result in last:
            tell(result, False)
        if isinstance(error, KeyboardInterrupt):
            where = f"above, and in {path}" if path else "above"
            raise Interrupted(
                f"interrupted; what was measured until then is {where}" if last else "interrupted"
            ) from None
        raise
    for result in last:
        tell(result, True)
