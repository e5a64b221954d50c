"""Reading data sets."""

from dist_relu.data.dataset import Dataset, Split
from dist_relu.data.sources import load

__all__ = ["Dataset", "Split", "load"]
