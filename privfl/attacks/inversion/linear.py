"""Closed form for a linear first layer: its weight update has the batch's rank, and ReLU makes the
factor that we look for sparse.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from privfl.attacks.inference import Family, Lacking, Target, Targeted, observe, recipe
from privfl.attacks.inversion.cone import slopes
from privfl.attacks.inversion.labels import labels
from privfl.attacks.inversion.sparse_factors import batch_of, factor
from privfl.attacks.knowledge import Knowledge
from privfl.attacks.result import Reconstruction
from privfl.core import ClientId, Examples, View


@dataclass(frozen=True, slots=True)
class LinearLeakage(Targeted):
    """The inputs of a linear first layer, exactly (Phong et al. 2018 for one sample; SPEAR,
    Dimitrov et al. 2024, for batches).

    Let ``D`` [b, m] be the loss's slope at the layer's outputs. The weights change by D'X, a matrix
    of rank b, and the biases by D'1. With D'X = L R there is a Q with D' = L Q and X = Q^-1 R;
    where a ReLU follows, about half of D is zero, and the columns of Q are the directions q that
    make L q sparse. SPEAR samples rows that might be zero together; here iteratively reweighted
    least squares from many such draws goes on from there, with e in sum |L q|_e shrinking to the
    blur of rounding or noise: each draw then need not be all zero to lead to a direction, and a
    little noise is stood. In a net with one hidden layer the signs of D are known by class, and
    linear programs find its columns before any draw is made. D'1 fixes the lengths. The wider the
    layer, the easier.

    The form D'X survives summing: over local steps on the whole batch without weight decay, clips,
    clients, and fixed-point rounding. So one pass over an update or over what secure aggregation
    opens is enough, as long as all samples in it together are fewer than the layer is wide. Over
    local steps on smaller batches it was seen to fail.

    It always claims b samples, and does not check them: while one direction is missing
    (``surely sparse`` in the notes), each may be wrong. `SPEAR` claims what it has checked.

    >>> LinearLeakage(target="sum").starts
    128
    """

    family: ClassVar[Family] = "inversion"
    examples: ClassVar[Examples] = {"": {"starts": 32, "tries": 24}}
    target: Target = "client"
    client: ClientId | None = None
    starts: int = 128
    tries: int = 96

    def infer(self, views: tuple[View, ...], knowledge: Knowledge) -> Reconstruction:
        """Samples from the first view.

        Raises:
            NotVisible: the view shows no such contribution.
            Lacking: see `batch_of`, and `factor`.
        """
        view = views[0]
        forward = recipe(view, knowledge)
        observed = observe(view, knowledge, self.target, self.client)
        weight, bias, b = batch_of(observed, forward)
        signed = slopes(observed, forward, knowledge) if b > 1 else None
        found = factor(
            weight.double(),
            bias.double(),
            b,
            signed,
            knowledge.generator(4),
            self.starts,
            self.tries,
        )
        samples = found.X.float().reshape(b, *forward.shape)
        if forward.low:
            samples = samples.clamp(*forward.span(weight))
        try:
            y = labels(replace(observed, samples=b), forward, knowledge)
        except Lacking:
            y = torch.full((b,), -1)
        return Reconstruction(
            type(self).__name__,
            view.adversary,
            samples,
            y,
            1 - found.sure / b,
            notes={"surely sparse": f"{found.sure} of {b}"},
        )
