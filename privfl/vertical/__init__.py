"""Vertical and split learning: parties with different columns of the same samples train one
network; what they read of each other, and what defends.
"""

from privfl.vertical.defences import Isotropic, LabelDefence, LabelResponse, MaxNorm, Undefended
from privfl.vertical.members import Guest, Host, VerticalTraining
from privfl.vertical.message import Batch
from privfl.vertical.networks import (
    SplitNetwork,
    VerticalLinear,
    VerticalMLP,
    VerticalModel,
    mean_loss,
    predicted,
)
from privfl.vertical.parties import GUEST, GuestParty, HostParty
from privfl.vertical.training import VerticalRun, train_vertically
from privfl.vertical.view import GuestView, HostView, Played

__all__ = [
    "GUEST",
    "Batch",
    "Guest",
    "GuestParty",
    "GuestView",
    "Host",
    "HostParty",
    "HostView",
    "Isotropic",
    "LabelDefence",
    "LabelResponse",
    "MaxNorm",
    "Played",
    "SplitNetwork",
    "Undefended",
    "VerticalLinear",
    "VerticalMLP",
    "VerticalModel",
    "VerticalRun",
    "VerticalTraining",
    "mean_loss",
    "predicted",
    "train_vertically",
]
