"""Gradients that take fewer bytes between groups of shards, and what that does to training."""

from dist_relu.compression.compression import Compression
from dist_relu.compression.power_sgd import PowerSGD
from dist_relu.compression.rounding import Rounded
from dist_relu.compression.top_k import TopK

__all__ = ["Compression", "PowerSGD", "Rounded", "TopK"]
