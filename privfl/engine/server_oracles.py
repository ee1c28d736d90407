"""What defences ask for beside the updates: a root gradient from a little clean data at the server,
a validation loss, clients' votes.

Rules take these as plain functions, so that they need to know neither models nor data; here they
are made from a run's workload. Clients' answers are computed on their own data, as honest clients
would; attackers in the seat of answers lie about error rates, and about nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from privfl.core import (
    Broadcast,
    ClientId,
    ClientState,
    ConfigError,
    Context,
    Dataset,
    Oracle,
    Rows,
    UnsupportedModel,
    Vector,
    poisons_answers,
)
from privfl.engine.attackers import Attacker
from privfl.training import Workload, evaluate

_OF_ROOT = (Oracle.ROOT, Oracle.LOSS, Oracle.ACCURACY, Oracle.FEATURES)
"""What takes clean data at the server."""
EVALUATORS = 10
"""How many clients answer where a defence asks 'the clients' about a model."""


@dataclass(frozen=True)
class ServerOracles:
    """What rules, defences and bounds declare that they need (`of`).

    ``root_data`` is clean data at the server; ``elsewhere``: the server is another machine, so that
    parts can be made here whose oracles answer there alone. Whoever is asked sees the model in
    question, as in the papers.
    """

    workload: Workload
    clients: Mapping[ClientId, Tensor]
    root_data: Dataset
    attackers: Sequence[Attacker] = ()
    elsewhere: bool = False

    def of(self, oracle: Oracle) -> object:
        """What an oracle stands for in this run.

        Raises:
            ConfigError: it needs clean data at the server, and there is none.
            UnsupportedModel: it is about hidden units, and the model has none.
        """
        if not self.elsewhere and oracle in _OF_ROOT:
            self._root()
        match oracle:
            case Oracle.ROOT:
                return self.root
            case Oracle.LOSS:
                return self.loss
            case Oracle.ACCURACY:
                return self.accuracy
            case Oracle.LOSSES:
                return self.losses
            case Oracle.VOTES:
                return self.votes
            case Oracle.ERRORS:
                return self.errors
            case Oracle.ACTIVATIONS:
                return self.activations
            case Oracle.FEATURES:
                _weighing(self.workload, "compares models before their last layer")
                return self.features
            case Oracle.UNITS:
                return _last_hidden(self.workload)[1]
            case Oracle.LAST_HIDDEN:
                return torch.cat(_last_hidden(self.workload)[1])
            case Oracle.LAYER_SIZES:
                return self._layer_sizes()

    def root(self, context: Context) -> Vector:
        """The update [d] that a client with the root data would send."""
        method, d = self.workload.method, self.workload.model.d
        trainer = method.on(self.workload.model, self.workload.loss)
        aux = method.broadcast(method.init(d))  # the root client corrects for no drift of others
        sent = Broadcast(context.plan.number, context.parameters, aux)
        sent = sent.to(self.workload.model.flat.device)
        delta = trainer(-1, sent, self._root(), ClientState(), context.rng)[0].delta
        return delta.to(context.parameters.device)

    def loss(self, parameters: Vector, context: Context) -> float:
        """Cross-entropy of a model [d] on the root data."""
        return self._evaluate(parameters, self._root())[1]

    def accuracy(self, parameters: Vector, context: Context) -> float:
        """Accuracy of a model [d] on the root data."""
        return self._evaluate(parameters, self._root())[0]

    def losses(self, rows: Rows, context: Context) -> Tensor:
        """How much each row [n, d] lowers the loss on its own client's data [n]."""
        lowered = []
        for client, row in zip(_ids(rows), rows.values, strict=True):
            own = self._own(client)
            lowered.append(
                self._evaluate(context.parameters, own)[1]
                - self._evaluate(context.parameters + row, own)[1]
            )
        return torch.tensor(lowered)

    def votes(self, rows: Rows, context: Context) -> Tensor:
        """[i, j]: whether the update of row j does not worsen the loss on the data of row i's
        client.
        """
        ids = _ids(rows)
        accepted = torch.zeros(rows.n, rows.n, dtype=torch.bool)
        for i, client in enumerate(ids):
            own = self._own(client)
            before = self._evaluate(context.parameters, own)[1]
            for j, row in enumerate(rows.values):
                accepted[i, j] = self._evaluate(context.parameters + row, own)[1] <= before
        return accepted

    def errors(self, models: list[Vector], context: Context) -> Tensor:
        """Error rates [evaluators, models, classes] on the data of some clients of the cohort, as
        they report them.
        """
        asked = context.plan.cohort[:EVALUATORS]
        rates = torch.zeros(len(asked), len(models), self.workload.data.classes)
        for i, client in enumerate(asked):
            own = self._own(client)
            for j, model in enumerate(models):
                self.workload.model.write(model)
                with torch.inference_mode():
                    wrong = (self.workload.model.module(own.x).argmax(dim=-1) != own.y).float()
                for label in torch.unique(own.y).tolist():
                    rates[i, j, label] = wrong[own.y == label].mean()
            for attacker in self.attackers:
                attack = attacker.at(client) if client in attacker.clients else attacker.attack
                if poisons_answers(attack) and attacker.acting((client,), context.plan.number):
                    rates[i] = attack.poison_errors(rates[i].clone())
        return rates

    def activations(self, parameters: Vector, context: Context) -> Tensor:
        """Mean activation [clients, units] of the last hidden layer's units on the data of some
        clients of the cohort.
        """
        layer, _ = _last_hidden(self.workload)
        seen: list[Tensor] = []
        hook = layer.register_forward_hook(
            lambda module, inputs, output: seen.append(
                output.relu().flatten(2).mean(dim=2).mean(dim=0)
                if output.ndim > 2
                else output.relu().mean(dim=0)
            )
        )
        try:
            self.workload.model.write(parameters)
            with torch.inference_mode():
                for client in context.plan.cohort[:EVALUATORS]:
                    self.workload.model.module(self._own(client).x)
        finally:
            hook.remove()
        return torch.stack(seen).to(parameters.device)

    def features(self, parameters: Vector, context: Context) -> Tensor:
        """What the last layer of a model [d] reads of each sample of the root data [s, h]."""
        _, layer = _weighing(self.workload, "compares models before their last layer")[-1]
        seen: list[Tensor] = []
        hook = layer.register_forward_pre_hook(
            lambda module, inputs: seen.append(inputs[0].flatten(1))
        )
        try:
            self._evaluate(parameters, self._root())
        finally:
            hook.remove()
        return torch.cat(seen).to(parameters.device)

    def _layer_sizes(self) -> tuple[int, ...]:
        """A layer's weights and biases count together."""
        sizes: dict[str, int] = {}
        for slot in self.workload.model.slots:
            layer = slot.name.rpartition(".")[0]
            sizes[layer] = sizes.get(layer, 0) + slot.stop - slot.start
        return tuple(sizes.values())

    def _root(self) -> Dataset:
        if self.root_data.n == 0:
            raise ConfigError(
                "this defence needs clean data at the server: set data.root to a number of samples,"
                " as in data.root=100."
            )
        return self.root_data

    def _own(self, client: ClientId) -> Dataset:
        return self.workload.data.take(self.clients[client])

    def _evaluate(self, parameters: Vector, data: Dataset) -> tuple[float, float]:
        self.workload.model.write(parameters)
        return evaluate(self.workload.model.module, data)


