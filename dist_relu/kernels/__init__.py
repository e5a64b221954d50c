"""Compiled loops on arrays: no classes, no policy, no I/O.

Kernels check nothing: shapes, dtypes and memory are the callers' business.
"""
