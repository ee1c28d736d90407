"""Membership inference: whether a sample was trained on, and by whom."""

from privfl.attacks.membership.loss import LossThreshold
from privfl.attacks.membership.shadows import ShadowMembership
from privfl.attacks.membership.update_stream import UpdateMembership

__all__ = ["LossThreshold", "ShadowMembership", "UpdateMembership"]
