"""Compiled loops on arrays: no classes, no policy, no I/O.

Kernels check nothing: shapes, dtypes and memory are the callers' business.
"""

from dist_relu.core.kernel_cache import leave_unsafe_folder

leave_unsafe_folder()  # before any is loaded
