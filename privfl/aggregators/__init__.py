"""Rules that make one update of many, and the defences around them."""

from privfl.aggregators.mean import Mean

__all__ = ["Mean"]
