"""The libraries of homomorphic encryption, which the extra ``he`` brings."""

from __future__ import annotations

from privfl.core import Library

seal = Library("tenseal.sealapi", "he")
zstandard = Library("zstandard", "he")
gmpy2 = Library("gmpy2", "he")
phe = Library("phe", "he")
