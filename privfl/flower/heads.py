"""What the heads of envelopes say, as plain data, and how it is read from bytes that anybody may
have written: field by field, each of its type and size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from privfl.config import Config, load
from privfl.core import (
    Abort,
    Broadcast,
    Buffer,
    ClientId,
    ConfigError,
    PartyId,
    Refusal,
)
from privfl.flower.mail import BadEnvelope, packed_vector, unpacked_vector

_TO = "to/"
_MOST_WORDS = 2000
_MOST_LISTED = 1 << 16
_SERVERS_OWN: Mapping[str, Any] = {
    "start": "public",
    "budget": None,
    "device": "cpu",
    "executor": "sequential",
    "threads": 1,
    "mail": "signed",
}
"""Keys of a config that are the server's business alone, and what nodes are told in their place."""


def _of(head: Mapping[str, Any], key: str, kind: type | tuple[type, ...]) -> Any:
    value = head.get(key)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise BadEnvelope(f"an envelope's head has no '{key}' of the right type.")
    return value


def _whole(head: Mapping[str, Any], key: str, most: int = 1 << 48) -> int:
    value: int = _of(head, key, int)
    if not 0 <= value <= most:
        raise BadEnvelope(f"'{key}' in an envelope's head is {value}, and 0 to {most} can be.")
    return value


def words(head: Mapping[str, Any], key: str) -> str:
    """A sentence of somebody else's, cut to a length and without what does not print.

    Raises:
        BadEnvelope: it is none.
    """
    value: str = _of(head, key, str)
    return "".join(c if c.isprintable() else " " for c in value[:_MOST_WORDS])


def _hex(head: Mapping[str, Any], key: str, length: int) -> bytes:
    value: str = _of(head, key, str)
    try:
        raw = bytes.fromhex(value)
    except ValueError:
        raise BadEnvelope(f"'{key}' in an envelope's head is no hex.") from None
    if len(raw) != length:
        raise BadEnvelope(f"'{key}' in an envelope's head has {len(raw)} bytes, not {length}.")
    return raw


def _listed(head: Mapping[str, Any], key: str) -> list[Any]:
    value: list[Any] = _of(head, key, list)
    if len(value) > _MOST_LISTED:
        raise BadEnvelope(f"'{key}' in an envelope's head has {len(value)} items.")
    return value


@dataclass(frozen=True)
class Terms:
    """What a node is told of a run: the config without what is the server's business alone, the
    shape of one sample and the number of classes.
    """

    config: Config
    shape: tuple[int, ...]
    classes: int

    @property
    def clients(self) -> int:
        """How many clients there are."""
        return self.config.data.clients or 0

    def head(self) -> dict[str, Any]:
        """As the head of an envelope."""
        told = self.config.model_dump(mode="json")
        told |= {**_SERVERS_OWN, "data": {"clients": self.config.data.clients}}
        told["audit"] = {"delta": self.config.audit.delta}
        shape = list(self.shape)
        return {"config": told, "shape": shape, "classes": self.classes}

    @classmethod
    def read(cls, head: Mapping[str, Any]) -> Terms:
        """What `head` says.

        Raises:
            BadEnvelope: it is none.
            ConfigError: a config that cannot be, or one that asks a node for what it does not do.
        """
        given = _of(head, "config", dict)
        for key, only in _SERVERS_OWN.items():
            if given.get(key, only) != only:
                raise ConfigError(f"a node does nothing with '{key}', and the server sets it.")
        if not isinstance(given.get("data"), dict) or given["data"].keys() != {"clients"}:
            raise ConfigError("a node's data are its operator's to name, and not the server's.")
        shape = _listed(head, "shape")
        if len(shape) > 8 or not all(type(n) is int and 0 < n < 1 << 24 for n in shape):
            raise BadEnvelope("'shape' in an envelope's head is no shape of a sample.")
        config = load(given)
        if config.data.clients is None or config.attacks or config.users is not None:
            raise ConfigError("a network plays no attacks and no users: run the config by itself.")
        classes = _whole(head, "classes", 1 << 24)
        return cls(config, tuple(shape), classes)


def bound_to(scene: bytes, terms: Mapping[str, Any]) -> bytes:
    """What letters are bound to, and the terms of their run with it (the head that `Terms.head`
    made): parties that were told different terms take no letters of each other. A plan does not say
    how much noise the others add, nor in which mode of its channel they are.

    >>> bound_to(b"round", {"a": 1, "b": 2}) == bound_to(b"round", {"b": 2, "a": 1})
    True
    """
    plain = json.dumps(json.loads(json.dumps(terms)), sort_keys=True)
    return scene + b"terms" + hashlib.sha256(plain.encode()).digest()


