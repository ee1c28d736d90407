"""Secure aggregation in random groups, under a robust rule over the group means."""

from privfl.hybrid.bucketed_secagg.channel import BucketedSecAgg

__all__ = ["BucketedSecAgg"]
