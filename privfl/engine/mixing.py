"""FedAsync's mixing: the server's half of an update that came alone."""

from __future__ import annotations

from collections.abc import Mapping

from privfl.core import Released
from privfl.dp.pipeline import post_processed
from privfl.engine.order import Order


def mixed(order: Order, released: Mapping[str, Released]) -> Mapping[str, Released]:
    """What the server applies: where the pace mixes, s (w_tau + delta - w) in the place of
    s delta, so that w becomes (1 - a) w + a w_new with a = s(tau) times the server's rate (Xie,
    Koyejo, Gupta 2019, algorithm 1). Both models were released, so this costs nothing more.
    """
    if not order.scenario.pace.mixing:
        return released
    (client,) = order.plan.cohort
    back = (order.base_of(client).parameters - order.base.parameters) * order.scale(client)
    delta = released["delta"]
    return {**released, "delta": post_processed(delta, delta.vector + back)}
