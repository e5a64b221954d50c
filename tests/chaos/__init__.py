"""Trainings that are disturbed on purpose, and what is to be seen of it: python -m tests.chaos."""
