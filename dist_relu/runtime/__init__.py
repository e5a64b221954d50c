"""Processes, and what they share: workers, the backends that start them, arrays that every node has."""
