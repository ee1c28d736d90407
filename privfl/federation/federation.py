"""Federated training from a config or from objects, round by round."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from privfl import assembly
from privfl.aggregators import Mean
from privfl.assembly.refusals import refuse_device
from privfl.config import AuditConfig, Config, load
from privfl.core import (
    Bound,
    Buffers,
    Channel,
    ClientDataSeat,
    Defence,
    Faults,
    FlatModel,
    Knows,
    Ledger,
    Loss,
    Mechanism,
    NeighbourRelation,
    NoiseSource,
    OsNoise,
    Rule,
    RuleWithMemory,
    Threat,
    UserBounds,
    WithMemory,
)
from privfl.crypto import Plain
from privfl.data import Samples, dataset_of
from privfl.dp import NoBound
from privfl.engine import (
    All,
    Attacker,
    Budget,
    EarlyStopping,
    Engine,
    MailMode,
    Metric,
    Pace,
    RoundRecord,
    RunFolder,
    RunState,
    Sampler,
    Scenario,
    Synchronous,
    check_scenario,
    facts_in,
    fingerprint,
    packages_of,
)
from privfl.engine.carrier import Carrier
from privfl.federation.clients import numbered, refuse_samples, refuse_taken, taken_before
from privfl.federation.folder import leave, opened
from privfl.federation.playing import play_rounds
from privfl.federation.public import claims_privacy
from privfl.federation.refusals import refuse_budget, refuse_delta
from privfl.federation.run import Run
from privfl.federation.start import begun, start_of
from privfl.federation.summary import facts_of, summary_of
from privfl.federation.threads import refuse_threads, torch_threads
from privfl.federation.tracking import Progress, Tracker, Watch
from privfl.training import (
    Executor,
    FedAvg,
    LocalSGD,
    Method,
    ServerOptimizer,
    Workload,
    cross_entropy,
    executors,
)


class Federation:
    """Federated training of one model by many clients, under the privacy layers and attacks that it
    is given.

    Args:
        model: any torch module, which is trained in place. A run starts from what it holds when the
            federation is made, also where others are made of it; what is written into it later
            reaches the one made or run last.
        clients: each client's data, by id or as a list: features and labels as a pair of arrays,
            torch data sets or loaders (which are read once, to disk, and from there in each round),
            or data sets of `core`.
        test: data for evaluation.
        training: what a client does with the model in a round.
        loss: of a batch; cross-entropy unless said.
        buffers: what becomes of BatchNorm's running statistics (`training.WithStatistics`);
            "averaged" beside a ``bound`` wants one of its own, ``part_bounds={"buffers": 20.0}``.
        start: "public" where the model holds nothing of these clients; else all that was charged
            for it, a ledger, its file, or the folder of the run that made it, which this run goes
            on with. None: nothing is known, and statements say so.
        validation: samples of no client, on which rounds are measured in the place of the test set.
        metrics: further figures of each measured round's model, by name.

    The other arguments are the parts of `engine.Scenario`.

    Raises:
        ConfigError: parts that do not go together, said before any training.

    >>> from privfl.data import load
    >>> digits = load("digits")
    >>> parts = [digits.train.take(range(i, 1000, 4)) for i in range(4)]
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    >>> Federation(model, parts, digits.test, rounds=3, executor="sequential").run().accuracy > 0.7
    True
    """

    def __init__(
        self,
        model: nn.Module,
        clients: Mapping[Any, Samples] | Sequence[Samples],
        test: Samples,
        *,
        rounds: int = 20,
        training: Method | None = None,
        loss: Loss = cross_entropy,
        buffers: Buffers | None = None,
        sampler: Sampler | None = None,
        pace: Pace | None = None,
        bound: Bound | None = None,
        part_bounds: Mapping[str, float] | None = None,
        channel: Channel[Any] | None = None,
        aggregator: Rule[Any] | RuleWithMemory[Any, Any] | None = None,
        defences: Sequence[Defence] = (),
        data_seats: Sequence[ClientDataSeat] = (),
        mechanism: Mechanism | WithMemory | None = None,
        attackers: Sequence[Attacker] = (),
        attackers_know: Knows = "rule",
        mail: MailMode = "bare",
        relation: NeighbourRelation | None = None,
        threat: Threat | None = None,
        start: Literal["public"] | Ledger | Path | str | None = None,
        budget: Budget | None = None,
        users: UserBounds | None = None,
        server_optimizer: ServerOptimizer | None = None,
        seed: int = 0,
        repeatable: bool = False,
        noise: NoiseSource | None = None,
        executor: str = "auto",
        audit: AuditConfig | None = None,
        early_stopping: EarlyStopping | None = None,
        validation: Samples | None = None,
        metrics: Mapping[str, Metric] | None = None,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        refuse_device(device)
        data, positions, named = numbered(clients)
        scenario = Scenario(
            workload=Workload(
                FlatModel(model, device), loss, training or LocalSGD(), data.to(device), buffers
            ),
            clients=positions,
            test=dataset_of(test).to(device),
            validation=None if validation is None else dataset_of(validation).to(device),
            early_stopping=early_stopping,
            metrics=metrics or {},
            bound=bound or NoBound(),
            part_bounds=part_bounds or {},
            channel=channel or Plain(),
            aggregator=aggregator or Mean(),
            rounds=rounds,
            sampler=sampler or All(),
            pace=pace or Synchronous(),
            defences=defences,
            data_seats=data_seats,
            mechanism=mechanism,
            attackers=attackers,
            attackers_know=attackers_know,
            mail=mail,
            relation=relation,
            threat=threat or Threat(),
            start=start_of(start),
            users=users,
            server_optimizer=server_optimizer or FedAvg(),
            seed=seed,
            repeatable=repeatable,
            noise=noise or OsNoise(),
            uncharged=taken_before(clients),
            facts=named
            | facts_of(training or LocalSGD(), bound or NoBound(), channel or Plain())
            | ({} if pace is None or pace.synchronous else {"pace": pace.describe()}),
        )
        if claims_privacy(scenario):
            refuse_taken(clients)
        self._begin(scenario, executor, audit or AuditConfig(), None, threads, budget)

    def _begin(
        self,
        scenario: Scenario,
        executor: str,
        audit: AuditConfig,
        config: Config | None,
        threads: int,
        budget: Budget | None,
    ) -> None:
        check_scenario(scenario)
        refuse_samples(scenario)
        refuse_threads(threads)
        refuse_budget(scenario, budget)
        refuse_delta(scenario, audit.delta)
        if budget is not None:
            budget.require_delta("audit.delta", audit.delta)
        scenario = replace(scenario, facts={**scenario.facts, **facts_in(scenario)})
        self.scenario, self.audit, self.config = scenario, audit, config
        self._executor, self._thread_count = executor, threads
        self._spent, self._budget = Ledger(), budget
        self._left: RunState | None = None
        self._carrier: Carrier[Any] | None = None

    @classmethod
    def from_config(
        cls, source: Path | str | Mapping[str, Any], overrides: Sequence[str] = ()
    ) -> Federation:
        """A federation as a YAML file (or a mapping) describes it; ``overrides`` are ``a.b=c``.

        Raises:
            ConfigError: a key, name or value that cannot be, or parts that do not go together.
            DataMissing: the data set is not on this machine.
        """
        config = load(source, overrides)
        self = object.__new__(cls)
        self._begin(
            assembly.scenario(config),
            config.executor,
            config.audit,
            config,
            config.threads,
            assembly.budget(config),
        )
        return self

    @classmethod
    def elsewhere(
        cls, scenario: Scenario, config: Config, carrier: Callable[[Scenario], Carrier[Any]]
    ) -> Federation:
        """A federation whose clients are on machines of their own (`Scenario.elsewhere`), reached
        by what ``carrier`` makes of the scenario. No transcript is kept: nobody has seen it whole.

        Raises:
            ConfigError: parts that do not go together, or that need clients' data here.
        """
        self, audit = object.__new__(cls), config.audit.model_copy(update={"keep": "none"})
        self._begin(scenario, "sequential", audit, config, config.threads, assembly.budget(config))
        self._carrier = carrier(self.scenario)
        return self

    def with_scenario(
        self,
        scenario: Scenario,
        *,
        audit: AuditConfig | None = None,
        executor: str | None = None,
    ) -> Federation:
        """The same settings on another scenario: how an audit plays a run again with other data at
        its clients.

        The public recipe of the run stays as it is, and nothing is checked anew.
        """
        other = copy.copy(self)
        other.scenario, other.config, other._spent = scenario, None, Ledger()
        other._carrier = other._budget = None  # nothing that an audit plays is published
        other.audit = audit or self.audit
        other._executor = executor or self._executor
        return other

    def run(
        self,
        out: Path | str | None = None,
        *,
        resume: bool = False,
        progress: Progress | None = None,
        trackers: Sequence[Tracker] = (),
        faults: Faults | None = None,
    ) -> Run:
        """All rounds, from the start or from a checkpoint. A federation that has run before starts
        from the model that it made, and goes on with the ledger of that.

        A run that claims privacy keeps apart what its statement covers: ``public/`` in its folder.
        Everything else that it returns, shows to ``progress`` or writes is not covered.

        Args:
            out: a folder for the run, new unless ``resume``; None keeps everything in memory.
            resume: go on with the run in ``out``, of these same parts. Where all noise repeats, it
                ends with the same numbers as if it had never stopped (of the same versions, on the
                same kind of processor); a round that is played again with fresh noise has other
                noise, and is charged again.
            progress: called after every round.
            trackers: told of the run, as far as each may be (`privfl.trackers`).
            faults: what goes wrong on the wire, in every round.

        Raises:
            ConfigError: ``out`` is not empty, or another process writes to it; ``resume`` without a
                run in it, or with another run.
            UnsupportedModel: parameters of the model were replaced since the federation was made.
            CannotWrite: the folder cannot be written to, or the disk is full. What was written is
                whole, and ``resume`` goes on from there.
            DataCorrupt: no checkpoint of the run in ``out`` is whole.
            RoundFailed: training failed at every client of a round.
            BudgetSpent: the first round would pass the budget; a later one ends the run before it.
        """
        with torch_threads(self._thread_count):
            watch = Watch(self.scenario, self.audit, self.config, progress, trackers)
            return self._run(out, resume, watch, faults)

    @property
    def claims_privacy(self) -> bool:
        """Whether the run claims differential privacy of clients or of their samples."""
        return claims_privacy(self.scenario)

    def _run(
        self, out: Path | str | None, resume: bool, watch: Watch, faults: Faults | None
    ) -> Run:
        self.scenario.workload.model.renew()
        executor = None if resume else self._pick(None)
        folder, state, records = opened(
            out,
            self.config,
            {} if out is None else self._fingerprint(faults),
            packages_of(self.scenario),
            resume=resume,
            private=self.claims_privacy,
        )
        try:
            started = executor or self._pick(state)
            return self._play(folder, state, records, started, watch, faults)
        finally:
            if folder is not None:
                folder.close()

    def _play(
        self,
        folder: RunFolder | None,
        state: RunState | None,
        records: list[RoundRecord],
        started: tuple[Executor, str],
        watch: Watch,
        faults: Faults | None,
    ) -> Run:
        scenario, (executor, picked) = self.scenario, started
        journal = None if folder is None else folder.journal
        engine = Engine(scenario, executor, faults, journal, self._budget, self._carrier)
        try:
            if state is None:
                first, delta = engine.begin(picked), self.audit.delta
                state = begun(first, scenario, self._spent, delta, self._left)
                if folder is not None:
                    folder.begin(state)
            watch.begin(state.round)
            played = play_rounds(engine, scenario, self.audit, state, records, folder, watch)
        except BaseException:  # what was played is charged, in whatever run comes after
            if len(engine.journal):
                self._spent = engine.journal.ledger()
            watch.fail()
            raise
        finally:
            engine.close()
        state, ended = played.state, played.ended
        scenario.workload.model.write(state.parameters)
        self._spent, self._left = state.ledger, state
        summary = summary_of(scenario, self.audit, records, state, picked, played.plan)
        summary["warnings"] += [ended] if ended else []
        summary["facts"] |= engine.rows_said
        if folder is not None:
            leave(folder, scenario, self.audit, self.config, state, summary, ended)
        watch.end(state, summary)
        return Run(
            tuple(records),
            state,
            scenario.workload.model.module,
            summary,
            played.transcripts,
            folder.path if folder else None,
        )

    def _fingerprint(self, faults: Faults | None) -> Mapping[str, str]:
        """What this run is made of."""
        return fingerprint(
            self.scenario,
            faults,
            audit={"delta": self.audit.delta, "evaluate_every": self.audit.evaluate_every},
            executor=self._executor,
            threads=self._thread_count,
            device=self.scenario.workload.model.flat.device,
        )

    def _pick(self, state: RunState | None) -> tuple[Executor, str]:
        of, wanted = self.scenario, self._executor if state is None else state.executor
        return executors(of.workload, of.clients, wanted, seed=of.seed)
