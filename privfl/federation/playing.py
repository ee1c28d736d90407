"""The rounds of a run, until its last one, or until something ends it before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from privfl.config import AuditConfig
from privfl.core import BudgetSpent, NobodyLeft, RoundPlan, Transcript
from privfl.engine import Engine, RoundRecord, RunFolder, RunState, Scenario
from privfl.federation.diverged import not_finite
from privfl.federation.keeping import AUTO_KEEP_BYTES, kept, transcript_bytes
from privfl.federation.summary import record_of, stopped_early
from privfl.federation.tracking import Watch


@dataclass(frozen=True)
class RoundsPlayed:
    """The state after the last round, its plan (None: none was played), the transcripts that were
    kept by round, and in words what ended the run early.
    """

    state: RunState
    plan: RoundPlan | None
    transcripts: Mapping[int, Transcript]
    ended: str


def play_rounds(
    engine: Engine,
    scenario: Scenario,
    audit: AuditConfig,
    state: RunState,
    records: list[RoundRecord],
    folder: RunFolder | None,
    watch: Watch,
) -> RoundsPlayed:
    """Play what is left, add to ``records``, and write and tell each round.

    Raises:
        BudgetSpent: the run's first round would pass its budget.
    """
    transcripts: dict[int, Transcript] = {}
    plan: RoundPlan | None = None
    size, room, ended = transcript_bytes(scenario), AUTO_KEEP_BYTES, ""
    while state.round < scenario.rounds:
        if not_finite(state.parameters, state.round, scenario.rounds):
            break  # nobody trains from such a model; its summary says so
        ended = stopped_early(scenario, records)
        if ended:
            break
        keep = kept(audit.keep, state.round, size, room)
        try:
            played = engine.play(state, keep=keep, digests=folder is not None)
        except (BudgetSpent, NobodyLeft) as refused:
            if not records:
                raise
            ended = f"Ended before round {state.round + 1} of {scenario.rounds}: {refused}"
            break
        state, plan = played.state, played.transcript.plan
        if keep:
            transcripts[played.transcript.plan.number] = played.transcript
            room -= size
        record = record_of(scenario, audit, played.transcript, played.train_losses, state)
        records.append(record)
        if folder is not None:
            folder.add(record, state, played.transcript)
        watch.round(record)
    return RoundsPlayed(state, plan, transcripts, ended)
