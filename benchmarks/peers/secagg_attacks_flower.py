"""The attacks of the scored suite, played on Flower's own client-side handlers of SecAgg+ where
their messages can say them, beside the same on our parties.

``python -m benchmarks.peers.secagg_attacks_flower N`` prints one JSON list: per attack how many
updates the smallest sum has that the server reads (0: none), and what happened, at both.
Flower's parameters are its workflow's own: the threshold and the number of shares are what the
server writes in its first message.
"""

from __future__ import annotations

import json
import logging
import os
import sys
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
    decrypt,
    encrypt,
    generate_shared_key,
)
from flwr.common.secure_aggregation.ndarrays_arithmetic import factor_extract
from flwr.common.secure_aggregation.quantization import dequantize
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.common.secure_aggregation.secaggplus_utils import (
    pseudo_rand_gen,
    share_keys_plaintext_concat,
    share_keys_plaintext_separate,
)
from flwr.compat.common import recorddict_compat as compat
from flwr.supercore.primitives.asymmetric import (
    bytes_to_private_key,
    bytes_to_public_key,
    generate_key_pairs,
    public_key_to_bytes,
)
from flwr.supercore.task_identity import TaskIdentity

from privfl.audit.protocol import attacks
from privfl.crypto import SecAgg

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
            left = _less(left, combine_shares(self.seeds[node]))
        return opened(left, len(group))

    def single(self, node: int) -> np.ndarray:
        """What the server opens of one vector, knowing its seed and its key."""
        left, secret = self.vectors[node], bytes_to_private_key(combine_shares(self.keys[node]))
        left = _less(left, combine_shares(self.seeds[node]))
        for other in self.boxes[node]:
            shared = generate_shared_key(secret, bytes_to_public_key(self.public[other][0]))
            left = _less(left, shared, 1 if node > other else -1)
        return opened(left, 1)


def _less(vector: list[np.ndarray], seed: bytes, sign: int = 1) -> list[np.ndarray]:
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


Outcome = tuple[int, str]
"""How many updates the smallest sum has that the server reads, and what happened."""