def _ids(rows: Rows) -> tuple[ClientId, ...]:
    if rows.ids is None:
        raise ConfigError(
            "this defence asks the clients behind the rows, and these rows are anonymous: use a"
            " channel that names them."
        )
    return rows.ids


def _last_hidden(workload: Workload) -> tuple[nn.Module, list[Tensor]]:
    """The last layer with units before the output, and for each unit the positions [d] of its
    parameters.
    """
    name, layer = _weighing(workload, "prunes hidden units")[-2]
    units = layer.weight.shape[0]
    positions: list[list[Tensor]] = [[] for _ in range(units)]
    for slot in workload.model.slots:
        if slot.name in (f"{name}.weight", f"{name}.bias"):
            for unit, part in enumerate(torch.arange(slot.start, slot.stop).view(units, -1)):
                positions[unit].append(part)
    return layer, [torch.cat(parts) for parts in positions]


def _weighing(workload: Workload, does: str) -> list[tuple[str, nn.Linear | nn.Conv2d]]:
    """The linear and convolutional layers by name, of which one is hidden at least."""
    layers = [
        (name, layer)
        for name, layer in workload.model.module.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    ]
    if len(layers) < 2:
        raise UnsupportedModel(
            f"this defence {does}, and the model has no hidden linear or convolutional layer."
        )
    return layers
