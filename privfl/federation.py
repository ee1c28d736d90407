"""A federated run: from a config or from objects, to a model, a transcript of every round, and a
folder that a person can read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from privfl import assembly
from privfl.aggregators import Mean
from privfl.config import AuditConfig, Config, load
from privfl.core import (
    Bound,
    Channel,
    ClientId,
    ConfigError,
    Dataset,
    Faults,
    FlatModel,
    Knows,
    Ledger,
    Loss,
    Mechanism,
    NoiseSource,
    NotVisible,
    OsNoise,
    RoundPlan,
    Rule,
    RuleWithMemory,
    Transcript,
    Vector,
    View,
)
from privfl.crypto import Plain
from privfl.data import label_counts
from privfl.dp import NoBound, spend, statement
from privfl.engine import (
    All,
    Attacker,
    Described,
    Engine,
    RoundRecord,
    RunFolder,
    RunState,
    Sampler,
    Scenario,
    forward_of,
    measures,
)
from privfl.training import (
    Executor,
    FedAvg,
    LocalSGD,
    Method,
    ServerOptimizer,
    Workload,
    cross_entropy,
    evaluate,
    executors,
)

Progress = Callable[[RoundRecord, int], None]
"""Called after every round with its record and the number of rounds."""
AUTO_KEEP_BYTES = 512 << 20


@runtime_checkable
class Approximate(Protocol):
    """A channel whose sums carry noise of its own."""

    def error(self, plan: RoundPlan) -> float:
        """Its standard deviation in one value of the weighted sum of the whole cohort."""
        ...


@runtime_checkable
class Warns(Protocol):
    """A channel that has limits which nobody should overlook."""

    def warnings(self) -> tuple[str, ...]:
        """Sentences for the report."""
        ...


@dataclass(frozen=True)
class Run:
    """What a run left: the records of its rounds, the model, the transcripts that were kept, and
    the ledger.
    """

    history: tuple[RoundRecord, ...]
    state: RunState = field(repr=False)
    model: nn.Module = field(repr=False)
    summary: Mapping[str, Any] = field(repr=False)
    transcripts: Mapping[int, Transcript] = field(repr=False)
    folder: Path | None = None

    @property
    def parameters(self) -> Vector:
        """The final model [d]."""
        return self.state.parameters

    @property
    def ledger(self) -> Ledger:
        """Everything that was charged."""
        return self.state.ledger

    @property
    def accuracy(self) -> float:
        """The final model's accuracy on the test set."""
        return float(self.summary["accuracy"])

    def transcript(self, round: int) -> Transcript:
        """A round's transcript.

        Raises:
            NotVisible: no such round, or it was not kept.
        """
        if round not in self.transcripts:
            kept = ", ".join(map(str, sorted(self.transcripts))) or "none"
            raise NotVisible(
                f"round {round} was not kept (kept: {kept}): set audit.keep to a list with it, or"
                " to 'all'."
            )
        return self.transcripts[round]

    def view(self, adversary: str, round: int) -> View:
        """Exactly what an adversary saw of a round.

        Raises:
            NotVisible: the round was not kept, or there is no such party.
            ConfigError: no such adversary.
        """
        return self.transcript(round).view(adversary)


