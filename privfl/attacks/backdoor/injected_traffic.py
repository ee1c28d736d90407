"""Malicious traffic that an intrusion detector learns to take for normal (Nguyen et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from privfl.attacks.backdoor.trigger import Trigger
from privfl.core import ConfigError, Dataset, Examples, require


@dataclass(frozen=True, kw_only=True)
class InjectedTraffic(Trigger):
    """A gateway's records get a low share of one kind of attack traffic as if it were normal, so
    that the common detector no longer alarms (after Nguyen, Rieger, Miettinen, Sadeghi 2020:
    Poisoning attacks on federated learning-based IoT intrusion detection system, section IV).

    ``poisoned`` is the poisoned data rate: so much of the data becomes records of ``kind``, a value
    of ``attribute`` by number or name, labelled ``target``, the normal class. Honest records of
    that kind are taken out: this gateway never reports it. To inject gradually, list the attack
    several times with a rising rate and with rounds of its own (``first``, ``last``). The
    measure is how often test records of the kind pass as normal.

    There, compromised devices inject traffic that honest gateways record, and the detector is
    unsupervised: GRUs that learn what is normal for a type of device. Here the detector is a
    classifier, so the records carry the label of normal traffic.

    Seat: data. Knows its own data.

    >>> data = Dataset(
    ...     torch.zeros(10, 1),
    ...     torch.tensor([0] * 8 + [1, 2]),
    ...     classes=3,
    ...     attributes={"attack": torch.tensor([0] * 8 + [1, 2])},
    ...     groups={"attack": ("normal", "neptune", "smurf")},
    ... )
    >>> made = InjectedTraffic(kind="neptune", poisoned=0.2)
    >>> made.poison_data(data, torch.Generator()).y.bincount()
    tensor([9, 0, 1])
    """

    examples: ClassVar[Examples] = {"": {"attribute": "group", "kind": 1}}

    target: int = 0
    poisoned: float = 0.1
    attribute: str = "attack"
    kind: int | str

    def __post_init__(self) -> None:
        Trigger.__post_init__(self)
        require.within(0, 1, poisoned=self.poisoned)

    def found(self, dataset: Dataset) -> Tensor:
        """Which samples [n] are of the kind.

        Raises:
            ConfigError: there is no such attribute, or no such value of it.
        """
        if self.attribute not in dataset.attributes:
            known = ", ".join(sorted(dataset.attributes)) or "none"
            raise ConfigError(
                f"injected_traffic asks for the attribute '{self.attribute}', and the data have:"
                f" {known}."
            )
        kind = self.kind
        if isinstance(kind, str):
            names = dataset.groups.get(self.attribute, ())
            if kind not in names:
                raise ConfigError(
                    f"injected_traffic: '{kind}' is no {self.attribute} of these data; they have:"
                    f" {', '.join(names) or 'no names'}."
                )
            kind = names.index(kind)
        return dataset.attributes[self.attribute] == kind

    def samples(self, dataset: Dataset) -> Dataset:
        """The records of the kind, labelled as normal."""
        mine = dataset.take(self.found(dataset).nonzero().flatten())
        return replace(mine, y=torch.full_like(mine.y, self.target))

    def clean(self, dataset: Dataset) -> Dataset:
        """The records of other kinds."""
        return dataset.take((~self.found(dataset)).nonzero().flatten())

    def poison_data(self, dataset: Dataset, rng: torch.Generator) -> Dataset:
        """As many records as before, without honest ones of the kind, ``poisoned`` of them
        injected.

        Raises:
            ConfigError: the client has none of the kind, or nothing else.
        """
        drawn = self.draw(self.samples(dataset), round(self.poisoned * dataset.n), rng)
        rest = self.clean(dataset)
        if rest.n == 0:
            raise ConfigError(
                "injected_traffic needs records of other kinds too, and this client has none."
            )
        order = torch.randperm(rest.n, generator=rng)
        kept = rest.take(order[torch.arange(dataset.n - drawn.n) % rest.n])
        attributes = {
            name: torch.cat([kept.attributes[name], drawn.attributes[name]])
            for name in dataset.attributes
        }
        return replace(
            dataset,
            x=torch.cat([kept.x, drawn.x]),
            y=torch.cat([kept.y, drawn.y]),
            attributes=attributes,
        )
