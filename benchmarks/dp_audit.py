"""The audit of privacy claims: planted lies that it finds, alarms at honest runs, seconds."""

from __future__ import annotations

import time
from collections.abc import Iterable

from benchmarks.dp_lies import CONV, HARDER, HONEST, LIES, SGD, Lie, run
from benchmarks.dp_lies_narrow import NARROW
from benchmarks.harness import Case, Row, cost, gain, main, say
from privfl.audit import Settings, audit_claims

HONEST_RUNS = 200
THOROUGH = Settings(canaries=0)
QUICK = Settings(canaries=0, pairs=4, climb=0, values=4_000, inclusions=600)


def _told(lies: Iterable[tuple[str, Lie]]) -> Iterable[tuple[str, bool, float]]:
    for name, lie in lies:
        began = time.process_time()
        with lie() as federation:
            claims = audit_claims(federation, settings=THOROUGH)
        alarms = [alarm for claim in claims for alarm in claim.alarms]
        seconds = time.process_time() - began
        words = f"{alarms[0].name}: {alarms[0].seen}" if alarms else "NOT FOUND"
        say(f"  {name}: {words} ({seconds:.1f} s)")
        yield name, bool(alarms), seconds


def lies(quick: bool) -> Iterable[Row]:
    """The fifteen lies, those that need many values, and those that are told to a few clients,
    rounds or coordinates; seconds of CPU of each.
    """
    for case, planted in (("lies", LIES), ("harder lies", HARDER), ("narrow lies", NARROW)):
        told = list(_told(planted.items()))
        found = sum(seen for _, seen, _ in told)
        yield gain(case, "planted", "found", found, len(told), 1.0)
        for name, _, seconds in told:
            yield cost(name, "60 s", "CPU s", seconds, 60.0, 1.0)


def honest(quick: bool) -> Iterable[Row]:
    """Honest runs of every kind, under seeds of their own: alarms at level 1e-6."""
    kinds = {**HONEST, "DP-SGD": SGD, "DP-SGD through convolutions": CONV}
    runs, alarms, seconds = HONEST_RUNS // (10 if quick else 1), 0, 0.0
    for number in range(runs):
        name = list(kinds)[number % len(kinds)]
        began = time.process_time()
        with run(**kinds[name], seed=number) as federation:
            claims = audit_claims(federation, settings=QUICK)
        seconds += time.process_time() - began
        for claim in claims:
            alarms += bool(claim.alarms)
            for alarm in claim.alarms:
                say(f"  {name}, seed {number}: {alarm.name}: {alarm.seen}")
    yield gain("honest runs", "all of them", "not refuted", runs - alarms, runs, 1.0)
    yield cost("honest runs", "60 s", "CPU s of one", seconds / runs, 60.0)


CASES: dict[str, Case] = {"lies": lies, "honest": honest}

if __name__ == "__main__":
    main("dp_audit", CASES)
