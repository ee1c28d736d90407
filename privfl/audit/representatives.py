"""What representatives of a class are worth: are they of the class, and are they nearer to the
samples that were trained on than to others of it? The mean of a class is no member's sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from privfl.audit.intervals import Figure, proportion
from privfl.audit.ranking import membership


@dataclass(frozen=True, slots=True)
class ClassLikeness:
    """Representatives of a class beside its members, beside samples of it that nobody trained on,
    and beside what somebody claims who saw nothing (the mean of the adversary's own samples).

    ``right`` is the share that another classifier takes for the class, ``blind_right`` that of the
    blind claim (0 or 1). ``psnr`` is that of the representatives' mean to the members' mean, in dB,
    ``blind_psnr`` that of the blind claim. ``nearer`` is how well the distance to the nearest
    representative tells members from held-out samples of the class: .5 where the representatives
    are of the class and of no member; ``blind_nearer`` is what the distance to the blind claim
    tells, which is the luck of who is a member. ``to_member`` and ``to_held_out`` are the mean
    distances of a representative to the nearest of equally many, root mean square by feature.
    """

    right: Figure
    blind_right: float
    psnr: float
    blind_psnr: float
    nearer: Figure
    blind_nearer: float
    to_member: float
    to_held_out: float

    @property
    def of_members(self) -> bool:
        """Whether members lie nearer than held-out samples, and nearer than they do to the blind
        claim.
        """
        return self.nearer.low > max(0.5, self.blind_nearer)

    def __str__(self) -> str:
        of_class = (
            f"another classifier takes {self.right} of the representatives for the class (of the"
            f" blind claim {self.blind_right:.0f}), PSNR of the means {self.psnr:.1f} dB (blind"
            f" {self.blind_psnr:.1f})"
        )
        if self.of_members:
            members = "members lie nearer to them than held-out samples, so they hold more than it"
        else:
            members = (
                "members lie no nearer to them than held-out samples: a property of the class, and"
                " no reconstruction of samples"
            )
        return f"{of_class}; AUC of members {self.nearer}: {members}"


def class_likeness(
    found: Float[Tensor, "n *shape"],
    wanted: int,
    members: Float[Tensor, "m *shape"],
    held_out: Float[Tensor, "k *shape"],
    blind: Float[Tensor, "*shape"],
    classifier: nn.Module,
    peak: float = 1.0,
) -> ClassLikeness:
    """Score representatives of the class ``wanted``.

    Args:
        members: the samples of the class that were trained on; ``held_out`` others of the same
            clients (or of the same source) that nobody trained on. The larger of the two is cut,
            so that the nearest of either is the nearest of as many.
        blind: what somebody claims who saw nothing.
        classifier: trained on neither these samples nor the adversary's, from samples to scores of
            classes.
        peak: the features' range, for PSNR.

    Raises:
        ValueError: there are no representatives, no members or no held-out samples.

    >>> x, net = torch.eye(4)[:, None, None], nn.Sequential(nn.Flatten(), nn.Identity())
    >>> told = class_likeness(x[:1], 0, x[:2], x[2:], torch.zeros(1, 1, 4), net)
    >>> told.right.value, told.blind_right, told.nearer.value
    (1.0, 1.0, 0.75)
    """
    n = min(len(members), len(held_out))
    if not len(found) or not n:
        raise ValueError(
            f"{len(found)} representatives, {len(members)} members and {len(held_out)} held-out"
            " samples: one of each at least is needed."
        )
    inside, outside = members[:n].flatten(1).double(), held_out[:n].flatten(1).double()
    made = found.flatten(1).double()
    both = torch.cat([inside, outside])
    apart = torch.cdist(both, made) / made.shape[1] ** 0.5
    truth = torch.arange(2 * n) < n
    told = membership(-apart.amin(dim=1), truth)
    to_blind = (both - blind.flatten().double()).norm(dim=1)
    with torch.no_grad():
        taken = classifier(found).argmax(dim=1) == wanted
        blind_taken = bool(classifier(blind[None]).argmax(dim=1) == wanted)
    mean = inside.mean(dim=0)
    return ClassLikeness(
        right=proportion(int(taken.sum()), len(taken)),
        blind_right=float(blind_taken),
        psnr=_psnr(made.mean(dim=0), mean, peak),
        blind_psnr=_psnr(blind.flatten().double(), mean, peak),
        nearer=told.auc,
        blind_nearer=membership(-to_blind, truth).auc.value,
        to_member=float(apart[:n].amin(dim=0).mean()),
        to_held_out=float(apart[n:].amin(dim=0).mean()),
    )


def _psnr(a: Tensor, b: Tensor, peak: float) -> float:
    error = (a - b).square().mean().clamp(min=1e-14)
    return float(10 * torch.log10(peak**2 / error))
