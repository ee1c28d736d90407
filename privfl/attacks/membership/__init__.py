"""Membership inference: whether a sample was trained on, and by whom."""

from privfl.attacks.membership.ascent import rehearsed_gamma
from privfl.attacks.membership.fedmia import FedMIA
from privfl.attacks.membership.loss import LossThreshold
from privfl.attacks.membership.presence import ClientPresence
from privfl.attacks.membership.shadows import ShadowMembership
from privfl.attacks.membership.source_inference import SourceInference, SubjectMembership
from privfl.attacks.membership.update_stream import UpdateMembership
from privfl.attacks.membership.white_box import GradientAscent, WhiteBoxMembership

__all__ = [
    "ClientPresence",
    "FedMIA",
    "GradientAscent",
    "LossThreshold",
    "ShadowMembership",
    "SourceInference",
    "SubjectMembership",
    "UpdateMembership",
    "WhiteBoxMembership",
    "rehearsed_gamma",
]
