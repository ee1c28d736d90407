"""What two servers and a dealer promise, as they are set: who reads rows, and what lies can do."""

from __future__ import annotations

from collections.abc import Callable

from privfl.core import Coalition, ConfigError, Guarantee, Liars, Lie
from privfl.crypto import lies
from privfl.hybrid.two_server.ahead.lies import moves_rows
from privfl.hybrid.two_server.dealer_guarantee import (
    NEARLY_ALL,
    lies_of_dealer,
    told_by_a_lying_dealer,
)
from privfl.hybrid.two_server.dealer_lies import deals_falsely
from privfl.hybrid.two_server.fixed_lies import enforced_lies
from privfl.hybrid.two_server.lies import (
    brings_one_near,
    reads_a_weighted_row,
    tells_signs_apart,
)
from privfl.hybrid.two_server.parameters import SERVERS
from privfl.hybrid.two_server.recipe import Recipe
from privfl.hybrid.two_server.rules import SignsOnShares
from privfl.hybrid.two_server.rushing import (
    chooses_others,
    forges_trust,
    names_wrong_seeds,
    shifts_margins,
    spoils_rows,
)

_PARTS = (*SERVERS, "dealer")
_AHEAD = (
    "a dealer that dealt as the protocol says before the round, and colludes with no server, then"
    " or later: what it dealt reads every update with either server's mail"
)


