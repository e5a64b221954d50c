"""How gradients meet: shared memory, barrier, ordered reduction."""
