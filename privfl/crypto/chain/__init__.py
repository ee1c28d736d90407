"""A chain of clients as a channel: each adds its vector to what its neighbour passed on."""

from privfl.crypto.chain.channel import Chain

__all__ = ["Chain"]