def told_by_lying(recipe: Recipe) -> str:
    """What one server learns by lying, alone or with as many clients as collude."""
    if recipe.malicious:
        who = "to one server that lies: which clients take part, at least a quorum"
        checks = ", and of a refused one how many of its checks failed"
        return who + checks * (recipe.rule.kind != "signs")
    if not recipe.traits.capped:
        return "to one server that lies: any row"
    who, m = "to one server that lies", recipe.traits.exact or recipe.least
    if recipe.rule.kind == "mean":
        rows = "the sum of a quorum of accepted rows that it picks"
    else:
        size = f"{m}" if recipe.traits.exact else f"at least {m}"
        rows = f"the sum of {size} accepted rows that it picks, whatever the rule would choose"
    moved = ", what is opened of rows that it has moved" if recipe.rule.reveal == "scores" else ""
    more = (
        ", one more for who is chosen"
        if recipe.rule.reveal == "selection" and recipe.traits.directed
        else ""
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


def _unsigned(recipe: Recipe) -> str:
    """What bare mail takes from it, if a server or anybody else carries it."""
    lost = "security 'malicious' then promises nothing" if recipe.malicious else "no lie is needed"
    dealer = (
        "; what was dealt ahead is signed, whatever the mail"
        if recipe.ahead
        else ", and to the dealer in a server's; what the dealer writes it can garble, and nobody"
        " is blamed"
    )
    return (
        "Over unsigned mail whoever carries it, a server as well, writes in others' names: in those"
        f" of all clients but one, and so reads that one ({lost}){dealer}. mail: signed stops it."
    )


def two_server_guarantee(
    recipe: Recipe, quorum: Callable[[int], int], run_by: tuple[str, ...] = ()
) -> Guarantee[Liars]:
    """The guarantee of rows whose norms are proved."""
    if recipe.malicious:
        return _of_two(recipe, quorum, enforced_lies(recipe), run_by)
    margins = "shifts the margins of a client's norm check, so that the client is refused"
    told = [Lie(Coalition.of(who), "choose", margins, shifts_margins, True) for who in SERVERS]
    told += _of_weights(recipe)
    told += [
        Lie(
            Coalition.of("server"),
            "choose",
            "adds to a client's masked row, so that the client is refused; by little, and what is"
            " opened of the row, is opened of the moved one",
            lambda: spoils_rows({0: (0, 1 << 30)}),
            True,
        ),
        lies.skips_its_clip("nothing", "it is refused by name", refused=True),
    ]
    if recipe.ahead:
        what = "says that clients drew other masks, which moves each row by what it likes, within"
        told.append(
            Lie(Coalition.of("server/1"), "shift", f"{what} its clip", lambda: moves_rows(1 / 64))
        )
        return _of_two(recipe, quorum, told, run_by)
    told += [
        Lie(
            Coalition.of("server/1"),
            "shift" if recipe.traits.hidden else "choose",
            "names another seed of a client to the dealer, so that the client is refused"
            + (", and a hidden sum is moved by noise" if recipe.traits.hidden else ""),
            lambda: names_wrong_seeds((0,)),
            not recipe.traits.hidden,
        ),
        *lies_of_dealer(recipe),
    ]
    return _of_two(recipe, quorum, told, run_by)


def _of_weights(recipe: Recipe) -> list[Lie[Liars]]:
    """What a server gets by lying about who counts, or by how much."""
    if recipe.traits.proved:
        what = "adds to its share of a hidden weight, which both servers prove to be 0 or 1"
        return [Lie(Coalition.of("server"), "abort", what, reads_a_weighted_row)]
    if recipe.traits.hidden:
        what = "adds to its share of a hidden weight, which may be any number"
        return [Lie(Coalition.of("server"), "read", what, reads_a_weighted_row)]
    if recipe.rule.kind == "fltrust":
        what = "opens scores of its own, by which two rows can be told apart in the sum"
        return [Lie(Coalition.of(who), "read", what, forges_trust) for who in SERVERS]
    if recipe.rule.reveal == "selection" and recipe.rule.kind in ("krum", "cosine_filter"):
        what = "opens a selection of its own, of as many rows as a sum must have"
        count = recipe.traits.exact or recipe.least
        return [
            Lie(Coalition.of(who), "choose", what, lambda: chooses_others(count)) for who in SERVERS
        ]
    return []


def sign_guarantee(
    rule: SignsOnShares, recipe: Recipe, quorum: Callable[[int], int], run_by: tuple[str, ...] = ()
) -> Guarantee[Liars]:
    """The guarantee of rows of signs."""
    if recipe.malicious:
        return _of_two(recipe, quorum, enforced_lies(recipe), run_by)
    near = "takes from its share of a client's distance, so that nearly all weight falls on it"
    apart = "opens distances by which two rows can be told apart in the sum"
    hidden = recipe.traits.hidden
    told = [
        Lie(
            Coalition.of(who),
            "read",
            near if hidden else apart,
            brings_one_near if hidden else lambda: tells_signs_apart(rule.threshold),
        )
        for who in SERVERS
    ]
    told += [
        Lie(
            Coalition.of("dealer"),
            "read" if hidden else "shift",
            NEARLY_ALL if hidden else "deals words by which a client's distance is another",
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
    with_dealer = (Coalition.of("server", "dealer"), Coalition.of("server/1", "dealer"))
    silent = [lies.falls_silent("dealer", "abort")]
    return Guarantee(
        reads=(Coalition.of("server", "server/1"), *(() if recipe.ahead else with_dealer)),
        lies=(
            *told,
            lies.publishes_another(),
            lies.falls_silent("server/1", "abort"),
            *([] if recipe.ahead else silent),
            lies.sends_garbage(),
        ),
        leaks=(
            "who takes part",
            "which clients were refused",
            recipe.rule.leaks,
            told_by_lying(recipe),
            told_by_a_lying_dealer(recipe),
            lies.LAST,
        ),
        assumes=(
            _AHEAD
            if recipe.ahead
            else "a dealer that follows the protocol, and colludes with no server",
            "a directory with their true keys",
            lies.ENTERED,
            lies.MAIL,
        ),
        shows="the aggregate of {count} updates, and {disclosed}",
        unsigned=_unsigned(recipe),
        settings=lambda n: {
            "reveal": recipe.rule.reveal,
            "quorum": f"{quorum(n)} clients, fewer are never summed",
            "least that count": str(recipe.least),
            "clients that may collude with a lying server": str(recipe.colluders),
            "run": operators_of(run_by),
            "security": "malicious" if recipe.malicious else "semi_honest",
        },
    )
