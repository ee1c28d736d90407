"""Clients of Flower's SecAgg+, driven message by message as a server would, honest or not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.client.mod.secure_aggregation.secaggplus_mod import secaggplus_mod
from flwr.common import Code, FitRes, Status, ndarrays_to_parameters
from flwr.common.secure_aggregation.crypto.shamir import combine_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import (
    generate_shared_key,
)
from flwr.common.secure_aggregation.ndarrays_arithmetic import factor_extract
from flwr.common.secure_aggregation.quantization import dequantize
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.common.secure_aggregation.secaggplus_utils import (
    pseudo_rand_gen,
)
from flwr.compat.common import recorddict_compat as compat
from flwr.supercore.primitives.asymmetric import (
    bytes_to_private_key,
    bytes_to_public_key,
)
from flwr.supercore.task_identity import TaskIdentity

logging.disable(logging.CRITICAL)
D, CLIP, TARGET, MOD = 4, 8.0, 1 << 22, 1 << 32
VICTIM = 1
Said = dict[str, Any]
Model = Callable[[int], np.ndarray]
"""What a client's training makes of the model that it was sent, by node."""


class Refused(Exception):
    """A handler raised: what Flower's server sees as a client that failed."""


def update_of(node: int) -> np.ndarray:
    """The update that a node trains."""
    return np.random.default_rng(node).normal(size=D)


@dataclass
class Cohort:
    """Flower's clients, asked one by one, and what the server did with their answers."""

    n: int
    contexts: dict[int, Context] = field(default_factory=dict)
    public: dict[int, list[bytes]] = field(default_factory=dict)
    boxes: dict[int, dict[int, bytes]] = field(default_factory=dict)
    vectors: dict[int, list[np.ndarray]] = field(default_factory=dict)
    seeds: dict[int, list[bytes]] = field(default_factory=dict)
    keys: dict[int, list[bytes]] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        TaskIdentity._run_id = TaskIdentity._task_id = TaskIdentity._node_id = 1
        self.contexts = {i: Context(1, i, {}, RecordDict(), {}) for i in self.nodes}

    @property
    def nodes(self) -> range:
        """Who is there."""
        return range(1, self.n + 1)

    def ask(self, node: int, said: Said, trained: np.ndarray | None = None) -> Said:
        """A client's answer to a message; raises Refused where its handler raises."""
        content = RecordDict({RECORD_KEY_CONFIGS: ConfigRecord(said)})
        fit = None
        if trained is not None:
            result = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([trained]), 1, {})
            fit = compat.fitres_to_recorddict(result, keep_input=False)
        try:
            reply = secaggplus_mod(
                Message(content, node, "train", group_id="1"),
                self.contexts[node],
                lambda msg, _: Message(fit, reply_to=msg),
            )
        except Exception as error:  # Flower's runtime turns any of them into an error reply
            self.failed[node] = f"{type(error).__name__}: {error}".split("\n")[0].rstrip(": ")
            raise Refused(self.failed[node]) from None
        return dict(reply.content.config_records[RECORD_KEY_CONFIGS])

    def set_up(self, shares: int, threshold: int, nodes: Collection[int] = ()) -> None:
        """The first message, to everybody or to some."""
        for node in nodes or self.nodes:
            said = {
                Key.STAGE: Stage.SETUP,
                Key.SAMPLE_NUMBER: self.n,
                Key.SHARE_NUMBER: shares,
                Key.THRESHOLD: threshold,
                Key.CLIPPING_RANGE: CLIP,
                Key.TARGET_RANGE: TARGET,
                Key.MOD_RANGE: MOD,
                Key.MAX_WEIGHT: 1.0,
            }
            keys = self.ask(node, said)
            self.public[node] = [keys[Key.PUBLIC_KEY_1], keys[Key.PUBLIC_KEY_2]]

    def share(self, node: int, shown: Mapping[int, Sequence[bytes]]) -> dict[int, bytes]:
        """The boxes that a client seals for those whose keys it is shown."""
        keys = {str(other): list(pair) for other, pair in shown.items()}
        said = self.ask(node, {**keys, Key.STAGE: Stage.SHARE_KEYS})
        found = dict(zip(said[Key.DESTINATION_LIST], said[Key.CIPHERTEXT_LIST], strict=True))
        self.boxes[node] = found
        return found

    def train(
        self, node: int, inbox: Mapping[int, bytes], model: Model = update_of
    ) -> list[np.ndarray]:
        """A client's masked vector."""
        said = self.ask(
            node,
            {
                Key.STAGE: Stage.COLLECT_MASKED_VECTORS,
                Key.CIPHERTEXT_LIST: list(inbox.values()),
                Key.SOURCE_LIST: list(inbox),
            },
            model(node),
        )
        raw = said[Key.MASKED_PARAMETERS]
        self.vectors[node] = [np.load(BytesIO(one), allow_pickle=False) for one in raw]
        return self.vectors[node]

    def unmask(self, node: int, active: Collection[int], dead: Collection[int] = ()) -> None:
        """A client's shares of the active ones' seeds and of the dead ones' keys."""
        said = self.ask(
            node,
            {
                Key.STAGE: Stage.UNMASK,
                Key.ACTIVE_NODE_ID_LIST: list(active),
                Key.DEAD_NODE_ID_LIST: list(dead),
            },
        )
        order = [self.seeds] * len(active) + [self.keys] * len(dead)
        for known, owner, share in zip(
            order, said[Key.NODE_ID_LIST], said[Key.SHARE_LIST], strict=True
        ):
            known.setdefault(owner, []).append(share)

    def up_to_vectors(
        self, group: Collection[int], threshold: int, model: Model = update_of
    ) -> None:
        """An honest round among these, up to their masked vectors."""
        self.set_up(len(group), threshold, group)
        for node in group:
            self.share(node, {other: self.public[other] for other in group})
        for node in group:
            self.train(node, self.inbox(node, group), model)

    def inbox(self, node: int, group: Collection[int]) -> dict[int, bytes]:
        """What the others sealed to a client."""
        return {other: self.boxes[other][node] for other in group if other != node}

    def sum_of(self, group: Collection[int]) -> np.ndarray:
        """What the server opens of a group whose pairwise masks cancel."""
        left = [sum(parts) for parts in zip(*(self.vectors[i] for i in group), strict=True)]
        for node in group:
            left = less(left, combine_shares(self.seeds[node]))
        return opened(left, len(group))

    def single(self, node: int) -> np.ndarray:
        """What the server opens of one vector, knowing its seed and its key."""
        left, secret = self.vectors[node], bytes_to_private_key(combine_shares(self.keys[node]))
        left = less(left, combine_shares(self.seeds[node]))
        for other in self.boxes[node]:
            shared = generate_shared_key(secret, bytes_to_public_key(self.public[other][0]))
            left = less(left, shared, 1 if node > other else -1)
        return opened(left, 1)


def less(vector: list[np.ndarray], seed: bytes, sign: int = 1) -> list[np.ndarray]:
    noise = pseudo_rand_gen(seed, MOD, [part.shape for part in vector])
    return [part - sign * one for part, one in zip(vector, noise, strict=True)]


def opened(vector: list[np.ndarray], count: int) -> np.ndarray:
    """The sum of so many updates, of their quantised sum."""
    _, parts = factor_extract([part % MOD for part in vector])
    (value,) = dequantize(parts, CLIP, TARGET)
    return value - (count - 1) * CLIP


def right(found: np.ndarray, group: Collection[int]) -> bool:
    """Whether it is the sum of these updates."""
    return bool(np.allclose(found, sum(map(update_of, group)), atol=1e-4))
