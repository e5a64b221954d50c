"""From the partial gradients of all shards to the whole one."""
