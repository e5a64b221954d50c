"""Workers train step after step, and work on the rows of arrays."""