def honest(n: int) -> Outcome:
    """Nobody lies."""
    all_of = Cohort(n)
    all_of.up_to_vectors(all_of.nodes, n // 2 + 1)
    for node in all_of.nodes:
        all_of.unmask(node, all_of.nodes)
    return (n, "the sum") if right(all_of.sum_of(all_of.nodes), all_of.nodes) else (0, "wrong")


def victim(n: int) -> Outcome:
    """One client is shown keys of the server's own as its neighbours'."""
    all_of, own = Cohort(n), {i: (generate_key_pairs(), generate_key_pairs()) for i in range(2, 6)}
    all_of.set_up(len(own) + 1, 3, [VICTIM])
    shown = {i: [public_key_to_bytes(pair[1]) for pair in pairs] for i, pairs in own.items()}
    all_of.public |= shown
    boxes = all_of.share(VICTIM, {VICTIM: all_of.public[VICTIM], **shown})
    inbox = {}
    public = bytes_to_public_key(all_of.public[VICTIM][1])
    for i, box in boxes.items():
        key = generate_shared_key(own[i][1][0], public)
        _, _, seed, secret = share_keys_plaintext_separate(decrypt(key, box))
        all_of.seeds.setdefault(VICTIM, []).append(seed)
        all_of.keys.setdefault(VICTIM, []).append(secret)
        inbox[i] = encrypt(key, share_keys_plaintext_concat(i, VICTIM, seed, secret))
    all_of.train(VICTIM, inbox)
    read = right(all_of.single(VICTIM), [VICTIM])
    return (1, "one client's update is read") if read else (0, "nothing")


def groups(size: int) -> Callable[[int], Outcome]:
    """The cohort falls into groups, each shown itself alone."""

    def play(n: int) -> Outcome:
        all_of = Cohort(n)
        parts = [range(i, min(i + size, n + 1)) for i in range(1, n + 1, size)]
        parts = [part for part in parts if len(part) > 1]
        for part in parts:
            all_of.up_to_vectors(part, len(part) // 2 + 1)
            for node in part:
                all_of.unmask(node, part)
        good = [part for part in parts if right(all_of.sum_of(part), part)]
        return min(map(len, good), default=0), f"{len(good)} sums of {size}"

    return play


def two_sets(n: int) -> Outcome:
    """Half of the others are told that the victim survived, half that it dropped out."""
    all_of = Cohort(n)
    all_of.up_to_vectors(all_of.nodes, n // 2 - 1)
    others = [i for i in all_of.nodes if i != VICTIM]
    for at, node in enumerate(others):
        if at % 2:
            all_of.unmask(node, all_of.nodes)
        else:
            all_of.unmask(node, others, [VICTIM])
    read = right(all_of.single(VICTIM), [VICTIM])
    return (1, "one client's update is read") if read else (0, "nothing")


def both_lists(n: int) -> Outcome:
    """A client stands in both lists of one message: alive and dead."""
    all_of = Cohort(n)
    all_of.up_to_vectors(all_of.nodes, n // 2 + 1)
    for node in all_of.nodes:
        if node != VICTIM:
            all_of.unmask(node, all_of.nodes, all_of.nodes)
    read = sum(right(all_of.single(node), [node]) for node in all_of.nodes)
    return (1, f"{read} of {n} updates are read singly") if read else (0, "nothing")


def small(n: int) -> Outcome:
    """The server names a threshold of 2, and asks for two survivors."""
    all_of = Cohort(n)
    all_of.up_to_vectors(all_of.nodes, 2)
    pair = [1, 2]
    dead = [i for i in all_of.nodes if i not in pair]
    for node in pair:
        all_of.unmask(node, pair, dead)
    left = [sum(parts) for parts in zip(*(all_of.vectors[i] for i in pair), strict=True)]
    for node in pair:
        left = _less(left, combine_shares(all_of.seeds[node]))
    for gone in dead:
        secret = bytes_to_private_key(combine_shares(all_of.keys[gone]))
        for node in pair:
            shared = generate_shared_key(secret, bytes_to_public_key(all_of.public[node][0]))
            left = _less(left, shared, 1 if node > gone else -1)
    return (2, "a sum of 2") if right(opened(left, 2), pair) else (0, "nothing")


def models(n: int) -> Outcome:
    """All but one are sent a model whose update is nothing."""
    all_of = Cohort(n)

    def model(node: int) -> np.ndarray:
        return update_of(node) if node == VICTIM else np.zeros(D)

    all_of.up_to_vectors(all_of.nodes, n // 2 + 1, model)
    for node in all_of.nodes:
        all_of.unmask(node, all_of.nodes)
    read = np.allclose(all_of.sum_of(all_of.nodes), update_of(VICTIM), atol=1e-4)
    return (1, "the sum is one client's update") if read else (0, "nothing")


def early(n: int) -> Outcome:
    """Shares are asked for before the masked vectors."""
    all_of = Cohort(n)
    all_of.set_up(n, n // 2 + 1)
    for node in all_of.nodes:
        all_of.share(node, {other: all_of.public[other] for other in all_of.nodes})
    try:
        all_of.unmask(2, all_of.nodes)
    except Refused as refused:
        return 0, str(refused)
    return 1, "shares before the vector"


def twice(n: int) -> Outcome:
    """The same round again, without one client: the difference of two sums."""
    all_of, sums = Cohort(n), []
    for group in (all_of.nodes, [i for i in all_of.nodes if i != VICTIM]):
        all_of.seeds = {}
        all_of.up_to_vectors(group, n // 2 + 1)
        for node in group:
            all_of.unmask(node, group)
        sums.append(all_of.sum_of(group))
    read = right(sums[0] - sums[1], [VICTIM])
    return (1, "the difference of two sums is one client's update") if read else (0, "nothing")


def garbage_shares(n: int) -> Outcome:
    """A client seals random bytes to everybody."""
    all_of = Cohort(n)
    all_of.set_up(n, n // 2 + 1)
    for node in all_of.nodes:
        all_of.share(node, {other: all_of.public[other] for other in all_of.nodes})
    all_of.boxes[VICTIM] = {other: os.urandom(200) for other in all_of.boxes[VICTIM]}
    for node in all_of.nodes:
        try:
            all_of.train(node, all_of.inbox(node, all_of.nodes))
        except Refused:
            continue
    gone = all_of.failed.keys() - {VICTIM}
    why = next(iter(all_of.failed.values()), "nothing")
    return 0, f"the handlers of {len(gone)} honest clients raise {why}"


def garbage_answer(n: int) -> Outcome:
    """A client answers with random shares in the last message."""
    all_of = Cohort(n)
    all_of.up_to_vectors(all_of.nodes, n // 2 + 1)
    for node in all_of.nodes:
        all_of.unmask(node, all_of.nodes)
    for shares in all_of.seeds.values():
        shares[VICTIM - 1] = shares[VICTIM - 1][:4] + os.urandom(len(shares[VICTIM - 1]) - 4)
    try:
        found = all_of.sum_of(all_of.nodes)
    except ValueError as error:
        return 0, f"the server raises '{error}', of whom it does not say"
    return (0, "the sum") if right(found, all_of.nodes) else (0, "a wrong sum, unnoticed")


SUITE: dict[str, tuple[str, Callable[[int], Outcome]]] = {
    "nobody lies": ("none: an honest round", honest),
    "server: false neighbours": ("server: one victim among its friends", victim),
    "server: two halves": ("server: two halves", groups(6)),
    "server: two survivor sets": ("server: two survivor sets", two_sets),
    "server: dead and alive": ("server: a living client listed dead, to others", both_lists),
    "server: a small quorum": ("server: a survivor set below the quorum", small),
    "server: models that differ": ("server: models that differ", models),
    "server: asks early": ("server: asks to unmask beside INBOX", early),
    "server: the same round twice": ("server: the same round twice", twice),
    "client: garbage for shares": ("client: garbage as SHARES", garbage_shares),
    "client: garbage as answer": ("client: garbage as UNMASK", garbage_answer),
}


def ours(n: int) -> dict[str, dict[str, str]]:
    """The suite's own rows, active, everybody everybody's share holder."""
    return {row.attack: row.row() for row in attacks(SecAgg(mode="active", graph="complete"), n)}


def main(n: int) -> None:
    """Play both."""
    rows = ours(n)
    out = []
    for name, (mine, play) in SUITE.items():
        smallest, happened = play(n)
        out.append({"attack": name, "theirs": smallest, "happened": happened, "ours": rows[mine]})
    print(json.dumps(out))


if __name__ == "__main__":
    main(int(sys.argv[1]))
