"""The round engine: sample, train, bound, send, open, aggregate, record."""
