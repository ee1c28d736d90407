"""PINE: a vector shared between two servers with a proof that its norm is bounded (Rothblum, Omri,
Chen, Talwar 2023), byte for byte as draft-chen-cfrg-vdaf-pine of 17 October 2024 on
draft-irtf-cfrg-vdaf-11.

The client shares the vector and commits to the shares; the commitments give the coins of the
products that show that no sum wrapped around; with these it commits again, and the second
commitments give the coins of the proof. Both servers recompute their own commitments, and say of
their shares of vector and proof what one linear query gives: the two answers together show whether
the proof holds, and hide everything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from hmac import compare_digest

import numpy as np

from privfl.core import Buffer, KeepsSecrets
from privfl.crypto.primitives.fields import Malformed
from privfl.crypto.sharing.pine import wraparound
from privfl.crypto.sharing.pine.circuit import Circuit
from privfl.crypto.sharing.pine.field64 import Field64, add, decode, encode, subtract
from privfl.crypto.sharing.pine.xof import HMAC_SHA256_AES128, Xof

VERSION = 1
NONCE = 16
LEADER, HELPER = 0, 1


class Usage(IntEnum):
    """What an expansion is for."""

    MEASUREMENT = 1
    PROOF = 2
    JOINT = 3
    PROVE = 4
    QUERY = 5
    JOINT_SEED = 6
    JOINT_PART = 7
    COINS = 8
    COINS_SEED = 9
    COINS_PART = 10


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Report(KeepsSecrets):
    """What a client sends: to both servers the public share, and each its own. All three together
    are its vector.
    """

    public: bytes
    leader: bytes
    helper: bytes


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Prepared(KeepsSecrets):
    """One server's half of a verification: its share of the contribution, which it keeps, what it
    says to the other server, and the two seeds that it computed everything with.
    """

    contribution: Field64
    said: bytes
    seeds: bytes


@dataclass(frozen=True, slots=True)
class Pine:
    """Who shares and verifies contributions of one circuit.

    ``algorithm`` names the instance in every domain separation; ``proofs`` is how often the rules
    beside the norm are proved, against clients that try coins on their own machine.
    """

    circuit: Circuit
    algorithm: int = 0xFFFF1004
    proofs: int = 2
    xof: Xof = HMAC_SHA256_AES128

    @property
    def rand(self) -> int:
        """Random bytes that sharing takes."""
        return 7 * self.xof.seed_size

    @property
    def public_size(self) -> int:
        """Bytes of a public share."""
        return 4 * self.xof.seed_size

    @property
    def leader_size(self) -> int:
        """Bytes of the leader's share."""
        return 8 * (self.circuit.length + self._proof) + 2 * self.xof.seed_size

    @property
    def helper_size(self) -> int:
        """Bytes of the helper's share."""
        return 4 * self.xof.seed_size

    @property
    def said_size(self) -> int:
        """Bytes of what a server says to the other."""
        return 8 * self._verifier + 2 * self.xof.seed_size

    @property
    def _proof(self) -> int:
        return self.circuit.norm_gadget.proof + self.proofs * self.circuit.rest_gadget.proof

    @property
    def _verifier(self) -> int:
        return self.circuit.norm_gadget.verifier + self.proofs * self.circuit.rest_gadget.verifier

    def shard(self, vector: Field64, nonce: bytes, rand: bytes, weight: int = 0) -> Report:
        """The shares of a vector [dimension] of field elements, from fresh randomness [rand].

        Raises:
            OutOfRange: the coins that this randomness gives fail an honest vector: take other
                randomness, before anything is sent.
        """
        size, circuit = self.xof.seed_size, self.circuit
        seeds = [rand[i : i + size] for i in range(0, self.rand, size)]
        helper, blinds, prove = seeds[:4], seeds[4:6], seeds[6]
        masks = self._measurement(helper[0])
        fixed = circuit.with_norm(vector)
        parts = self._parts(Usage.COINS_PART, nonce, fixed, masks, (blinds[0], helper[2]))
        coins_seed = self._joined(Usage.COINS_SEED, parts)
        products = self._products(vector, coins_seed)
        measurement = circuit.with_products(fixed, products, weight)
        joint_parts = self._parts(
            Usage.JOINT_PART, nonce, measurement, masks, (blinds[1], helper[3])
        )
        joint = self._joint(self._joined(Usage.JOINT_SEED, joint_parts))
        first = self._elements(prove, Usage.PROVE, self._proofs, self._wires)
        proof = self._prove(measurement, products, first, joint)
        leader = [subtract(measurement, masks), subtract(proof, self._proof_mask(helper[1]))]
        return Report(
            b"".join((*parts, *joint_parts)),
            b"".join((*map(encode, leader), *blinds)),
            b"".join(helper),
        )

    def prepare(
        self, server: int, verify_key: bytes, nonce: bytes, public: Buffer, share: Buffer
    ) -> Prepared:
        """What a server, `LEADER` or `HELPER`, makes of its share; ``verify_key`` both servers
        know, and no client.

        Raises:
            Malformed: a share of another size, or with words that are no field elements.
            RootOfUnity: the point that key and nonce give would open an input.
        """
        size, circuit = self.xof.seed_size, self.circuit
        if len(public) != self.public_size:
            raise Malformed(f"a public share has {self.public_size} bytes, not {len(public)}")
        measurement, proof, blinds = self._unpacked(server, share)
        claimed = [bytes(public[i : i + size]) for i in range(0, self.public_size, size)]
        fixed = measurement[: circuit.committed]
        part = self._part(server, Usage.COINS_PART, nonce, fixed, blinds[0])
        coins_seed = self._joined(Usage.COINS_SEED, _with(claimed[:2], server, part))
        products = self._products(measurement[: circuit.dimension], coins_seed)
        joint_part = self._part(server, Usage.JOINT_PART, nonce, measurement, blinds[1])
        joint_seed = self._joined(Usage.JOINT_SEED, _with(claimed[2:], server, joint_part))
        joint = self._joint(joint_seed)
        points = self._elements(
            verify_key, Usage.QUERY, self._proofs + nonce, 1 + self.proofs
        ).tolist()
        said = self._query(measurement, products, proof, joint, points)
        return Prepared(
            circuit.contribution(measurement),
            encode(said) + part + joint_part,
            coins_seed + joint_seed,
        )

    def contribution(self, server: int, share: Buffer) -> Field64:
        """A server's share of what is added up, of a report that nobody verifies.

        Raises:
            Malformed: as `prepare`.
        """
        return self.circuit.contribution(self._unpacked(server, share)[0])

    def holds(self, leader: tuple[Buffer, Buffer], helper: tuple[Buffer, Buffer]) -> bool:
        """Whether what both servers said of a report (``said``, ``seeds``) proves that it keeps the
        rules.

        Raises:
            Malformed: what one said has another size, or words that are no field elements.
        """
        size, n = self.xof.seed_size, self._verifier
        words = [decode(memoryview(said)[: 8 * n], n) for said, _ in (leader, helper)]
        parts = [bytes(said[8 * n :]) for said, _ in (leader, helper)]
        if any(len(part) != 2 * size for part in parts):
            raise Malformed(f"a server's half of a verification has {self.said_size} bytes")
        seeds = self._joined(Usage.COINS_SEED, [part[:size] for part in parts]) + self._joined(
            Usage.JOINT_SEED, [part[size:] for part in parts]
        )
        same = [compare_digest(seeds, bytes(used)) for _, used in (leader, helper)]
        return all(same) and self._decide(add(*words))

    def _decide(self, verifier: Field64) -> bool:
        norm, rest = self.circuit.norm_gadget, self.circuit.rest_gadget
        pieces = np.split(verifier, [norm.verifier + i * rest.verifier for i in range(self.proofs)])
        return norm.holds(pieces[0]) and all(rest.holds(piece) for piece in pieces[1:])

    def _prove(
        self, measurement: Field64, products: Field64, first: Field64, joint: Field64
    ) -> Field64:
        circuit = self.circuit
        norm, rest = circuit.norm_gadget, circuit.rest_gadget
        proofs = [norm.prove(circuit.norm_wires(measurement), first[: norm.arity])]
        for i in range(self.proofs):
            start = norm.arity + i * rest.arity
            wires = circuit.rest_wires(measurement, products, joint[3 * i : 3 * i + 3], 1)
            proofs.append(rest.prove(wires, first[start : start + rest.arity]))
        return np.concatenate(proofs)

    def _query(
        self,
        measurement: Field64,
        products: Field64,
        proof: Field64,
        joint: Field64,
        points: list[int],
    ) -> Field64:
        circuit = self.circuit
        norm, rest = circuit.norm_gadget, circuit.rest_gadget
        own = proof[: norm.proof]
        output = circuit.norm_output(measurement, norm.outputs(own))
        said = [norm.query(circuit.norm_wires(measurement), own, points[0], output)]
        for i in range(self.proofs):
            start, coins = norm.proof + i * rest.proof, joint[3 * i : 3 * i + 3]
            own = proof[start : start + rest.proof]
            output = circuit.rest_output(measurement, rest.outputs(own), coins, 2)
            wires = circuit.rest_wires(measurement, products, coins, 2)
            said.append(rest.query(wires, own, points[1 + i], output))
        return np.concatenate(said)

    def _unpacked(self, server: int, share: Buffer) -> tuple[Field64, Field64, list[bytes]]:
        size, body = self.xof.seed_size, memoryview(share)
        if server == HELPER:
            if len(body) != self.helper_size:
                raise Malformed(f"a helper's share has {self.helper_size} bytes, not {len(body)}")
            seeds = [bytes(body[i : i + size]) for i in range(0, len(body), size)]
            return self._measurement(seeds[0]), self._proof_mask(seeds[1]), seeds[2:]
        if len(body) != self.leader_size:
            raise Malformed(f"a leader's share has {self.leader_size} bytes, not {len(body)}")
        n = self.circuit.length
        values = decode(body[: -2 * size], n + self._proof)
        return values[:n], values[n:], [bytes(body[-2 * size : -size]), bytes(body[-size:])]

    def _parts(
        self,
        usage: Usage,
        nonce: bytes,
        whole: Field64,
        masks: Field64,
        blinds: tuple[bytes, bytes],
    ) -> list[bytes]:
        """What both servers' shares are committed to by."""
        mask = masks[: len(whole)]
        shares = (subtract(whole, mask), mask)
        return [
            self._part(server, usage, nonce, share, blind)
            for server, (share, blind) in enumerate(zip(shares, blinds, strict=True))
        ]

    def _part(self, server: int, usage: Usage, nonce: bytes, share: Field64, blind: bytes) -> bytes:
        head = bytes([server]) + nonce
        return self.xof.seed(blind, self._dst(usage), head, encode(share))

    def _joined(self, usage: Usage, parts: list[bytes]) -> bytes:
        return self.xof.seed(bytes(self.xof.seed_size), self._dst(usage), *parts)

    def _products(self, vector: Field64, seed: bytes) -> Field64:
        circuit = self.circuit
        n = wraparound.coin_bytes(circuit.dimension, circuit.checks)
        stream = self.xof.expand(seed, self._dst(Usage.COINS)).next(n)
        return wraparound.products(vector, stream, circuit.checks)

    def _joint(self, seed: bytes) -> Field64:
        return self._elements(seed, Usage.JOINT, bytes([self.proofs]), 3 * self.proofs)

    def _measurement(self, seed: bytes) -> Field64:
        return self._elements(seed, Usage.MEASUREMENT, bytes([HELPER]), self.circuit.length)

    def _proof_mask(self, seed: bytes) -> Field64:
        return self._elements(seed, Usage.PROOF, self._proofs + bytes([HELPER]), self._proof)

    @property
    def _proofs(self) -> bytes:
        return bytes([1, self.proofs])

    @property
    def _wires(self) -> int:
        return self.circuit.norm_gadget.arity + self.proofs * self.circuit.rest_gadget.arity

    def _elements(self, seed: bytes, usage: Usage, binder: bytes, n: int) -> Field64:
        return self.xof.elements(seed, self._dst(usage), binder, n)

    def _dst(self, usage: Usage) -> bytes:
        return bytes([VERSION]) + self.algorithm.to_bytes(4, "big") + usage.to_bytes(2, "big")


def _with(parts: list[bytes], server: int, own: bytes) -> list[bytes]:
    return [own if i == server else part for i, part in enumerate(parts)]
