"""Encrypted similarity: clients are weighed by how they point, and nobody reads where they
point.
"""

from privfl.hybrid.encrypted_cosine.channel import EncryptedCosine
from privfl.hybrid.encrypted_cosine.parameters import previous_aggregate

__all__ = ["EncryptedCosine", "previous_aggregate"]
