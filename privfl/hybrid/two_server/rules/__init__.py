"""The rules that two servers run on shares: each file holds all of one."""

from privfl.hybrid.two_server.rules.cosine import CosineOnShares
from privfl.hybrid.two_server.rules.fltrust import FLTrustOnShares
from privfl.hybrid.two_server.rules.krum import KrumOnShares
from privfl.hybrid.two_server.rules.mean import MeanOnShares
from privfl.hybrid.two_server.rules.rule import Reveal, SharedRule
from privfl.hybrid.two_server.rules.signs import SignsOnShares

__all__ = [
    "CosineOnShares",
    "FLTrustOnShares",
    "KrumOnShares",
    "MeanOnShares",
    "Reveal",
    "SharedRule",
    "SignsOnShares",
]
