"""What to change against a leak, by rule from what the adversary sees, as keys of a config."""

from __future__ import annotations

from privfl.audit.assets import Asset
from privfl.audit.threats import ThreatModel
from privfl.core import Adversary

_HIDE = (
    "hide single updates: channel: secagg with bound: {name: clip, l2: 1.0}, or a robust channel"
    " such as two_server"
)
_GROUPS = "sum over more clients: raise channel.size, or channel: secagg over the whole cohort"
_NOISE = (
    "add noise that is accounted for: training.gradient: {name: dp} at the clients, or mechanism:"
    " distributed_discrete_gaussian under channel: secagg"
)
_MORE_NOISE = "claim a smaller epsilon: raise the noise, or play fewer rounds"
_CLIENT_NOISE = (
    "protect clients, not samples: bound: {name: clip}, mechanism: distributed_discrete_gaussian,"
    " unit: client"
)
_SHARED_KEY = (
    "let nobody hold the whole key: channel: secagg, or a channel whose key is shared among parties"
    " that do not collude"
)
_APART = "put the parties that collude here under different owners, or let more of them share keys"
_VOCABULARY = "train no embedding on clients' text: freeze it, or model.lora: 4; then add noise"


def remedy(asset: Asset, adversary: str, who: ThreatModel | None, claimed: bool) -> str:
    """The first thing to change so that this adversary does not get this asset.

    Args:
        claimed: whether some claim of differential privacy holds against it already.

    >>> remedy("membership", "server", ThreatModel("D", "sum"), claimed=True)
    'claim a smaller epsilon: raise the noise, or play fewer rounds'
    """
    if who is None:
        return _HIDE
    parties = Adversary.parse(adversary).parties
    if who.sees in ("rows", "rows without names"):
        if "key_holder" in parties:
            return _SHARED_KEY
        return _APART if len(parties) > 1 else _HIDE
    if who.sees == "rows of groups":
        return _GROUPS
    if asset == "text":
        return _VOCABULARY
    if asset in ("properties", "presence") and not claimed:
        return _CLIENT_NOISE
    return _MORE_NOISE if claimed else _NOISE
