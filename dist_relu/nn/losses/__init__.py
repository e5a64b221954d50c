"""Losses: sums over samples, so that shards of any size add up to the mean of the whole batch."""
