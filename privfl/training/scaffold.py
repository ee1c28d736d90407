"""SCAFFOLD (Karimireddy, Kale, Mohri, Reddi, Stich, Suresh 2020): control variates against the
drift of unlike clients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from privfl.core import Broadcast, ClientState, ConfigError, Vector, Weighting
from privfl.training.method import State
from privfl.training.sgd import LocalSGD


@dataclass(frozen=True)
class Scaffold(LocalSGD):
    """Local steps along g - c_i + c, where c_i is what the client remembers of its gradients and c
    the mean of all of these.

    Algorithm 1 with option II: c_i becomes c_i - c + (x - y) / (K lr) after K steps from x to y.
    Each update carries the change of c_i as the extra vector ``control`` [d], and the server adds
    |S| / N times its aggregate to c. Weights are uniform, as in the paper.

    S are the clients whose change the server applied, and the c_i of no other client moves (lines
    13 to 17), so that c stays the mean of all c_i: exactly under the mean in the clear, but for
    rounding and noise elsewhere, and not under a robust rule, which leaves changes out of c. A
    client cannot see whether it is in S. Training leaves its c_i as it was; `arrived` adds the
    change, as it was bounded and sent, once the server has told the client. A server that lies
    about it harms the training, and learns nothing by it.

    Raises:
        ConfigError: momentum or prox, with which (x - y) / (K lr) is no mean of gradients.

    >>> Scaffold().parts(10)
    {'control': 10}
    """

    weighting: Weighting = "uniform"

    def __post_init__(self) -> None:
        LocalSGD.__post_init__(self)
        if self.momentum or self.prox:
            raise ConfigError(
                "scaffold reads mean gradients off the way travelled, which momentum and prox bend:"
                " set both to 0."
            )

    def parts(self, d: int) -> Mapping[str, int]:
        """The change of the client's control variate."""
        return {"control": d}

    def init(self, d: int) -> State:
        """C = 0."""
        return {"control": torch.zeros(d)}

    def broadcast(self, state: State) -> Mapping[str, Vector]:
        """The server's control variate c."""
        return {"control": state["control"]}

    def combine(
        self, aggregate: Vector, aux: Mapping[str, Vector], state: State, cohort_fraction: float
    ) -> tuple[Vector, State]:
        """The aggregate itself; c moves by |S| / N times the aggregated change of the clients in
        S.
        """
        control = state["control"]
        return aggregate, {
            "control": control.add(aux["control"].to(control.device), alpha=cohort_fraction)
        }

    def correction(self, broadcast: Broadcast, state: ClientState) -> Vector | None:
        """The vector c - c_i."""
        own, control = state.vectors.get("control"), _control(broadcast)
        return control if own is None else control - own.to(control.device)

    def hand_out(
        self, delta: Vector, broadcast: Broadcast, state: ClientState, steps: int
    ) -> tuple[Mapping[str, Vector], ClientState]:
        """The change of c_i; c_i waits for `arrived`."""
        change = delta / (-steps * self.rate(broadcast.version)) - _control(broadcast)
        return {"control": change}, state

    def arrived(self, state: ClientState, sent: Mapping[str, Vector]) -> ClientState:
        """The new c_i, where the change of it got through."""
        if "control" not in sent:
            return state
        change, own = sent["control"], state.vectors.get("control")
        after = change.clone() if own is None else own.to(change.device) + change
        return ClientState({**state.vectors, "control": after})


def _control(broadcast: Broadcast) -> Vector:
    if "control" not in broadcast.aux:
        raise ConfigError(
            "scaffold needs the server's control variate in the broadcast: send"
            " ServerHalf.broadcast(state) as its aux."
        )
    return broadcast.aux["control"].to(broadcast.parameters.device)
