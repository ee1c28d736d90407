"""Robust rules on shares: two servers that each see uniform noise, and a dealer that sees no
data.
"""

from privfl.hybrid.two_server.channel import TwoServer
from privfl.hybrid.two_server.parameters import Security
from privfl.hybrid.two_server.rules import Reveal
from privfl.hybrid.two_server.sign_channel import SignTwoServer

__all__ = ["Reveal", "Security", "SignTwoServer", "TwoServer"]
