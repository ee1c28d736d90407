"""What is refused of a run that is not synchronous."""

from __future__ import annotations

from privfl.core import BUFFERS, ConfigError
from privfl.engine.compatibility import check_declared, name_of
from privfl.engine.samplers import All
from privfl.engine.scenario import Scenario


def check_pace(scenario: Scenario) -> None:
    """Refuse what a pace cannot have, and what makes no sense where everybody starts from another
    model.

    Raises:
        ConfigError: it does.
    """
    pace = scenario.pace
    check_declared(pace, "pace", "synchronous", "arrivals", "scale", "participation", "k", "mixing")
    pace.check(tuple(scenario.clients), scenario.rounds)
    if pace.synchronous:
        return
    if scenario.elsewhere:
        raise ConfigError(
            f"pace '{name_of(pace)}' is played in simulated time, and these clients are on machines"
            " of their own: leave pace out."
        )
    if not isinstance(scenario.sampler, All):
        raise ConfigError(
            f"under pace '{name_of(pace)}' who takes part is who is ready, and the sampler"
            f" {name_of(scenario.sampler)} would claim that it draws them: arrival is no sampling."
            " Leave sampler out."
        )
    if scenario.threat.sees_cohort is False:
        raise ConfigError(
            f"threat.sees_cohort is false, and under pace '{name_of(pace)}' who takes part hangs on"
            " how long clients take, which others can see: leave sees_cohort out."
        )
    if scenario.channel.able.carries:
        raise ConfigError(
            f"{name_of(scenario.channel)} carries keys of the next round to the cohort of this one,"
            f" and under pace '{name_of(pace)}' another one comes: leave carry out."
        )
    parts = scenario.workload.method.parts(scenario.workload.model.d)
    if BUFFERS in parts:
        raise ConfigError(
            "the network has running statistics, which are averaged over rounds in which everybody"
            f" starts from one model: under pace '{name_of(pace)}' set training.buffers to local or"
            " frozen."
        )
    if parts:
        raise ConfigError(
            f"{name_of(scenario.workload.method)} also sends {', '.join(parts)}, which is made for"
            f" rounds in which everybody starts from one model: under pace '{name_of(pace)}' use"
            " sgd or fedprox."
        )
    if pace.mixing and scenario.channel.kind.opens != "rows":
        raise ConfigError(
            "pace.mixing draws the model towards a single client's, which the server must read, and"
            f" {name_of(scenario.channel)} opens sums alone: use the plain channel, or a buffer of"
            " several."
        )
    denominator = scenario.aggregator.public_denominator
    if pace.mixing and denominator not in (None, 1):
        raise ConfigError(
            f"pace.mixing takes a whole client's row, and {name_of(scenario.aggregator)} divides"
            f" it by {denominator:g}: leave it at 1."
        )
