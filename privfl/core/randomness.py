"""Two kinds of chance that never mix: simulation randomness, which a seed repeats, and privacy
noise, which nothing must repeat.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from privfl.core.sealed_state import KeepsSecrets


@runtime_checkable
class CoinSource(Protocol):
    """Where cohorts, batches and the lots of rules and defences are drawn from."""

    @property
    def repeatable(self) -> bool:
        """Whether somebody who knows a seed can draw the same again."""
        ...

    def derive(self, purpose: str, *indices: int) -> int:
        """A 63-bit number for this purpose and these indices."""
        ...

    def generator(self, purpose: str, *indices: int) -> torch.Generator:
        """A generator for this purpose and these indices, to be used and forgotten."""
        ...


@dataclass(frozen=True, slots=True)
class Seeds:
    """One seed, and a generator of its own for every purpose, round and client: no draw depends on
    how many came before it.

    >>> a, b = Seeds(1).generator("training", 3, 7), Seeds(1).generator("training", 3, 7)
    >>> bool(torch.rand(1, generator=a) == torch.rand(1, generator=b))
    True
    """

    seed: int

    @property
    def repeatable(self) -> bool:
        """Always."""
        return True

    def derive(self, purpose: str, *indices: int) -> int:
        """A 63-bit number that belongs to this purpose and these indices."""
        text = "/".join(["privfl-simulation", str(self.seed), purpose, *map(str, indices)])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1

    def generator(self, purpose: str, *indices: int) -> torch.Generator:
        """A fresh generator for this purpose and these indices."""
        return torch.Generator().manual_seed(self.derive(purpose, *indices))


@runtime_checkable
class NoiseSource(Protocol):
    """Where privacy noise comes from."""

    @property
    def repeatable(self) -> bool:
        """Whether somebody who knows a seed can subtract the noise again: then no privacy guarantee
        holds.
        """
        ...

    def random_bytes(self, n: int) -> bytes:
        """The next n bytes."""
        ...

    def at(self, round: int) -> NoiseSource:
        """Where a round's noise comes from: itself, unless rounds have streams of their own."""
        ...


@dataclass(frozen=True, slots=True)
class OsNoise:
    """Noise from the operating system's CSPRNG.

    >>> len(OsNoise().random_bytes(3)), OsNoise().repeatable
    (3, False)
    """

    @property
    def repeatable(self) -> bool:
        """Never."""
        return False

    def random_bytes(self, n: int) -> bytes:
        """The next n bytes of the operating system's."""
        return os.urandom(n)

    def at(self, round: int) -> OsNoise:
        """Itself."""
        return self


_HEADER, _WORDS = 24, 624
"""Where the words of the Mersenne Twister begin in the state of a torch.Generator, 64 bits each of
which 32 are used, and how many there are.
"""


def secret_generator(noise: NoiseSource) -> torch.Generator:
    """A generator whose whole state of 19,968 bits is from a noise source: for one draw of a cohort
    or of a batch, after which it is forgotten.

    A seed will not do: torch keeps 32 bits of it, and who sees the releases can try them all. The
    first 312 coins are as random as the source; those after are the Mersenne Twister's, of which
    nobody is shown one.

    >>> a, b = secret_generator(OsNoise()), secret_generator(OsNoise())
    >>> bool((torch.rand(9, generator=a) == torch.rand(9, generator=b)).all())
    False
    """
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()
    raw = np.frombuffer(noise.random_bytes(4 * _WORDS), dtype="<u4").astype("<u8")
    words = torch.from_numpy(np.frombuffer(raw.tobytes(), dtype=np.uint8).copy())
    state[_HEADER : _HEADER + 8 * _WORDS] = words
    generator.set_state(state)
    return generator


@dataclass(frozen=True, slots=True)
class SecretCoins:
    """Every draw from the operating system's CSPRNG, and forgotten after it: nobody draws the same
    again, whoever draws them included.

    So each party on a network draws what is its own to draw: the server cohorts and lots, a client
    its batches. Nothing is kept from which they follow, so who takes a machine over later does not
    learn what was drawn before.

    >>> coins = SecretCoins()
    >>> coins.derive("cohort", 0) == coins.derive("cohort", 0), coins.repeatable
    (False, False)
    """

    @property
    def repeatable(self) -> bool:
        """Never."""
        return False

    def derive(self, purpose: str, *indices: int) -> int:
        """Another 63-bit number at every call."""
        return int.from_bytes(os.urandom(8), "big") >> 1

    def generator(self, purpose: str, *indices: int) -> torch.Generator:
        """Another generator at every call; its whole state is random (`secret_generator`)."""
        return secret_generator(OsNoise())


class SeededNoise(KeepsSecrets):
    """Noise that a seed repeats (AES-256-CTR), for tests and exact reruns. It voids every
    guarantee, and reports say so.

    >>> SeededNoise(5).random_bytes(4) == SeededNoise(5).random_bytes(4), SeededNoise(5).repeatable
    (True, True)
    """

    def __init__(self, seed: int | str) -> None:
        self._seed = seed
        key = hashlib.sha256(f"privfl-noise/{seed}".encode()).digest()
        self._stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()

    @property
    def repeatable(self) -> bool:
        """Always."""
        return True

    @property
    def digest(self) -> str:
        """What tells this stream from others; who tries seeds finds a short one by it."""
        return hashlib.sha256(f"privfl-noise-name/{self._seed}".encode()).hexdigest()[:32]

    def random_bytes(self, n: int) -> bytes:
        """The next n bytes of the stream."""
        return self._stream.update(bytes(n))

    def at(self, round: int) -> SeededNoise:
        """A stream of a round's own, so that a resumed run draws what it would have drawn."""
        return SeededNoise(f"{self._seed}/{round}")
