"""What clients train on where a run has data seats: encodings of their own samples."""

from __future__ import annotations

from dataclasses import replace

from privfl.core import CPU, CoinSource, ConfigError, is_private
from privfl.engine.compatibility import check_declared, name_of
from privfl.engine.scenario import Scenario
from privfl.training import Task


def encoded(task: Task, scenario: Scenario, seeds: CoinSource, round: int) -> Task:
    """A client's training on what the data seats make of its samples in a round, one seat after the
    other; the same training where there are none. The coins hang on the seed, the round, the client
    and the seat alone, so a round that is played again has the same encodings.

    Raises:
        ConfigError: samples that a seat cannot encode.
    """
    if not scenario.data_seats:
        return task
    data = task.data or scenario.workload.data
    if task.index is not None:
        data = data.take(task.index)
    data = data.to(CPU)  # where the coins are; training moves what comes of them
    for position, seat in enumerate(scenario.data_seats):
        rng = seeds.generator("data seat", round, task.client, position)
        data = seat.encode(data, rng)
    return replace(task, data=data, index=None)


def seat_facts(scenario: Scenario) -> dict[str, str]:
    """What reports say of a run's data seats: that they promise nothing, and what breaks them."""
    said = [
        f"{name_of(seat)}, no guarantee: broken by {', '.join(seat.broken_by)}"
        for seat in scenario.data_seats
    ]
    return {"data seats": "; ".join(said)} if said else {}


def check_data_seats(scenario: Scenario) -> None:
    """Refuse data seats that name no attack which breaks them, that mix samples beside private
    training, or that cannot encode what a client holds.

    Raises:
        ConfigError: they are.
    """
    for seat in scenario.data_seats:
        check_declared(seat, "data seat", "broken_by", "alone", "fits", "encode", "maps")
        if not seat.broken_by:
            raise ConfigError(
                f"{name_of(seat)} names no attack that breaks it, and nobody has proved a data seat"
                " to hold: let broken_by name the attack of the catalogue to measure it by."
            )
        if not seat.alone and is_private(scenario.workload.method.gradient):
            raise ConfigError(
                f"{name_of(seat)} mixes samples, so one sample moves the gradients of several"
                " encodings, and private training (training.gradient) charges for one each: leave"
                " one of the two out, or claim privacy for clients (mechanism)."
            )
    for client, index in scenario.clients.items():
        if scenario.data_seats and len(index):
            _check_fit(scenario, client)


def _check_fit(scenario: Scenario, client: int) -> None:
    data = scenario.workload.data.take(scenario.clients[client]).to(CPU)
    for position, seat in enumerate(scenario.data_seats):
        try:
            seat.fits(data)
            if position + 1 < len(scenario.data_seats):
                rng = scenario.seeds.generator("data seat", 0, client, position)
                data = seat.encode(data, rng)
        except ConfigError as reason:
            raise ConfigError(f"data_seats, client {client}: {reason}") from None
