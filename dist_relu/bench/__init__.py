"""Benchmarks that compare side by side in one run, since machines are shared and noisy."""
