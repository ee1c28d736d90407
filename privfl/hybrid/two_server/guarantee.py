"""What two servers and a dealer promise, as they are set: who reads rows, and what lies can do."""

from __future__ import annotations

from collections.abc import Callable

from privfl.core import Coalition, Guarantee, Liars, Lie
from privfl.crypto import lies
from privfl.hybrid.two_server.lies import (
    brings_one_near,
    deals_falsely,
    reads_a_weighted_row,
)
from privfl.hybrid.two_server.margin_reader import reads_margins
from privfl.hybrid.two_server.recipe import Recipe

SERVERS = ("server", "server/1")
_DEALT = "deals words by which nearly all weight falls on one client, and looks at the result"
LEAKS = {
    ("mean", "scores"): "every accepted update's norm",
    (
        "krum",
        "scores",
    ): "all inner products of the updates, so their whole geometry up to a rotation",
    ("fltrust", "scores"): "every update's norm and its cosine with the root update",
    ("cosine_filter", "scores"): "every update's norm and its cosine with the reference",
    ("signs", "scores"): "every Hamming distance to the root's signs",
    ("signs", "aggregate"): "how many clients count, and the sum of their weights",
}
"""What the servers learn beside the result, by rule and by ``reveal``."""


def leaks_of(recipe: Recipe) -> str:
    """What the servers learn beside the result and who was refused."""
    counted = {"aggregate": "how many clients count"}
    return LEAKS.get(
        (recipe.kind, recipe.reveal), counted.get(recipe.reveal, "which clients count")
    )


def two_server_guarantee(recipe: Recipe, quorum: Callable[[int], int]) -> Guarantee[Liars]:
    """The guarantee of rows whose norms are proved."""
    margins = (
        "shifts the margins of a client's norm check (two bits for each of its random projections:"
        " a short update whole, of a long one so many bits)"
    )
    told = [Lie(Coalition.of(who), "read", margins, reads_margins) for who in SERVERS]
    if recipe.hidden:
        what = "adds to its share of a hidden weight"
        told.append(Lie(Coalition.of("server"), "read", what, reads_a_weighted_row))
    told += [
        Lie(
            Coalition.of("dealer"),
            "read" if recipe.hidden else "choose",
            _DEALT
            if recipe.hidden
            else "deals words by which rows fail their checks, or seem near",
            deals_falsely,
        ),
        lies.skips_its_clip("nothing", "it is refused by name"),
    ]
    return _of_two(recipe, quorum, told)


def sign_guarantee(recipe: Recipe, quorum: Callable[[int], int]) -> Guarantee[Liars]:
    """The guarantee of rows of signs."""
    near = "takes from its share of a client's distance, so that nearly all weight falls on it"
    told = [Lie(Coalition.of(who), "read", near, brings_one_near) for who in SERVERS]
    told += [
        Lie(Coalition.of("dealer"), "read", _DEALT, deals_falsely),
        lies.skips_its_clip("nothing", "whatever it sends is a row of signs"),
    ]
    return _of_two(recipe, quorum, told)


def _of_two(
    recipe: Recipe, quorum: Callable[[int], int], told: list[Lie[Liars]]
) -> Guarantee[Liars]:
    return Guarantee(
        reads=(
            Coalition.of("server", "server/1"),
            Coalition.of("server", "dealer"),
            Coalition.of("server/1", "dealer"),
        ),
        lies=(
            *told,
            lies.publishes_another(),
            lies.falls_silent("server/1", "abort"),
            lies.falls_silent("dealer", "abort"),
            lies.sends_garbage(),
        ),
        leaks=("who takes part", "which clients were refused", leaks_of(recipe), lies.LAST),
        assumes=(
            "two servers and a dealer that follow the protocol",
            "a directory with their true keys",
            lies.ENTERED,
            lies.MAIL,
        ),
        shows="the aggregate of {count} updates, and {disclosed}",
        settings=lambda n: {
            "reveal": recipe.reveal,
            "quorum": f"{quorum(n)} clients, fewer are never summed",
            "least that count": str(recipe.least),
        },
    )
