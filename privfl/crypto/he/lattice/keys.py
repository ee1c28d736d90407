"""Keys of BFV and CKKS. They hold bytes, so that parties can be put to rest; SEAL's objects are
made when they are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import tenseal.sealapi as seal

from privfl.core import Buffer, KeepsSecrets, RoundPlan
from privfl.crypto.he.lattice.flooding import deviation, gaussian
from privfl.crypto.he.lattice.parameters import Lattice
from privfl.crypto.he.lattice.seal import context, encoders, generate, load, passage
from privfl.crypto.he.scheme import key_id
from privfl.crypto.he.wire import Numbers, Parts, Refused, pack, unpack
from privfl.crypto.he.workers import spread

Encryption: TypeAlias = Literal["public", "symmetric", "seeded"]


class LatticePublic:
    """A public key, and all that servers do."""

    def __init__(self, lattice: Lattice, public: bytes, workers: int = 1) -> None:
        self.lattice, self.public, self.workers = lattice, public, workers

    @property
    def key_id(self) -> bytes:
        """It names the parameters and the key."""
        return key_id(self.lattice.scheme.encode(), self.to_bytes())

    def to_bytes(self) -> bytes:
        """Parameters and key."""
        return pack([self.lattice.to_bytes(), self.public])

    @classmethod
    def from_bytes(cls, data: bytes, lattice: Lattice, workers: int = 1) -> LatticePublic:
        """Read a public key of this parameter set.

        Raises:
            Refused: it is none.
        """
        fields = unpack(data)
        if len(fields) != 2 or bytes(fields[0]) != lattice.to_bytes():
            raise Refused(
                f"not a {lattice.scheme} public key of the parameters that this channel uses"
            )
        with passage() as file:
            file.into(seal.PublicKey(), context(lattice), fields[1])
        return cls(lattice, bytes(fields[1]), workers)

    def encrypt(self, numbers: Numbers, plan: RoundPlan) -> Parts:
        """One ciphertext for every ``slots`` numbers."""
        return (pack(_encrypted(self.lattice, "public", self.public, numbers, self.workers)),)

    def check(self, ciphertext: Parts, plan: RoundPlan) -> None:
        """Refuse another number of ciphertexts, and what SEAL does not read as one.

        Raises:
            Refused: and why.
        """
        with passage() as file:
            for chunk in self._chunks(ciphertext, plan):
                load(file, self.lattice, chunk)

    def add(self, ciphertexts: Sequence[Parts], plan: RoundPlan) -> Parts:
        """Sums, chunk by chunk.

        Raises:
            Refused: nothing to add, or what is no ciphertext of these parameters.
        """
        if not ciphertexts:
            raise Refused("there is nothing to add")
        evaluator, sums = seal.Evaluator(context(self.lattice)), []
        with passage() as file:
            for chunks in zip(
                *(self._chunks(ciphertext, plan) for ciphertext in ciphertexts), strict=True
            ):
                total = load(file, self.lattice, chunks[0])
                for chunk in chunks[1:]:
                    evaluator.add_inplace(total, load(file, self.lattice, chunk))
                sums.append(file.out(total))
        return (pack(sums),)

    def _chunks(self, ciphertext: Parts, plan: RoundPlan) -> list[memoryview]:
        chunks = unpack(ciphertext[0]) if len(ciphertext) == 1 else []
        wanted = -(-(plan.d + 1) // self.lattice.slots)
        if len(chunks) != wanted:
            raise Refused(f"{len(chunks)} ciphertexts where {wanted} were due")
        return chunks


class LatticeSecret(KeepsSecrets):
    """A secret key. CKKS sums leave it flooded and in no other way: ``flooding_bits`` and
    ``releases`` are the s and T of `flooding`.
    """

    def __init__(
        self,
        public: LatticePublic,
        secret: bytes,
        encryption: Encryption,
        flooding_bits: int = 0,
        releases: int = 0,
    ) -> None:
        self.public, self.secret, self.encryption = public, secret, encryption
        self.flooding_bits, self.releases = flooding_bits, releases

    def to_bytes(self) -> bytes:
        """Both halves."""
        return pack([self.public.to_bytes(), self.secret])

    def encrypt(self, numbers: Numbers, plan: RoundPlan) -> Parts:
        """Under the secret key itself where the channel is symmetric: faster, and half as long when
        the random half is a seed.
        """
        if self.encryption == "public":
            return self.public.encrypt(numbers, plan)
        return (
            pack(
                _encrypted(
                    self.public.lattice, self.encryption, self.secret, numbers, self.public.workers
                )
            ),
        )

    def decrypt(self, ciphertext: Parts, plan: RoundPlan, count: int) -> Numbers:
        """The sum [d + 1] of ``count`` contributions: exact for BFV, flooded for CKKS.

        Raises:
            Refused: no ciphertext of this key's parameters.
        """
        numbers = self._decrypted(ciphertext, plan)
        lattice = self.public.lattice
        if lattice.scheme == "bfv":
            return numbers
        released: Numbers = numbers + deviation(
            lattice, plan, count, self.flooding_bits, self.releases
        ) * gaussian(len(numbers))
        return released

    def _decrypted(self, ciphertext: Parts, plan: RoundPlan) -> Numbers:
        lattice, workers = self.public.lattice, self.public.workers
        chunks = [bytes(chunk) for chunk in self.public._chunks(ciphertext, plan)]
        step = -(-len(chunks) // workers)
        jobs = [(lattice, self.secret, chunks[i : i + step]) for i in range(0, len(chunks), step)]
        return np.concatenate(spread(_open, jobs, workers))[: plan.d + 1]


def fresh(lattice: Lattice, workers: int) -> tuple[LatticePublic, bytes]:
    """A new key pair."""
    public, secret = generate(lattice)
    return LatticePublic(lattice, public, workers), secret


def _encrypted(
    lattice: Lattice, how: Encryption, key: bytes, numbers: Numbers, workers: int
) -> list[Buffer]:
    slots = lattice.slots
    step = -(-len(numbers) // (slots * workers)) * slots
    jobs = [(lattice, how, key, numbers[i : i + step]) for i in range(0, len(numbers), step)]
    return spread(_close, jobs, workers)


def _close(job: tuple[Lattice, Encryption, bytes, Numbers]) -> list[Buffer]:
    lattice, how, key, numbers = job
    encode, _ = encoders(lattice)
    made, closed, slots = context(lattice), [], lattice.slots
    with passage() as file:
        kind: Any = seal.PublicKey if how == "public" else seal.SecretKey
        encryptor = seal.Encryptor(made, file.into(kind(), made, key))
        for i in range(0, len(numbers), slots):
            plain, ciphertext = seal.Plaintext(), seal.Ciphertext()
            encode(numbers[i : i + slots], plain)
            if how == "public":
                encryptor.encrypt(plain, ciphertext)
            elif how == "symmetric":
                encryptor.encrypt_symmetric(plain, ciphertext)
            else:
                ciphertext = encryptor.encrypt_symmetric(plain)
            closed.append(file.out(ciphertext))
    return list(closed)


def _open(job: tuple[Lattice, bytes, list[bytes]]) -> list[Numbers]:
    lattice, key, chunks = job
    _, decode = encoders(lattice)
    made, opened = context(lattice), []
    with passage() as file:
        decryptor = seal.Decryptor(made, file.into(seal.SecretKey(), made, key))
        for chunk in chunks:
            plain = seal.Plaintext()
            decryptor.decrypt(load(file, lattice, chunk), plain)
            opened.append(decode(plain))
    return opened
