"""The attacks of the scored suite, played on Flower's own client-side handlers of SecAgg+ where
their messages can say them, beside the same on our parties.

``python -m benchmarks.peers.secagg_attacks_flower N`` prints one JSON list: per attack how many
updates the smallest sum has that the server reads (0: none), and what happened, at both.
Flower's parameters are its workflow's own: the threshold and the number of shares are what the
server writes in its first message.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable

import numpy as np
from flwr.common.secure_aggregation.crypto.shamir import combine_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import (
    decrypt,
    encrypt,
    generate_shared_key,
)
from flwr.common.secure_aggregation.secaggplus_utils import (
    share_keys_plaintext_concat,
    share_keys_plaintext_separate,
)
from flwr.supercore.primitives.asymmetric import (
    bytes_to_private_key,
    bytes_to_public_key,
    generate_key_pairs,
    public_key_to_bytes,
)

from benchmarks.peers.secagg_flower_cohort import (
    VICTIM,
    Cohort,
    D,
    Refused,
    less,
    opened,
    right,
    update_of,
)
from privfl.audit.protocol import attacks
from privfl.crypto import SecAgg

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
        left = less(left, combine_shares(all_of.seeds[node]))
    for gone in dead:
        secret = bytes_to_private_key(combine_shares(all_of.keys[gone]))
        for node in pair:
            shared = generate_shared_key(secret, bytes_to_public_key(all_of.public[node][0]))
            left = less(left, shared, 1 if node > gone else -1)
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
