"""What is refused of a run whose clients send more than a change of parameters."""

from __future__ import annotations

from privfl.core import ConfigError, Oracle
from privfl.engine.compatibility import name_of
from privfl.engine.scenario import Scenario

_EVALUATES = {
    Oracle.LOSS,
    Oracle.ACCURACY,
    Oracle.LOSSES,
    Oracle.VOTES,
    Oracle.ERRORS,
    Oracle.ACTIVATIONS,
    Oracle.FEATURES,
}
"""What asks for the output of a model of which only the parameters are given."""


def check_extra(scenario: Scenario) -> None:
    """Refuse what has no answer for running statistics, or for vectors of other lengths than d.

    Raises:
        ConfigError: the scenario has such a part.
    """
    _evaluable(scenario)
    _comparable(scenario)


def _evaluable(scenario: Scenario) -> None:
    """Refuse what evaluates models that have no running statistics to be evaluated with: a
    candidate of a rule is a vector of parameters.
    """
    if not scenario.workload.model.s:
        return
    hosted = scenario.channel.able.hosts
    rules = (scenario.aggregator, *(() if hosted is None else (hosted,)), *scenario.defences)
    for part in (*rules, scenario.bound):
        for oracle in part.needs.values():
            if oracle in _EVALUATES:
                raise ConfigError(
                    f"{name_of(part)} evaluates models that it makes of parameters"
                    f" ({oracle.value}), and this network also has running statistics, which such"
                    " a model lacks: use GroupNorm, or another rule."
                )


def _comparable(scenario: Scenario) -> None:
    """Refuse a rule that holds each row against what data of the server's or the clients' make of
    the model, where the method also sends rows that are no change of it: they have another length,
    or, as a control variate, another sense (it points away from the change that it comes with).
    """
    other = list(scenario.workload.method.parts(scenario.workload.model.d))
    for rule in (scenario.aggregator, scenario.channel.able.hosts):
        for oracle in () if rule is None or not other else rule.needs.values():
            if oracle is Oracle.ROOT or oracle in _EVALUATES:
                raise ConfigError(
                    f"{name_of(rule)} holds each row against the server's or clients' own data"
                    f" ({oracle.value}), and the method also sends '{other[0]}', which is no change"
                    " of parameters that could be: train without extra vectors (training sgd;"
                    " training.buffers: local or frozen), or use another rule."
                )
