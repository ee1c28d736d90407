"""Keys of BFV and CKKS. They hold bytes, so that parties can be put to rest; SEAL's objects are
made when they are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeAlias

import numpy as np

from privfl.core import Buffer, KeepsSecrets, RoundPlan
from privfl.crypto.he.lattice import frames, ring_encryption
from privfl.crypto.he.lattice.flooding import deviation, gaussian, seed
from privfl.crypto.he.lattice.parameters import Lattice
from privfl.crypto.he.lattice.residues import Form, body_of, chunks_of
from privfl.crypto.he.lattice.seal import context, encoders, passage
from privfl.crypto.he.libraries import seal
from privfl.crypto.he.scheme import key_id
from privfl.crypto.he.wire import Numbers, Parts, Refused, pack, unpack
from privfl.crypto.he.workers import isolated, spread

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
            frames.public_key(file, lattice, fields[1])
        return cls(lattice, bytes(fields[1]), workers)

    def encrypt(self, numbers: Numbers, plan: RoundPlan) -> Parts:
        """One ciphertext for every ``slots`` numbers.

        Raises:
            HostileKey: the key is so short that its ciphertexts hide nothing.
        """
        return _encrypted(self.lattice, "public", self.public, numbers, self.workers)

    def check(self, ciphertext: Parts, plan: RoundPlan) -> None:
        """Refuse another length, residues that are none, and what hides nothing.

        Raises:
            Refused: and why.
        """
        for chunk in self.whole([ciphertext], plan)[0]:
            frames.opened(self.lattice, chunk)

    def add(self, ciphertexts: Sequence[Parts], plan: RoundPlan) -> Parts:
        """Sums, chunk by chunk: of residues, modulo each prime.

        Raises:
            Refused: nothing to add, or what is no ciphertext of these parameters.
        """
        if not ciphertexts:
            raise Refused("there is nothing to add")
        code, sums = frames.residues(self.lattice), []
        moduli = np.array(code.primes, dtype=np.uint64)[:, None]
        for chunks in zip(*self.whole(ciphertexts, plan), strict=True):
            total = frames.opened(self.lattice, chunks[0])
            for chunk in chunks[1:]:
                total += frames.opened(self.lattice, chunk)
                total = np.minimum(total, total - moduli)  # below its prime, a difference wraps
            sums.append(code.packed(total))
        return (body_of("whole", sums),)

    def whole(self, ciphertexts: Sequence[Parts], plan: RoundPlan) -> list[Sequence[Buffer]]:
        """The chunks [contributions or fewer, chunks] of contributions, without the seeded form:
        of those that have it the sum, in their place. SEAL draws what their seeds stand for, in
        worker processes where there are any; then one process a contribution.

        Raises:
            Refused: another number of chunks, or a residue that is none.
        """
        whole: list[Sequence[Buffer]] = []
        seeded: list[list[bytes]] = []
        for ciphertext in ciphertexts:
            form, chunks = self._chunks(ciphertext, plan)
            if form == "whole":
                whole.append(chunks)
            else:
                seeded.append([bytes(chunk) for chunk in chunks])
        if not seeded:
            return whole
        if self.workers <= 1:
            return [*whole, _sown((self.lattice, seeded))]
        jobs = [(self.lattice, [chunks]) for chunks in seeded]
        return [*whole, *isolated(_sown, jobs, self.workers)]

    def _chunks(self, ciphertext: Parts, plan: RoundPlan) -> tuple[Form, list[memoryview]]:
        wanted = -(-(plan.d + 1) // self.lattice.slots)
        return chunks_of(ciphertext, frames.sizes(self.lattice), wanted)


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

        Raises:
            HostileKey: as `LatticePublic.encrypt`; or the secret key is not ternary.
        """
        if self.encryption == "public":
            return self.public.encrypt(numbers, plan)
        return _encrypted(
            self.public.lattice, self.encryption, self.secret, numbers, self.public.workers
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
        noise = gaussian(len(numbers), seed(self.secret, ciphertext, plan, count))
        released: Numbers = numbers + noise * deviation(
            lattice, plan, count, self.flooding_bits, self.releases
        )
        return released

    def _decrypted(self, ciphertext: Parts, plan: RoundPlan) -> Numbers:
        lattice, workers = self.public.lattice, self.public.workers
        chunks = [bytes(chunk) for chunk in self.public.whole([ciphertext], plan)[0]]
        step = -(-len(chunks) // workers)
        jobs = [(lattice, self.secret, chunks[i : i + step]) for i in range(0, len(chunks), step)]
        return np.concatenate(spread(_open, jobs, workers))[: plan.d + 1]


def fresh(lattice: Lattice, workers: int) -> tuple[LatticePublic, bytes]:
    """A new key pair."""
    public, secret = frames.generate(lattice)
    return LatticePublic(lattice, public, workers), secret


def _encrypted(
    lattice: Lattice, how: Encryption, key: bytes, numbers: Numbers, workers: int
) -> Parts:
    slots = lattice.slots
    step = -(-len(numbers) // (slots * workers)) * slots
    jobs = [(lattice, how, key, numbers[i : i + step]) for i in range(0, len(numbers), step)]
    if len(jobs) > 1 and how != "seeded" and ring_encryption.fits(lattice):
        # numpy lets go of the interpreter lock; sent between processes, what a few milliseconds
        # encrypt costs as much again
        with ThreadPoolExecutor(len(jobs)) as threads:
            chunks = [chunk for some in threads.map(_close, jobs) for chunk in some]
    else:
        chunks = spread(_close, jobs, workers)
    return (body_of("seeded" if how == "seeded" else "whole", chunks),)


def _close(job: tuple[Lattice, Encryption, bytes, Numbers]) -> list[bytes]:
    """By our own ring arithmetic where it takes these parameters: a fifth of SEAL's time."""
    lattice, how, key, numbers = job
    if how == "symmetric" and ring_encryption.fits(lattice):
        return ring_encryption.by_secret_key(lattice, key, numbers)
    if how != "public":
        return by_seal(lattice, how, key, numbers)
    return frames.hiding(
        ring_encryption.by_public_key(lattice, key, numbers)
        if ring_encryption.fits(lattice)
        else by_seal(lattice, how, key, numbers)
    )


def by_seal(lattice: Lattice, how: Encryption, key: bytes, numbers: Numbers) -> list[bytes]:
    """The ciphertexts of numbers as they travel, encrypted by SEAL itself.

    Raises:
        Refused: the key is none.
    """
    encode, _ = encoders(lattice)
    made, closed, slots = context(lattice), [], lattice.slots
    with passage() as file:
        read = frames.public_key if how == "public" else frames.secret_key
        encryptor = seal.Encryptor(made, read(file, lattice, key))
        for i in range(0, len(numbers), slots):
            plain, ciphertext = seal.Plaintext(), seal.Ciphertext()
            encode(numbers[i : i + slots], plain)
            if how == "seeded":
                sealed = encryptor.encrypt_symmetric(plain)
                closed.append(frames.closed_seeded(file, lattice, sealed))
                continue
            if how == "public":
                encryptor.encrypt(plain, ciphertext)
            else:
                encryptor.encrypt_symmetric(plain, ciphertext)
            closed.append(frames.closed(file, lattice, ciphertext))
    return closed


def _sown(job: tuple[Lattice, list[list[bytes]]]) -> list[bytes]:
    """The sum of seeded contributions, whole."""
    lattice, contributions = job
    evaluator, sums = seal.Evaluator(context(lattice)), []
    with passage() as file:
        for first, *others in zip(*contributions, strict=True):
            total = frames.expanded(file, lattice, first)
            for chunk in others:
                evaluator.add_inplace(total, frames.expanded(file, lattice, chunk))
            sums.append(frames.closed(file, lattice, total))
    return sums


def _open(job: tuple[Lattice, bytes, list[bytes]]) -> list[Numbers]:
    lattice, key, chunks = job
    _, decode = encoders(lattice)
    made, opened = context(lattice), []
    with passage() as file:
        decryptor = seal.Decryptor(made, frames.secret_key(file, lattice, key))
        for chunk in chunks:
            plain = seal.Plaintext()
            decryptor.decrypt(frames.load(file, lattice, chunk), plain)
            opened.append(decode(plain))
    return opened
