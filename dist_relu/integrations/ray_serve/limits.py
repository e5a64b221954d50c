"""How much a server takes at a time: what strangers may ask for must be bounded."""

MOST_BYTES = 8 * 2**20
"""Of a body."""

MOST_QUEUED = 1000
"""Requests that wait for a replica; others are refused, with 503."""

MOST_CONNECTIONS = 2000
"""Of clients; others are refused, with 503."""
