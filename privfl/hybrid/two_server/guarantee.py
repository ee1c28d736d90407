"""What two servers and a dealer promise, as they are set: who reads rows, and what lies can do."""

from __future__ import annotations

from collections.abc import Callable

from privfl.core import Coalition, ConfigError, Guarantee, Liars, Lie
from privfl.crypto import lies
from privfl.hybrid.two_server.lies import (
    brings_one_near,
    deals_falsely,
    reads_a_weighted_row,
    tells_signs_apart,
)
from privfl.hybrid.two_server.recipe import Recipe
from privfl.hybrid.two_server.rushing import (
    chooses_others,
    forges_trust,
    names_wrong_seeds,
    shifts_margins,
    spoils_rows,
)

SERVERS = ("server", "server/1")
_PARTS = (*SERVERS, "dealer")
_DEALT = "deals words by which nearly all weight falls on some client, and looks at the result"
_NEAR = "deals words by which rows fail their checks, or seem near"
LEAKS = {
    ("mean", "scores"): "every accepted update's norm",
    (
        "krum",
        "scores",
    ): "all inner products of the updates, so their whole geometry up to a rotation",
    ("fltrust", "scores"): "every update's norm and its cosine with the root update",
    ("fltrust", "selection"): "which clients count, and to the first server the sum of the trust",
    ("fltrust", "aggregate"): "how many clients count, and to the first server the sum of the"
    " trust",
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


def told_by_lying(recipe: Recipe) -> str:
    """What one server learns by lying, alone or with as many clients as collude."""
    if not recipe.capped:
        return "to one server that lies: any row"
    who, m = "to one server that lies", recipe.m or recipe.least
    if recipe.kind == "mean":
        rows = "the sum of a quorum of accepted rows that it picks"
    else:
        size = f"{m}" if recipe.m else f"at least {m}"
        rows = f"the sum of {size} accepted rows that it picks, whatever the rule would choose"
    moved = ", what is opened of rows that it has moved" if recipe.reveal == "scores" else ""
    more = (
        ", one more for who is chosen" if recipe.reveal == "selection" and recipe.directed else ""
    )
    return f"{who}: {rows}, one bit a row and round (its norm check){more}{moved}, one bit an abort"


def check_operators(run_by: tuple[str, ...]) -> None:
    """Refuse operators of server, server/1 and dealer of whom one would hold two parts.

    Raises:
        ConfigError: not three names, or one of them twice.
    """
    if run_by and (len(run_by) != 3 or len(set(run_by)) < 3 or not all(run_by)):
        raise ConfigError(
            f"run_by names who runs server, server/1 and dealer, and is {list(run_by)}: name three"
            " that are different, because any two of the three parts together read every update."
        )


def operators_of(run_by: tuple[str, ...]) -> str:
    """Who runs what, in words."""
    if not run_by:
        return "nobody says who (run_by)"
    return ", ".join(f"{part} by {who}" for part, who in zip(_PARTS, run_by, strict=True))


def two_server_guarantee(
    recipe: Recipe, quorum: Callable[[int], int], run_by: tuple[str, ...] = ()
) -> Guarantee[Liars]:
    """The guarantee of rows whose norms are proved."""
    named = recipe.reveal == "selection"
    free = recipe.normalised and not named
    margins = "shifts the margins of a client's norm check, so that the client is refused"
    told = [Lie(Coalition.of(who), "choose", margins, shifts_margins) for who in SERVERS]
    told += _of_weights(recipe)
    told += [
        Lie(
            Coalition.of("server"),
            "choose",
            "adds to a client's masked row, so that the client is refused; by little, and what is"
            " opened of the row, is opened of the moved one",
            lambda: spoils_rows({0: (0, 1 << 30)}),
        ),
        Lie(
            Coalition.of("server/1"),
            "shift" if recipe.hidden else "choose",
            "names another seed of a client to the dealer, so that the client is refused"
            + (", and a hidden sum is moved by noise" if recipe.hidden else ""),
            lambda: names_wrong_seeds((0,)),
        ),
        Lie(
            Coalition.of("dealer"),
            "shift" if recipe.proved else "read" if free else "choose",
            _DEALT if recipe.hidden and not named else _NEAR,
            deals_falsely,
        ),
        lies.skips_its_clip("nothing", "it is refused by name"),
    ]
    return _of_two(recipe, quorum, told, run_by)


def _of_weights(recipe: Recipe) -> list[Lie[Liars]]:
    """What a server gets by lying about who counts, or by how much."""
    if recipe.proved:
        what = "adds to its share of a hidden weight, which both servers prove to be 0 or 1"
        return [Lie(Coalition.of("server"), "abort", what, reads_a_weighted_row)]
    if recipe.hidden:
        what = "adds to its share of a hidden weight, which may be any number"
        return [Lie(Coalition.of("server"), "read", what, reads_a_weighted_row)]
    if recipe.kind == "fltrust":
        what = "opens scores of its own, by which two rows can be told apart in the sum"
        return [Lie(Coalition.of(who), "read", what, forges_trust) for who in SERVERS]
    if recipe.reveal == "selection" and recipe.kind in ("krum", "cosine_filter"):
        what = "opens a selection of its own, of as many rows as a sum must have"
        count = recipe.m or recipe.least
        return [
            Lie(Coalition.of(who), "choose", what, lambda: chooses_others(count)) for who in SERVERS
        ]
    return []


def sign_guarantee(
    recipe: Recipe, quorum: Callable[[int], int], run_by: tuple[str, ...] = ()
) -> Guarantee[Liars]:
    """The guarantee of rows of signs."""
    near = "takes from its share of a client's distance, so that nearly all weight falls on it"
    apart = "opens distances by which two rows can be told apart in the sum"
    hidden = recipe.hidden
    told = [
        Lie(
            Coalition.of(who),
            "read",
            near if hidden else apart,
            brings_one_near if hidden else lambda: tells_signs_apart(recipe.threshold),
        )
        for who in SERVERS
    ]
    told += [
        Lie(
            Coalition.of("dealer"),
            "read" if hidden else "shift",
            _DEALT if hidden else "deals words by which a client's distance is another",
            deals_falsely,
        ),
        lies.skips_its_clip("nothing", "whatever it sends is a row of signs"),
    ]
    return _of_two(recipe, quorum, told, run_by)


def _of_two(
    recipe: Recipe,
    quorum: Callable[[int], int],
    told: list[Lie[Liars]],
    run_by: tuple[str, ...],
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
        leaks=(
            "who takes part",
            "which clients were refused",
            leaks_of(recipe),
            told_by_lying(recipe),
            lies.LAST,
        ),
        assumes=(
            "a dealer that follows the protocol, and colludes with no server",
            "a directory with their true keys",
            lies.ENTERED,
            lies.MAIL,
        ),
        shows="the aggregate of {count} updates, and {disclosed}",
        settings=lambda n: {
            "reveal": recipe.reveal,
            "quorum": f"{quorum(n)} clients, fewer are never summed",
            "least that count": str(recipe.least),
            "clients that may collude with a lying server": str(recipe.colluders),
            "run": operators_of(run_by),
        },
    )
