"""Data-parallel training of ReLU networks in NumPy, with the same bits on any number of workers."""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from dist_relu.core.launched import may_be_rank

__version__ = "0.1.0"

if TYPE_CHECKING:
    from dist_relu.public import *  # noqa: F403
    from dist_relu.public import __all__ as __all__


def __getattr__(name: str) -> Any:
    """Import the public names with the first of them: all that they stand on takes half a second, half of it Numba."""
    is_dunder = name.startswith("__") and name != "__all__"
    if not is_dunder and find_spec(f"{__name__}.{name}"):
        return import_module(f"{__name__}.{name}")
    public = None if is_dunder else import_module(f"{__name__}.public")
    if public is None or name not in ("__all__", *public.__all__):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(public, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})


if may_be_rank():
    import_module(f"{__name__}.public")  # a rank tells the others when it ends, even if it has used nothing of this
