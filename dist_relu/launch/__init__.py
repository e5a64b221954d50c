"""MPI jobs that are started again when a rank has died: `dist-relu launch`."""
