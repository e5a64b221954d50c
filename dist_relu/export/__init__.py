"""Models as programs of their own: Python modules that need NumPy alone."""

from dist_relu.export.numpy_module import numpy_function, numpy_source

__all__ = ["numpy_function", "numpy_source"]
