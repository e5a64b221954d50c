"""Workers as the ranks of an MPI job."""
