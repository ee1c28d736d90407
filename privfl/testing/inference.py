"""What holds of every attack on views: it says what it is, answers somebody who sees enough, says
why where it cannot, claims what was asked, repeats, and leaves what it was shown as it was.
"""

from __future__ import annotations

import copy
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from privfl.attacks import (
    ClientScores,
    Counts,
    Family,
    Inference,
    Knowledge,
    NotApplicable,
    PropertyScores,
    Reconstruction,
    Result,
    Scores,
    Sequences,
)
from privfl.core import View
from privfl.core.field_values import field_values
from privfl.testing.building import Subject, checks_of
from privfl.testing.check import Broken, Check, expect, run_all
from privfl.testing.inference_world import SEES, World, rare_worlds, worlds


def check_inference_attack(attack: Any) -> None:
    """Check an attack on views (membership, property, inversion): an object, a class (each of its
    ``examples``), or a function that makes one.

    It is run on rounds of images and of text, as adversaries saw them who read every row, the means
    of groups, the sum, or nothing. A slow attack declares ``examples`` with few iterations.

    Raises:
        ConformanceError: the first property that does not hold, with what was tried, what came of
            it, and what to change.

    >>> from privfl.attacks import LossThreshold
    >>> check_inference_attack(LossThreshold)
    >>> class Eager(LossThreshold):
    ...     def infer(self, views, knowledge):
    ...         raise ValueError("I want more")
    >>> check_inference_attack(Eager)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    privfl.testing.check.ConformanceError: Eager: it does not hold that ...
    """
    run_all(inference_attack_checks(attack))


def inference_attack_checks(attack: Any) -> Iterator[Check]:
    """The single checks of `check_inference_attack`, as callables for a test runner.

    >>> from privfl.attacks import LossThreshold
    >>> str(next(inference_attack_checks(LossThreshold)))
    'LossThreshold: it declares its family, and no seat'
    """
    yield from checks_of(attack, _checks, "attack on views")


def _checks(subject: Subject) -> Iterator[Check]:
    properties: list[tuple[str, Callable[[Any], None]]] = [
        ("it declares its family, and no seat", _declares),
        ("where it lacks something it says what, and never fails", _lacks),
        ("it answers somebody who sees and knows enough, with what was asked", _answers),
        ("it repeats with the seed of its knowledge, and leaves what it was shown", _repeats),
    ]
    for says, run in properties:
        yield Check(subject.name, says, partial(run, subject.made))


def _declares(attack: Any) -> None:
    expect(
        isinstance(attack, Inference),
        f"{type(attack).__name__} is no Inference",
        "inherit privfl.attacks.Inference, and write infer",
    )
    families = typing.get_args(Family)
    family = dict(_class_values(attack)).get("family")
    expect(family in families, f"family is {family!r}", f"say one of {', '.join(families)}")
    expect(
        attack.seats == frozenset(),
        f"seats is {sorted(attack.seats)}",
        "an attack that takes part goes into privfl.attacks, and is held to check_attack",
    )


def _class_values(attack: Any) -> Iterator[tuple[str, Any]]:
    for kind in reversed(type(attack).__mro__):
        yield from vars(kind).items()


def _run(attack: Any, views: Any, knows: Knowledge, tried: str) -> Result:
    """What an attack answers.

    Raises:
        Broken: it raised, or its answer is no result with words.
    """
    try:
        result = attack.run(views, knows)
    except Exception as error:
        raise Broken(
            f"on {tried} it raised {type(error).__name__}: {error}",
            "raise Lacking or NotVisible in infer, with a sentence on what is missing",
        ) from error
    expect(
        isinstance(result, Result) and bool(result.attack),
        f"on {tried} it answered {result!r}",
        "return a Result with the name of the attack",
    )
    answer: Result = result
    expect(
        not isinstance(answer, NotApplicable) or bool(answer.reason),
        f"on {tried} it does not apply, and says no reason",
        "say what is missing",
    )
    return answer


def _lacks(attack: Any) -> None:
    _run(attack, (), Knowledge(), "no views at all")
    for world in worlds():
        for sees in SEES:
            views = world.views(sees)
            _run(attack, views, Knowledge(), f"{world.name}, {sees} read and nothing known")
            recipe = Knowledge(forward=world.forward())
            _run(attack, views, recipe, f"{world.name}, {sees} read and the recipe known")


