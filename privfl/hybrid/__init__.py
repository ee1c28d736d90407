"""Hybrid robust-private aggregators: a server that catches liars without reading anybody."""

__all__: list[str] = []
