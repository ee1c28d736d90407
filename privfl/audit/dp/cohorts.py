"""A run's cohorts drawn again by its own planner, against what is charged for them."""

from __future__ import annotations

from privfl.audit.dp.dependence import dependence_tests
from privfl.audit.dp.evidence import Test
from privfl.audit.dp.play import Stage
from privfl.audit.dp.replay import (
    draws_for,
    in_turns,
    inclusion_tests,
    participation_test,
    source_test,
)
from privfl.audit.dp.tape import Tape
from privfl.core import Charge, ClientId, Seeds
from privfl.engine import Scenario


def cohort_tests(scenario: Scenario, stage: Stage, charge: Charge, inclusions: int) -> list[Test]:
    """Cohorts drawn again, under other seeds, against what is charged."""
    draws, tape = draws_for(len(scenario.clients), inclusions), Tape("drawn")
    runs: list[list[tuple[ClientId, ...]]] = []
    for start in range(0, draws, scenario.rounds):
        seed = Seeds(scenario.seed).derive("replay", start)
        runs.append(stage.draw(min(scenario.rounds, draws - start), seed, tape))
    noise = scenario.run_noise
    if noise is None:
        tests = inclusion_tests([one for run in runs for one in run], charge.sampling, "client")
        tests += dependence_tests(runs, charge.sampling, "client")
    else:
        allowed = noise.participation
        turns = in_turns(runs, allowed.apart) if charge.cohort_hidden else []
        sampled = inclusion_tests(turns, charge.sampling, "client") if turns else []
        tests = [*sampled, participation_test(runs, allowed, "client")]
    sampled_secretly = any(test.p is not None for test in tests)
    return [*tests, *source_test(sampled_secretly, charge.coins, tape.asked, "client")]
