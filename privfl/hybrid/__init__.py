"""Hybrid robust-private aggregators: a server that catches Byzantine clients without reading
anybody.
"""

from privfl.hybrid.bucketed_secagg import BucketedSecAgg
from privfl.hybrid.encrypted_cosine import EncryptedCosine
from privfl.hybrid.two_server import SignTwoServer, TwoServer

__all__ = ["BucketedSecAgg", "EncryptedCosine", "SignTwoServer", "TwoServer"]
