"""Hybrid robust-private aggregators: a server that catches liars without reading anybody."""

from privfl.hybrid.bucketed_secagg import BucketedSecAgg
from privfl.hybrid.encrypted_cosine import EncryptedCosine

__all__ = ["BucketedSecAgg", "EncryptedCosine"]
