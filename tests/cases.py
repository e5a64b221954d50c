"""Cases of a test that are left to `make test-long`."""

from __future__ import annotations

from typing import Any

import pytest


def long(*cases: Any) -> list[Any]:
    """Values for `pytest.mark.parametrize`, each a tuple where a test takes several at once."""
    return _marked(pytest.mark.long, cases)


def chaos(*cases: Any) -> list[Any]:
    """The same, for what is disturbed by the hundred: `make test-long LONG="long and not chaos"` leaves it out."""
    return _marked(pytest.mark.chaos, cases)


def _marked(mark: pytest.MarkDecorator, cases: tuple[Any, ...]) -> list[Any]:
    return [pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=mark) for case in cases]
