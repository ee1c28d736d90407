"""What the rules on the rows' covariance share. Its eigenvectors lie in the rows' span, so all is
done on the Gram matrix.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def about(inner: Float[Tensor, "n n"], weights: Float[Tensor, " n"]) -> Float[Tensor, "n n"]:
    """Inner products about the point with coefficients ``weights`` (which sum to 1)."""
    towards = inner @ weights
    return inner - towards[:, None] - towards + weights @ towards
