"""Reading data sets."""

from dist_relu.data.dataset import Dataset, Split
from dist_relu.data.sources import load, read_numpy

__all__ = ["Dataset", "Split", "load", "read_numpy"]
