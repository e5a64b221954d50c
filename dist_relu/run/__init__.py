"""A run as a thing that one can hold: go on, stop, validate, save, resume, reproduce."""
