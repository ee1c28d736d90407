"""A trained model looked at for backdoors, with clean images and nothing else."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from privfl.attacks.backdoor.measure import success
from privfl.audit.inspection.neural_cleanse import (
    NeuralCleanse,
    Triggers,
    anomaly_index,
    evaluating,
    median_of,
)
from privfl.audit.inspection.stimulation import Stimulated, Stimulation
from privfl.core import ConfigError, Dataset, require

InspectionVerdict: TypeAlias = Literal["flagged", "not flagged", "inconclusive"]
FLAGGED_OVER = 2.0
"""The anomaly index above which Neural Cleanse calls a class infected."""
SMALL_SHARE = 0.5
"""The share of the median mask under which a flagged class's mask lies. The index alone flags clean
models: the MAD of ten classes is small by chance now and then.
"""
FEWEST_CLASSES = 4
"""Among fewer (whose trigger was reached), median and MAD say nothing of an outlier."""
MOST_HELD = 1000
"""Clean images on which a trigger is measured that was made on others."""
UNFLAGGED = (
    "A model that is not flagged is not shown to be free of backdoors: only a small patch, at one"
    " place, that turns any image into one class is looked for. Backdoors without a patch (semantic"
    " ones, edge cases) pass, and so can large or faint triggers (blended, sample-specific),"
    " triggers that work from some classes only, several targets at once, and backdoors that were"
    " trained against this inspection."
)
FLAGGED = (
    "A flagged class has a patch much smaller than the others need. That is what a planted trigger"
    " looks like, and no proof of one: a class that is easy to reach looks the same."
)


@dataclass(frozen=True, slots=True)
class ClassTrigger:
    """What was found of one class: the L1 norm of its mask in pixels, its anomaly index (None where
    no trigger reached the success that was asked for), its size as a share of the median
    (``share``), whether it is flagged, the trigger's success on the images that it was made on, and
    on others (None where there are no others, or the time was up).
    """

    target: int
    size: float
    index: float | None
    share: float | None
    flagged: bool
    success: float
    held_out: float | None


@dataclass(frozen=True, slots=True)
class Inspection:
    """What an inspection found: classes from the largest anomaly index down, and the units that
    lift a class most, from the strongest down.

    ``verdict``: flagged, where a class's index is over ``limit`` and its mask less than ``smaller``
    times the median, of four classes or more that had a trigger; inconclusive, where none is and
    the time was up or a class had no trigger; else not flagged, which proves nothing (`UNFLAGGED`).
    ``why`` says it in a sentence. ``span`` says where the range of pixels is from, ``data`` whose
    images were used; ``triggers`` and ``example`` [c, h, w], a clean image, are for pictures.
    """

    verdict: InspectionVerdict
    why: str
    classes: tuple[ClassTrigger, ...]
    stimulated: tuple[Stimulated, ...]
    limit: float
    smaller: float
    images: int
    held_out: int
    seed: int
    seconds: float
    cleanse: NeuralCleanse
    stimulation: Stimulation
    span: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    data: str
    triggers: Triggers = field(repr=False)
    example: Float[Tensor, "c h w"] = field(repr=False)

    @property
    def complete(self) -> bool:
        """Whether all steps were made."""
        return self.triggers.complete

    @property
    def by_index_alone(self) -> tuple[int, ...]:
        """The classes whose index is over ``limit``, whatever the size of their mask: what the
        paper's rule flags.
        """
        return tuple(
            one.target for one in self.classes if one.index is not None and one.index > self.limit
        )


def inspect(
    module: nn.Module,
    clean: Dataset,
    *,
    limit: float = FLAGGED_OVER,
    smaller: float = SMALL_SHARE,
    samples: int = 64,
    budget: float | None = None,
    seed: int = 0,
    cleanse: NeuralCleanse | None = None,
    stimulation: Stimulation | None = None,
    data: str = "clean images",
) -> Inspection:
    """Inspect an image classifier: Neural Cleanse flags classes, a stimulation analysis like ABS
    ranks them.

    Args:
        module: images to logits [n, C]; it is left as it was.
        clean: images [n, c, h, w] or [n, h, w] with their classes, none of them poisoned: what the
            run is measured on, say. The inspector must be able to see them.
        limit: a class is flagged where its anomaly index is over it, and
        smaller: its mask less than this share of the median; 1 is the paper's rule.
        samples: how many images triggers are made on; up to 1,000 others measure them.
        budget: seconds after which no further step is made, no trigger measured on other images
            and no unit lifted; the inspection is inconclusive where steps are left.
        seed: of the choice of images and of the optimisation's start.
        cleanse: how triggers are reversed.
        stimulation: how units are lifted.
        data: whose images these are, for people.

    Raises:
        ConfigError: the samples are no images, there are too few classes or images, the model
            gives no finite logit for each class, or a number is out of range.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(16, 5))
    >>> clean = Dataset(torch.rand(40, 1, 4, 4), torch.arange(40) % 5, 5)
    >>> inspect(model, clean, samples=20, budget=0).verdict
    'inconclusive'
    """
    refuse_no_images(clean)
    require.positive(limit=limit)
    require.finite(limit=limit)
    require.within(0, 1, smaller=smaller)
    require.at_least(1, samples=samples)
    began = time.perf_counter()
    deadline = float("inf") if budget is None else began + budget
    cleanse, stimulation = cleanse or NeuralCleanse(), stimulation or Stimulation()
    looked: nn.Module = module if clean.x.ndim == 4 else _WithChannel(module)
    x = clean.x if clean.x.ndim == 4 else clean.x.unsqueeze(1)
    order = torch.randperm(clean.n, generator=torch.Generator().manual_seed(seed)).to(x.device)
    used, held = order[:samples], order[samples : samples + MOST_HELD]
    low, high = clean.span or _range(x[used])
    _refuse_odd_answers(looked, x[used], clean.classes)
    triggers = cleanse(
        looked,
        x[used],
        clean.y[used],
        clean.classes,
        (low, high),
        seed=seed,
        deadline=deadline,
    )
    index = anomaly_index(triggers.size, triggers.reached)
    middle = median_of(triggers.size[triggers.reached])
    decides = triggers.complete and int(triggers.reached.sum()) >= FEWEST_CLASSES
    found = []
    for target in range(clean.classes):
        reached = bool(triggers.reached[target])
        size = float(triggers.size[target])
        out = reached and float(index[target]) > limit and size < smaller * middle
        unseen = x[held][clean.y[held] != target]
        measured = len(unseen) > 0 and time.perf_counter() < deadline
        found.append(
            ClassTrigger(
                target=target,
                size=size,
                index=float(index[target]) if reached else None,
                share=(size / middle if middle > 0 else 1.0) if reached else None,
                flagged=out and decides,
                success=float(triggers.success[target]),
                held_out=success(looked, triggers.stamp(unseen, target), target)
                if measured
                else None,
            )
        )
    lifted: tuple[Stimulated, ...] = ()
    if triggers.complete and time.perf_counter() < deadline:
        lifted = stimulation(looked, x[used], clean.y[used], clean.classes)
    verdict, why = _verdict(found, triggers, limit, smaller)
    return Inspection(
        verdict=verdict,
        why=why,
        classes=tuple(sorted(found, key=_suspicion)),
        stimulated=tuple(sorted(lifted, key=lambda one: -one.elevation)),
        limit=limit,
        smaller=smaller,
        images=len(used),
        held_out=len(held),
        seed=seed,
        seconds=time.perf_counter() - began,
        cleanse=cleanse,
        stimulation=stimulation,
        span="of all images" if clean.span else "of the images that were used",
        low=low,
        high=high,
        data=data,
        triggers=triggers,
        example=x[used[0]].cpu(),
    )


def refuse_no_images(clean: Dataset) -> None:
    """Refuse what has no pixels to stamp, and classes too few for an outlier.

    Raises:
        ConfigError: these are texts or rows of a table, or there are fewer than four classes.
    """
    shape = tuple(clean.x.shape[1:])
    if not clean.x.is_floating_point() or clean.y.ndim != 1:
        raise ConfigError(
            f"an inspection looks for patches on images, and these samples {shape} are tokens of"
            " text: a trigger there is a word, which this cannot reverse."
        )
    if clean.x.ndim not in (3, 4):
        raise ConfigError(
            f"an inspection looks for patches on images [c, h, w] or [h, w], and these samples"
            f" {shape} are rows of a table, whose columns have no size to compare: it takes models"
            " of images only."
        )
    if clean.classes < FEWEST_CLASSES:
        raise ConfigError(
            f"an inspection compares classes, and there are {clean.classes}: it takes"
            f" {FEWEST_CLASSES} or more, among which one can be an outlier."
        )


def _refuse_odd_answers(module: nn.Module, x: Float[Tensor, "n c h w"], classes: int) -> None:
    """Refuse a model or images with which no trigger can be told from another.

    Raises:
        ConfigError: a logit or a pixel is not finite, or there is not one logit for each class.
    """
    if not bool(torch.isfinite(x).all()):
        raise ConfigError(
            "the clean images hold NaN or infinite pixels: an inspection needs finite ones."
        )
    with evaluating(module), torch.no_grad():
        logits = module(x)
    if logits.shape != (len(x), classes):
        raise ConfigError(
            f"the model gives {tuple(logits.shape[1:])} values for an image, and the clean images"
            f" have {classes} classes: it takes one logit for each."
        )
    if not bool(torch.isfinite(logits).all()):
        raise ConfigError(
            "the model's logits of clean images are not finite, as after a training that diverged"
            " or was destroyed: there is nothing to inspect."
        )


def _verdict(
    found: list[ClassTrigger], triggers: Triggers, limit: float, smaller: float
) -> tuple[InspectionVerdict, str]:
    if not triggers.complete:
        return "inconclusive", "the time was up before the triggers had become small"
    ranked = sorted(found, key=_suspicion)
    flagged = [str(one.target) for one in ranked if one.flagged]
    near = [str(one.target) for one in ranked if not one.flagged and (one.index or 0.0) > limit]
    over = f"; over {limit:g} by index alone: {', '.join(near)}" if near else ""
    if flagged:
        words = "classes" if len(flagged) > 1 else "class"
        return "flagged", f"the mask of {words} {', '.join(flagged)} is an outlier{over}"
    without = [str(one.target) for one in found if one.index is None]
    if without:
        asked = "no patch had the success that was asked for, so nothing is known of them"
        return "inconclusive", f"classes {', '.join(without)}: {asked}"
    return "not flagged", (
        f"no class has an anomaly index over {limit:g} and a mask under {smaller:g} of the"
        f" median{over}"
    )


def _suspicion(one: ClassTrigger) -> float:
    return float("inf") if one.index is None else -one.index


def _range(x: Float[Tensor, "n c h w"]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The least and the greatest value of each channel of these images."""
    return tuple(x.amin(dim=(0, 2, 3)).tolist()), tuple(x.amax(dim=(0, 2, 3)).tolist())


class _WithChannel(nn.Module):
    """A model of images [n, h, w], for images [n, 1, h, w]."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x.squeeze(1))
        return out