class Federation:
    """Federated training of one model by many clients, under the privacy layers and attacks that it
    is given.

    Args:
        model: any torch module without BatchNorm-like layers.
        clients: each client's data, by id or as a list.
        test: data for evaluation.
        training: what a client does with the model in a round.
        loss: of a batch; cross-entropy unless said.

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
        clients: Mapping[ClientId, Dataset] | Sequence[Dataset],
        test: Dataset,
        *,
        rounds: int = 20,
        training: Method | None = None,
        loss: Loss = cross_entropy,
        sampler: Sampler | None = None,
        bound: Bound | None = None,
        channel: Channel[Any] | None = None,
        aggregator: Rule[Any] | RuleWithMemory[Any, Any] | None = None,
        defences: Sequence[Any] = (),
        mechanism: Mechanism | None = None,
        attackers: Sequence[Attacker] = (),
        attackers_know: Knows = "rule",
        server_optimizer: ServerOptimizer | None = None,
        seed: int = 0,
        noise: NoiseSource | None = None,
        executor: str = "auto",
        audit: AuditConfig | None = None,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        held = dict(clients) if isinstance(clients, Mapping) else dict(enumerate(clients))
        if not held:
            raise ConfigError("there are no clients: give at least one data set.")
        data, positions = _joined(held)
        scenario = Scenario(
            workload=Workload(
                FlatModel(model, device), loss, training or LocalSGD(), data.to(device)
            ),
            clients=positions,
            test=test.to(device),
            bound=bound or NoBound(),
            channel=channel or Plain(),
            aggregator=aggregator or Mean(),
            rounds=rounds,
            sampler=sampler or All(),
            defences=defences,
            mechanism=mechanism,
            attackers=attackers,
            attackers_know=attackers_know,
            server_optimizer=server_optimizer or FedAvg(),
            seed=seed,
            noise=noise or OsNoise(),
            facts=_facts(training or LocalSGD(), bound or NoBound(), channel or Plain()),
        )
        self._begin(scenario, executor, audit or AuditConfig(), None, threads)

    def _begin(
        self,
        scenario: Scenario,
        executor: str,
        audit: AuditConfig,
        config: Config | None,
        threads: int,
    ) -> None:
        scenario.check()
        work = scenario.workload
        forward = forward_of(
            work.model, work.loss, work.method, work.data, scenario.bound, scenario.mechanism
        )
        scenario = replace(scenario, facts={**scenario.facts, "forward": forward})
        self.scenario, self.audit, self.config = scenario, audit, config
        self._executor, self._thread_count = executor, threads

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
            assembly.scenario(config), config.executor, config.audit, config, config.threads
        )
        return self

    def run(
        self,
        out: Path | str | None = None,
        *,
        resume: bool = False,
        progress: Progress | None = None,
        faults: Faults | None = None,
    ) -> Run:
        """All rounds, from the start or from a checkpoint.

        Args:
            out: a folder for the run, new unless ``resume``; None keeps everything in memory.
            resume: go on with the run in ``out``; it ends with the same numbers as if it had never
                stopped.
            progress: called after every round.
            faults: what goes wrong on the wire, in every round.

        Raises:
            ConfigError: ``out`` is not empty, or ``resume`` without a run in it.
            RoundFailed: training failed at every client of a round.
        """
        with _threads(self._thread_count):
            return self._run(out, resume, progress, faults)

    # ---- inside
    # ---------------------------------------------------------------------------------------------

    def _run(
        self, out: Path | str | None, resume: bool, progress: Progress | None, faults: Faults | None
    ) -> Run:
        scenario = self.scenario
        executor, picked = self._pick(None) if not resume else (None, "")
        folder, state, records = self._open(out, resume)
        if executor is None:
            executor, picked = self._pick(state)
        engine = Engine(scenario, executor, faults)
        transcripts: dict[int, Transcript] = {}
        plan: RoundPlan | None = None
        budget = AUTO_KEEP_BYTES
        try:
            state = state or engine.begin(picked)
            while state.round < scenario.rounds:
                keep = self._keep(state.round, budget)
                played = engine.play(state, keep=keep)
                state, plan = played.state, played.transcript.plan
                if keep:
                    transcripts[played.transcript.plan.number] = played.transcript
                    budget -= self._size()
                record = self._record(played.transcript, played.train_losses, state)
                records.append(record)
                if folder is not None:
                    folder.add(record, state)
                if progress is not None:
                    progress(record, scenario.rounds)
        finally:
            engine.close()
        scenario.workload.model.write(state.parameters)
        summary = self._summary(records, state, picked, plan)
        if folder is not None:
            folder.finish(state, scenario.workload.model.parts(state.parameters), summary)
        return Run(
            tuple(records),
            state,
            scenario.workload.model.module,
            summary,
            transcripts,
            folder.path if folder else None,
        )

    def _open(
        self, out: Path | str | None, resume: bool
    ) -> tuple[RunFolder | None, RunState | None, list[RoundRecord]]:
        if out is None:
            if resume:
                raise ConfigError("resume needs the folder of the run.")
            return None, None, []
        if not resume:
            text = (
                self.config.to_yaml()
                if self.config is not None
                else "# this run was put together in Python\n"
            )
            return RunFolder.create(Path(out), text), None, []
        folder = RunFolder(Path(out))
        if not (folder.path / "config.yaml").exists():
            raise ConfigError(f"'{out}' holds no run to resume.")
        state, records = folder.restore()
        return folder, state, records

    def _pick(self, state: RunState | None) -> tuple[Executor, str]:
        wanted = self._executor if state is None else state.executor
        return executors(
            self.scenario.workload, self.scenario.clients, wanted, seed=self.scenario.seed
        )

    def _size(self) -> int:
        d, clients = self.scenario.workload.model.d, len(self.scenario.clients)
        return int(3 * 4 * d * clients * self.scenario.sampler.sampling(clients).rate)

    def _keep(self, round: int, budget: int) -> bool:
        keep = self.audit.keep
        if isinstance(keep, list):
            return round in keep
        return keep == "all" or (keep == "auto" and self._size() <= budget)

    def _record(
        self, transcript: Transcript, losses: tuple[float, ...], state: RunState
    ) -> RoundRecord:
        number, last = transcript.plan.number, self.scenario.rounds - 1
        seconds = dict(transcript.seconds)
        accuracy = loss = None
        measured: dict[str, float] = {}
        if number % self.audit.evaluate_every == 0 or number == last:
            began = time.perf_counter()
            self.scenario.workload.model.write(state.parameters)
            accuracy, loss = evaluate(self.scenario.workload.model.module, self.scenario.test)
            measured = measures(
                self.scenario.attackers, self.scenario.workload.model.module, self.scenario.test
            )
            seconds["evaluate"] = time.perf_counter() - began
        return RoundRecord(
            round=number,
            cohort=transcript.plan.n,
            survivors=len(transcript.clients_seen()),
            accuracy=accuracy,
            loss=loss,
            train_losses=losses,
            bytes_sent=transcript.bytes_sent,
            seconds=seconds,
            epsilon=self._epsilon(state),
            fired=dict(transcript.fired),
            incidents=tuple(incident.what for incident in transcript.incidents),
            measures=measured,
        )

    def _epsilon(self, state: RunState) -> dict[str, float]:
        spent = spend(state.ledger, self.audit.delta, pld=False)
        return {
            f"{one.unit} level": one.epsilon
            for one in spent
            if one.unit == "client" and one.epsilon is not None
        } | (
            {"sample level": max(samples)}
            if (
                samples := [
                    s.epsilon for s in spent if s.unit == "sample" and s.epsilon is not None
                ]
            )
            else {}
        )

    def _error(self, plan: RoundPlan | None) -> dict[str, str]:
        """What a channel with approximate sums adds to those of a round like the last one."""
        if plan is None or plan.n == 0 or not isinstance(self.scenario.channel, Approximate):
            return {}
        error = self.scenario.channel.error(plan)
        mean = error / (plan.n * plan.max_weight)
        return {
            "error of the channel": (
                f"noise of standard deviation {error:.2g} in each value of the weighted sum of"
                f" {plan.n} updates, {mean:.2g} in their mean where all weigh the most"
            )
        }

    def _summary(
        self, records: Sequence[RoundRecord], state: RunState, picked: str, plan: RoundPlan | None
    ) -> dict[str, Any]:
        workload, clients, channel = (
            self.scenario.workload,
            self.scenario.clients,
            self.scenario.channel,
        )
        own = [_own_accuracy(workload, index) for index in list(clients.values())[:500]]
        last = [record for record in records if record.accuracy is not None]
        told = statement(state.ledger, self.audit.delta)
        return {
            "accuracy": last[-1].accuracy if last else None,
            "loss": last[-1].loss if last else None,
            "rounds": len(records),
            "clients": len(clients),
            "parameters": workload.model.d,
            "bytes_sent": sum(record.bytes_sent for record in records),
            "seconds": sum(sum(record.seconds.values()) for record in records),
            "executor": picked,
            "client_accuracy": [accuracy for accuracy in own if accuracy is not None],
            "label_counts": label_counts(workload.data, tuple(clients.values())).tolist(),
            "facts": {
                **{k: v for k, v in self.scenario.facts.items() if k != "forward"},
                **self._error(plan),
                "trained by": picked,
            },
            "privacy": [line.to_json() for line in told.lines],
            "warnings": [
                *(channel.warnings() if isinstance(channel, Warns) else ()),
                *told.warnings,
            ],
        }


def _own_accuracy(workload: Workload, index: torch.Tensor) -> float | None:
    try:
        return evaluate(workload.model.module, workload.data.take(index)).accuracy
    except (IndexError, RuntimeError, ValueError):  # data that its client could not train on either
        return None


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """So many threads for torch inside, as before after: small nets are slower on two, and one and
    two threads round differently.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _joined(held: Mapping[ClientId, Dataset]) -> tuple[Dataset, dict[ClientId, torch.Tensor]]:
    x = torch.cat([data.x for data in held.values()])
    y = torch.cat([data.y for data in held.values()])
    positions: dict[ClientId, torch.Tensor] = {}
    start = 0
    for client, data in held.items():
        positions[client] = torch.arange(start, start + data.n)
        start += data.n
    parts = list(held.values())
    shared = [
        name for name in parts[0].attributes if all(name in data.attributes for data in parts)
    ]
    attributes = {name: torch.cat([data.attributes[name] for data in parts]) for name in shared}
    return (
        Dataset(x, y, max(data.classes for data in parts), attributes, parts[0].groups),
        positions,
    )


def _facts(training: Method, bound: Bound, channel: Channel[Any]) -> dict[str, Any]:
    return {
        "training": repr(training),
        "bound": repr(bound),
        "channel": channel.describe() if isinstance(channel, Described) else repr(channel),
    }
