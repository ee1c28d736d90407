"""What homomorphic aggregation promises: from who holds which key, and what decryptors check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from privfl.core import Coalition, Guarantee, Liars, Lie, Power, Some
from privfl.crypto import lies
from privfl.crypto.he.lies import answers_another, keeps_the_key, opens_one
from privfl.crypto.he.parameters import Arrangement

_SET_UP = "a key set-up in which all parties learn each other's true keys"
_ONCE = "decryptors that open a round once"
PICKS_C1 = (
    "One client that lies can have the opened sum show the secret key, and then reads every update"
    " with the server, without a decryptor: use one_time_rlwe."
)
CHOSEN = "calls one client's ciphertext a sum (and a chosen one shows the key)"


@dataclass(frozen=True, slots=True)
class SchemeLies:
    """The lies of a scheme's own: a decryptor that moves the sum (``moves``, and ``says`` how; and
    nothing comes of it where parts are ``proven`` and enough others are left), a
    server that has one ciphertext opened where sums are not verified, two sums of a round under a
    split key. ``aloud``: what one client can do that picks its own c1, where ciphertexts have one.
    """

    moves: Callable[[], Liars] = answers_another
    proven: bool = False
    says: str = "answers another sum than it decrypted"
    one: Callable[[], Liars] = opens_one
    says_one: str = "calls one client's ciphertext a sum"
    twice: Callable[[], Liars] | None = None
    aloud: str = ""


def he_guarantee(arrangement: Arrangement, own: SchemeLies) -> Guarantee[Liars]:
    """The guarantee of a channel whose keys are so arranged."""
    return Guarantee(
        reads=(_readers(arrangement),),
        lies=(
            *_server_lies(arrangement, own),
            *_holder_lies(arrangement, own),
            lies.skips_its_clip("shift", "nobody sees a single input"),
            lies.sends_garbage(),
        ),
        leaks=("who takes part", lies.LAST, lies.CHOSEN),
        assumes=tuple(_assumed(arrangement, own)),
        shows="only the sum of {count} updates",
        settings=lambda n: _settings(arrangement, n),
        tapped=False,
    )


def _readers(arrangement: Arrangement) -> Coalition:
    if arrangement.keys == "shared":
        return Coalition.of("server", some=Some.others(lambda n: 1, "any client"))
    if arrangement.keys == "authority":
        alone = ("decryptor/0",)
        return Coalition.of(*alone, *(() if arrangement.verifies else ("server",)))
    t, k = arrangement.threshold, arrangement.holders
    some = Some.of(t, arrangement.decryptors, f"any {t} of {k} decryptors")
    hears_all = arrangement.keys == "threshold" and arrangement.verifies
    return Coalition.of(*(() if hears_all else ("server",)), some=some)


def _server_lies(arrangement: Arrangement, own: SchemeLies) -> list[Lie[Liars]]:
    server, told = Coalition.of("server"), [lies.publishes_another()]
    if not arrangement.verifies:
        return [Lie(server, "read", own.says_one, own.one), *told]
    if arrangement.min_clients == 1:
        alone = lies.with_the_fewest(lambda plan: 1)
        return [Lie(server, "read", "hands on one client's ciphertext alone", alone), *told]
    rule = "quorum" if arrangement.min_clients is None else "min_clients"
    told = list(lies.of_any_sum(lambda plan: arrangement.quorum(plan.n), rule))
    meet = 2 * arrangement.threshold - arrangement.holders
    if own.twice is not None and arrangement.threshold < arrangement.holders:
        corrupt = Coalition.of("server", *arrangement.decryptors[:meet])
        what = "has two overlapping sums of a round opened, by groups of decryptors that meet in"
        told.append(Lie(corrupt, "read", f"{what} {meet} that collude", own.twice))
    return told


def _holder_lies(arrangement: Arrangement, own: SchemeLies) -> list[Lie[Liars]]:
    told: list[Lie[Liars]] = []
    if arrangement.keys in ("shared", "threshold"):
        what = "keeps the key that the dealer was to forget"
        told.append(Lie(Coalition.of("dealer", "server"), "read", what, keeps_the_key))
    if arrangement.keys != "shared":
        who = arrangement.decryptors[0]
        silence: Power = "nothing" if arrangement.threshold < arrangement.holders else "abort"
        told.append(Lie(Coalition.of(who), silence if own.proven else "shift", own.says, own.moves))
        told.append(lies.falls_silent(who, silence))
    return told


def _assumed(arrangement: Arrangement, own: SchemeLies) -> list[str]:
    said = [_SET_UP, lies.MAIL]
    if arrangement.keys in ("shared", "threshold"):
        said.append("a dealer that forgets the key")
    if not arrangement.verifies:
        said.append("a server that adds what it is sent")
    if arrangement.keys == "shared":
        said.append("clients that trust each other")
    else:
        said.append(_ONCE)
    if own.aloud:
        said.append("clients that do not pick their own c1")
    return said


def _settings(arrangement: Arrangement, n: int) -> dict[str, str]:
    said = {
        "keys": arrangement.keys,
        "quorum": f"{arrangement.quorum(n)} clients, sums of fewer stay closed",
        "sums": "verified by decryptors" if arrangement.verifies else "not verified",
    }
    if arrangement.keys in ("threshold", "joint"):
        said["threshold"] = f"{arrangement.threshold} of {arrangement.holders} decryptors decrypt"
    if arrangement.releases is not None:
        said["releases"] = f"{arrangement.releases} sums under one key"
    return said
