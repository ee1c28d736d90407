"""What liars of a graph send: another row to each neighbour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from privfl.core import (
    ClientId,
    ConfigError,
    Knows,
    RoundKnowledge,
    RoundPlan,
    Rows,
    Seeds,
    Vector,
    poisons_updates,
)
from privfl.engine import Attacker
from privfl.gossip.graph import GossipGraph

LADDER: tuple[Knows, ...] = ("nothing", "own", "benign", "rule")


def refuse_knowledge(attacker: Attacker, known: Knows) -> None:
    """Refuse an attack that needs more than it may know.

    Raises:
        ConfigError: it does, or it needs a server's rule to try its rows on.
    """
    needs = attacker.attack.knows
    if needs == "rule":
        raise ConfigError(
            f"attack '{attacker.name}' tries its rows on a server's rule, and there is none in a"
            " graph: use dissensus, alie, ipm, min_max or another that knows honest rows."
        )
    if LADDER.index(needs) > LADDER.index(known):
        raise ConfigError(
            f"attack '{attacker.name}' needs to know more ({needs}) than attackers_know: {known}."
        )


def rows_for(
    attacker: Attacker,
    number: int,
    plan: RoundPlan,
    graph: GossipGraph,
    receiver: int,
    models: Float[Tensor, "n d"],
    there: Sequence[ClientId],
    honest: Sequence[ClientId],
    seeds: Seeds,
) -> Mapping[ClientId, Vector]:
    """What an attacker's nodes beside one receiver want it to hold of them, each a model [d] minus
    the receiver's, in float64. The receiver's coordinates are the origin, weights are the graph's.

    Args:
        attacker: whose rows.
        number: the attacker's place among those of the run.
        plan: of the receiver's run.
        graph: who speaks with whom.
        receiver: the node that will read the rows, alone or in a sum.
        models: what all nodes have trained in this round.
        there: the receiver's neighbours that send.
        honest: those of them through which no attacker acts.
        seeds: where chance comes from.

    Raises:
        ConfigError: the attack cannot work in this neighbourhood.
    """
    mine = attacker.acting(there, plan.number)
    attack = attacker.attack
    if not mine or not poisons_updates(attack):
        return {}
    weights = graph.weights[receiver].float()
    benign = None
    if LADDER.index(attack.knows) >= LADDER.index("benign") and honest:
        values = (models[list(honest)] - models[receiver]).float()
        benign = Rows(values, weights[list(honest)], tuple(honest))
    made: dict[ClientId, Vector] = {}
    for team in attacker.teams(mine):
        own = (models[list(team)] - models[receiver]).float()
        knowledge = RoundKnowledge(
            plan,
            models[receiver].float(),
            benign=benign,
            weights=weights[list(team)],
            total=1.0,
        )
        rng = seeds.generator(
            "attack", plan.number, number, receiver, *(() if attacker.colluding else team)
        )
        rows = attack.poison_updates(own, knowledge, rng)
        made |= {node: row.double() for node, row in zip(team, rows, strict=True)}
    return made