@dataclass(frozen=True)
class RoundHead:
    """The order of a round, for one node: from it and its scenario it makes the plans itself.

    ``run`` is the run's random name [16 bytes], under which nodes keep what they remember.
    ``l2`` is where an adaptive bound has got to; ``models`` are the digests in the plans;
    ``arrived`` is the last round whose extra vectors of this client are in the model, and which.
    ``claims``: training is private, so its client says what it will have cost before it sends.
    """

    run: bytes
    number: int
    cohort: tuple[ClientId, ...]
    session: bytes
    models: tuple[str, ...]
    l2: float | None = None
    arrived: tuple[int, tuple[str, ...]] | None = None
    claims: bool = False

    def head(self) -> dict[str, Any]:
        """As the head of an envelope; numbers exactly."""
        return {
            "run": self.run.hex(),
            "number": self.number,
            "cohort": list(self.cohort),
            "session": self.session.hex(),
            "models": list(self.models),
            "l2": None if self.l2 is None else self.l2.hex(),
            "arrived": None if self.arrived is None else [self.arrived[0], list(self.arrived[1])],
            "claims": self.claims,
        }

    @classmethod
    def read(cls, head: Mapping[str, Any]) -> RoundHead:
        """What `head` says.

        Raises:
            BadEnvelope: it is none.
        """
        cohort, models = _listed(head, "cohort"), _listed(head, "models")
        if not all(type(client) is int and client >= 0 for client in cohort):
            raise BadEnvelope("'cohort' in an envelope's head holds what is no client.")
        if not all(isinstance(model, str) and len(model) == 64 for model in models):
            raise BadEnvelope("'models' in an envelope's head holds what is no digest.")
        l2: float | None = None
        if head.get("l2") is not None:
            try:
                l2 = float.fromhex(_of(head, "l2", str))
            except (ValueError, OverflowError):
                raise BadEnvelope("'l2' in an envelope's head is no number.") from None
        arrived: tuple[int, tuple[str, ...]] | None = None
        if head.get("arrived") is not None:
            told = _listed(head, "arrived")
            if len(told) != 2 or type(told[0]) is not int or not isinstance(told[1], list):
                raise BadEnvelope("'arrived' in an envelope's head is no round with its parts.")
            arrived = told[0], tuple(str(part) for part in told[1])
        return cls(
            _hex(head, "run", 16),
            _whole(head, "number"),
            tuple(cohort),
            _hex(head, "session", 16),
            tuple(models),
            l2,
            arrived,
            _of(head, "claims", bool),
        )


def model_bodies(base: Broadcast) -> tuple[dict[str, Any], dict[str, Buffer]]:
    """The model that everybody starts from: the types of its vectors, and these as bodies."""
    kinds: dict[str, Any] = {}
    bodies: dict[str, Buffer] = {}
    aux = {f"aux/{name}": vector for name, vector in base.aux.items()}
    for name, vector in {"model": base.parameters, **aux}.items():
        kinds[name], bodies[name] = packed_vector(vector)
    return {"vectors": kinds}, bodies


def read_model(number: int, head: Mapping[str, Any], bodies: Mapping[str, Buffer]) -> Broadcast:
    """What `model_bodies` made.

    Raises:
        BadEnvelope: it is none.
    """
    kinds = _of(head, "vectors", dict)
    vectors = {}
    for name, kind in kinds.items():
        if name not in bodies or not (name == "model" or name.startswith("aux/")):
            raise BadEnvelope("an envelope's head names a vector that is not in it.")
        vectors[name] = unpacked_vector(kind, bodies[name])
    if "model" not in vectors:
        raise BadEnvelope("an order holds no model.")
    model = vectors.pop("model")
    return Broadcast(number, model, {n.removeprefix("aux/"): v for n, v in vectors.items()})


def frames_out(mail: Mapping[PartyId, Buffer]) -> dict[str, Buffer]:
    """Letters by receiver (or sender), as bodies."""
    return {f"{_TO}{who}": body for who, body in mail.items()}


def frames_in(bodies: Mapping[str, Buffer]) -> dict[PartyId, Buffer]:
    """What `frames_out` made; other bodies are none of it."""
    return {n.removeprefix(_TO): body for n, body in bodies.items() if n.startswith(_TO)}


@dataclass
class Answer:
    """What a node answers beside letters: who gave up in which part and whom they blame, letters
    that it refused, sentences for the record, and how many samples it trained on where its noise
    must be charged.
    """

    aborts: dict[str, Abort] = field(default_factory=dict)
    refused: Sequence[Refusal] = ()
    notes: list[str] = field(default_factory=list)
    samples: int | None = None

    def head(self) -> dict[str, Any]:
        """As the head of an envelope."""
        return {
            "aborts": {p: [str(a)[:_MOST_WORDS], a.blamed] for p, a in self.aborts.items()},
            "refused": [[r.sender, r.why, r.again] for r in self.refused][:64],
            "notes": [note[:_MOST_WORDS] for note in self.notes[:64]],
            "samples": self.samples,
        }

    @classmethod
    def read(cls, head: Mapping[str, Any], who: PartyId) -> Answer:
        """What `head` says, of a node of that name.

        Raises:
            BadEnvelope: it is none.
        """
        aborts: dict[str, Abort] = {}
        for part, told in _of(head, "aborts", dict).items():
            if not isinstance(told, list) or len(told) != 2:
                raise BadEnvelope("'aborts' in an envelope's head holds what is none.")
            blamed = None if told[1] is None else words({"blamed": told[1]}, "blamed")
            aborts[part] = Abort(words({"why": told[0]}, "why"), blamed)
        refused = []
        for told in _listed(head, "refused")[:64]:
            if not isinstance(told, list) or len(told) != 3:
                raise BadEnvelope("'refused' in an envelope's head holds what is none.")
            sender, why = (words({"it": one}, "it") for one in told[:2])
            refused.append(Refusal(who, sender, why, bool(told[2])))
        notes = [words({"it": note}, "it") for note in _listed(head, "notes")[:64]]
        samples = None if head.get("samples") is None else _whole(head, "samples")
        return cls(aborts, tuple(refused), notes, samples)
