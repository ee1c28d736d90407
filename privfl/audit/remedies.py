"""What to change against a leak, by rule from what the adversary sees, as keys of a config."""

from __future__ import annotations

from privfl.audit.assets import Asset
from privfl.audit.threats import ThreatModel
from privfl.core import Adversary

_HIDE = "hide single updates, as channel: secagg does (with bound: clip)"
_GROUPS = "sum over more clients: raise channel.size, or channel: secagg over the cohort"
_NOISE = (
    "add noise: training.gradient: dp (which takes no BatchNorm), or mechanism:"
    " distributed_discrete_gaussian"
)
_MORE_NOISE = "claim a smaller epsilon: more noise, or fewer rounds"
_CLIENT_NOISE = "add noise that protects clients: mechanism: distributed_discrete_gaussian"
_SHARED_KEY = "let nobody hold the whole key: channel: secagg"
_APART = "keep these parties apart, or let more of them share the secret"
_SAME = "sum over the same clients in every round (sampler: all)"
_VOCABULARY = "train no embedding on clients' text (model.lora: 4), then add noise"


def remedy(
    asset: Asset, adversary: str, who: ThreatModel | None, claimed: bool, *, over: bool = False
) -> str:
    """The first thing to change so that this adversary does not get this asset.

    Args:
        claimed: whether some claim of differential privacy holds against it already.
        over: whether sums over different clients were solved for it.

    >>> remedy("membership", "server", ThreatModel("D", "sum"), claimed=True)
    'claim a smaller epsilon: more noise, or fewer rounds'
    >>> remedy("samples", "server", ThreatModel("A", "rows"), claimed=False)
    'hide single updates, as channel: secagg does (with bound: clip)'
    >>> remedy("samples", "server", ThreatModel("A", "sum"), claimed=False, over=True)[:61]
    'sum over the same clients in every round (sampler: all), then'
    """
    of_clients = asset in ("properties", "presence", "representatives")
    noise = _CLIENT_NOISE if of_clients else _NOISE
    hide = _HIDE if asset in ("samples", "text") else f"{_HIDE}; a sum still tells, so then {noise}"
    if who is None:
        return hide
    parties = Adversary.parse(adversary).parties
    if asset == "representatives":  # they are made of released models, whatever else is seen
        return _MORE_NOISE if claimed else noise
    if who.sees in ("rows", "rows without names"):
        if "key_holder" in parties:
            return _SHARED_KEY
        return _APART if len(parties) > 1 else hide
    if who.sees == "rows of groups":
        return _GROUPS
    if asset == "text":
        return _VOCABULARY
    if over and not claimed:
        return f"{_SAME}, then {noise}"
    return _MORE_NOISE if claimed else noise
