"""Reduction makes the whole gradient of the partial ones of all shards."""
