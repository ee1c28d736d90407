"""Gossip: decentralised learning over a graph, in which every node is the server of its own run."""

from privfl.gossip.gossip import Gossip, GossipRound, NodeRun
from privfl.gossip.graph import GossipGraph
from privfl.gossip.rules import UBAR, Bridge, ClippedGossip, GossipMean, GossipRule, Screened
from privfl.gossip.scenario import GossipScenario
from privfl.gossip.state import GossipState, spread

__all__ = [
    "UBAR",
    "Bridge",
    "ClippedGossip",
    "Gossip",
    "GossipGraph",
    "GossipMean",
    "GossipRound",
    "GossipRule",
    "GossipScenario",
    "GossipState",
    "NodeRun",
    "Screened",
    "spread",
]
