"""Symmetries of rules: those that a class declares hold, and no others."""

from __future__ import annotations

import inspect

import torch

from privfl.engine.compatibility import AnyRule
from privfl.testing.building import subjects
from privfl.testing.check import expect
from privfl.testing.rows import D, N, aggregate, crowd, of


def symmetric(rule: AnyRule, symmetry: str, seed: int) -> bool:
    """Whether a symmetry holds of one crowd of rows: the result does not depend on their order (P),
    moves along with a translation (T), a positive scale (S), a rotation (R).
    """
    values = crowd(seed=seed) - int(seed >= 3)  # later crowds lie around zero, where rows disagree
    rng = torch.Generator().manual_seed(100 + seed)
    plain = aggregate(rule, of(values))
    if symmetry == "P":
        order = torch.randperm(N, generator=rng)
        moved, expected = of(values[order], tuple(order.tolist())), plain
    elif symmetry == "T":
        by = 3 * torch.randn(D, generator=rng, dtype=torch.float64)
        moved, expected = of(values + by), plain + by
    elif symmetry == "S":
        scale = (2.5, 0.01, 100.0)[seed % 3]
        moved, expected = of(scale * values), scale * plain
    else:
        turn = torch.linalg.qr(torch.randn(D, D, generator=rng, dtype=torch.float64)).Q
        moved, expected = of(values @ turn), plain @ turn
    return torch.allclose(
        aggregate(rule, moved), expected, rtol=1e-5, atol=1e-6 * float(expected.norm())
    )


def declared_symmetries(kind: type) -> str:
    """What a class declares, of P, T, S, R; a class that declares nothing has P to keep."""
    return str(inspect.getattr_static(kind, "symmetries", "P"))


def symmetries_hold(rule: AnyRule) -> None:
    """Refuse a declared symmetry that some crowd breaks."""
    for symmetry in declared_symmetries(type(rule)):
        holds = [symmetric(rule, symmetry, seed) for seed in range(3)]
        expect(
            all(holds),
            f"{_SYMMETRIES[symmetry]} changes the result otherwise (crowd {holds.index(False)})"
            if not all(holds)
            else "",
            f'take "{symmetry}" out of symmetries, or mend the rule',
        )


_SYMMETRIES = {
    "P": "another order of rows",
    "T": "a translation",
    "S": "a positive scale",
    "R": "a rotation",
}


def all_declared(kind: type) -> None:
    """Refuse a class all of whose examples have a symmetry that it does not declare."""
    if inspect.getattr_static(kind, "symmetries", None) is None:
        return
    made = [subject.made for subject in subjects(kind)]
    for symmetry in set("PTSR") - set(declared_symmetries(kind)):
        expect(
            not all(symmetric(rule, symmetry, seed) for rule in made for seed in range(6)),
            f"it kept to {_SYMMETRIES[symmetry]} in all of its {len(made)} examples and 6 crowds",
            f'add "{symmetry}" to symmetries, or an example that has it not',
        )
