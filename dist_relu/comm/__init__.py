"""Bytes between processes: shared memory, barriers, channels between nodes and the exchange over them."""
