"""Hybrid robust-private aggregators: a server that catches liars without reading anybody."""

from privfl.hybrid.bucketed_secagg import BucketedSecAgg

__all__ = ["BucketedSecAgg"]