def _asked(attack: Any, world: World) -> Iterator[tuple[tuple[View, ...], Result, str]]:
    """What an attack says of a world to everybody, and who that is."""
    for sees in SEES:
        where, views = f"{world.name}, {sees} read", world.views(sees)
        yield views, _run(attack, views, world.knowledge(), where), where


def _answered(attack: Any) -> Iterator[tuple[World, tuple[View, ...], Result]]:
    """All rounds on which the attack answers, with its answers.

    Raises:
        Broken: there is none, or one on which it fails.
    """
    reasons, answers = [], 0
    for world in worlds():
        for views, result, where in _asked(attack, world):
            if isinstance(result, NotApplicable):
                reasons.append(f"{where}: {result.reason}")
            else:
                answers += 1
                yield world, views, result
    for world in () if answers else rare_worlds():
        for views, result, _ in _asked(attack, world):
            if not isinstance(result, NotApplicable):
                answers += 1
                yield world, views, result
    expect(
        answers > 0,
        f"it answers nobody ({' '.join(reasons)})",
        "answer an adversary who reads every row and knows the recipe, samples and labels",
    )


def _answers(attack: Any) -> None:
    for world, views, result in _answered(attack):
        expect(
            result.adversary == views[0].adversary,
            f"the adversary {views[0].adversary} was answered as {result.adversary}",
            "name the adversary of the view",
        )
        for name, tensor in _tensors(result):
            expect(
                not bool(torch.isnan(tensor.double()).any()),
                f"{name} of its {type(result).__name__} {tuple(tensor.shape)} has NaN",
                "answer with numbers",
            )
        found, wanted = _shapes(result, world, views)
        expect(
            found == wanted,
            f"on {world.name} its {type(result).__name__} has shape {found}, and {wanted} were"
            " asked for",
            "answer for every candidate, class, client and round, in their order",
        )


def _shapes(
    result: Result, world: World, views: tuple[View, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shape of what is claimed, and the one that was asked for."""
    pool = world.knowledge().candidates
    n = 0 if pool is None else pool.n
    if isinstance(result, Scores):
        subjects = "subjects" in result.notes  # one score for each person among the candidates
        return tuple(result.scores.shape), (len(result.scores) if subjects else n,)
    if isinstance(result, ClientScores):
        return tuple(result.scores.shape), (len(result.clients), n)
    if isinstance(result, PropertyScores):
        return tuple(result.scores.shape), (len(views), len(result.clients))
    if isinstance(result, Counts):
        return tuple(result.counts.shape), (world.data.classes,)
    if isinstance(result, Reconstruction):
        shape = tuple(world.data.x.shape[1:])
        return tuple(result.samples.shape), (len(result.labels), *shape)
    if isinstance(result, Sequences):
        return tuple(result.sequences.shape[1:]), tuple(world.data.x.shape[1:])
    return (), ()


def _repeats(attack: Any) -> None:
    for world, views, result in _answered(attack):
        knows = world.knowledge()
        shown = copy.deepcopy((views, knows.auxiliary, knows.candidates, knows.members))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(1)
            again = _run(attack, views, knows, f"{world.name} again")
        same = len(_tensors(result)) == len(_tensors(again)) and all(
            torch.equal(one, other)
            for (_, one), (_, other) in zip(_tensors(result), _tensors(again), strict=True)
        )
        expect(
            same,
            f"the same views and knowledge of {world.name} gave another claim the second time",
            "draw chance from knowledge.generator(), and keep no memory",
        )
        held = (views, knows.auxiliary, knows.candidates, knows.members)
        expect(
            _digest(held) == _digest(shown),
            f"it changed its views or the samples that it knows, of {world.name}",
            "work on copies",
        )
        return


def _tensors(result: Result) -> list[tuple[str, Tensor]]:
    named = field_values(result).items()
    return [(name, value) for name, value in named if isinstance(value, Tensor)]


def _digest(held: Any) -> list[bytes]:
    """All numbers of views and data sets, in order."""
    if isinstance(held, Tensor):
        return [held.contiguous().numpy().tobytes()]
    if isinstance(held, Mapping):
        held = tuple(held.values())
    if is_dataclass(held) and not isinstance(held, type):
        held = tuple(field_values(held).values())
    return [part for one in held for part in _digest(one)] if isinstance(held, tuple) else []
