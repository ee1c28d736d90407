"""Vertical and split learning: parties with different columns of the same samples train one
network; what they read of each other, and what defends.
"""

from privfl.vertical.config import VerticalConfig, VerticalTask, vertical_config, vertical_task
from privfl.vertical.defences import Isotropic, LabelDefence, LabelResponse, MaxNorm, Undefended
from privfl.vertical.encrypted import EncryptedStep
from privfl.vertical.encrypted_training import (
    EncryptedRun,
    residuals_from,
    train_encrypted,
    train_in_the_clear,
)
from privfl.vertical.label_inference import by_completion, by_cosine, by_norm, by_spectrum, signed
from privfl.vertical.leakage import Leak, label_leaks
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
from privfl.vertical.report import VerticalReport, report_of
from privfl.vertical.sample_inference import Inversion, by_decoder, by_matching, sample_leaks
from privfl.vertical.scores import auc, told_by_batch
from privfl.vertical.training import VerticalRun, train_vertically
from privfl.vertical.view import GuestView, HostView, Played

__all__ = [
    "GUEST",
    "Batch",
    "EncryptedRun",
    "EncryptedStep",
    "Guest",
    "GuestParty",
    "GuestView",
    "Host",
    "HostParty",
    "HostView",
    "Inversion",
    "Isotropic",
    "LabelDefence",
    "LabelResponse",
    "Leak",
    "MaxNorm",
    "Played",
    "SplitNetwork",
    "Undefended",
    "VerticalConfig",
    "VerticalLinear",
    "VerticalMLP",
    "VerticalModel",
    "VerticalReport",
    "VerticalRun",
    "VerticalTask",
    "VerticalTraining",
    "auc",
    "by_completion",
    "by_cosine",
    "by_decoder",
    "by_matching",
    "by_norm",
    "by_spectrum",
    "label_leaks",
    "mean_loss",
    "predicted",
    "report_of",
    "residuals_from",
    "sample_leaks",
    "signed",
    "told_by_batch",
    "train_encrypted",
    "train_in_the_clear",
    "train_vertically",
    "vertical_config",
    "vertical_task",
]
