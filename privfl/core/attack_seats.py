"""Which seats an attack declares."""

from __future__ import annotations

from typing import Any, TypeGuard

from privfl.core.attack import (
    AnswerPoison,
    Attack,
    BoundPoison,
    BroadcastPoison,
    CountsItself,
    DataPoison,
    Divided,
    Measured,
    MeasuredByClient,
    PartyPoison,
    RememberingPoison,
    TrainingPoison,
    UpdatePoison,
)
from privfl.core.local import Objective


def poisons_data(attack: Attack) -> TypeGuard[DataPoison]:
    """Whether an attack declares the seat at its clients' data."""
    return "data" in attack.seats


def bends_loss(attack: Attack) -> TypeGuard[Objective]:
    """Whether an attack declares the loss seat of its clients' training."""
    return "loss" in attack.seats


def poisons_training(attack: Attack) -> TypeGuard[TrainingPoison]:
    """Whether an attack declares that its clients train its own way."""
    return "training" in attack.seats


def poisons_bounded(attack: Attack) -> TypeGuard[BoundPoison]:
    """Whether an attack declares that it hands its parties something else than what is bounded."""
    return "wire" in attack.seats


def poisons_party(attack: Attack) -> TypeGuard[PartyPoison]:
    """Whether an attack declares that its parties run its own code."""
    return "party" in attack.seats


def poisons_broadcast(attack: Attack) -> TypeGuard[BroadcastPoison]:
    """Whether an attack declares that its clients are sent another model."""
    return "broadcast" in attack.seats


def poisons_answers(attack: Attack) -> TypeGuard[AnswerPoison]:
    """Whether an attack declares that its clients lie where a defence asks them."""
    return "answer" in attack.seats


def poisons_updates(attack: Attack) -> TypeGuard[UpdatePoison]:
    """Whether an attack declares the update seat, without a memory."""
    return "update" in attack.seats and not attack.remembers


def poisons_and_remembers(attack: Attack) -> TypeGuard[RememberingPoison[Any]]:
    """Whether an attack declares the update seat, with a memory."""
    return "update" in attack.seats and attack.remembers


def is_measured(attack: Attack) -> TypeGuard[Measured]:
    """Whether an attack declares that it measures its own success."""
    return attack.measured


def is_measured_by_client(attack: Attack) -> TypeGuard[MeasuredByClient]:
    """Whether an attack declares that its success hangs on what a client holds or has learnt."""
    return attack.by_client


def is_divided(attack: Attack) -> TypeGuard[Divided]:
    """Whether an attack declares that its clients do different parts of it."""
    return attack.divided


def counts_itself(attack: Attack) -> TypeGuard[CountsItself]:
    """Whether an attack declares that it works for some numbers of attackers only."""
    return attack.counts
