"""Layers: one module a kind."""
