"""What the dealer gets by dealing other words, alone or with a client, under either security."""

from __future__ import annotations

from privfl.core import Coalition, Liars, Lie
from privfl.hybrid.two_server import dealer_lies, dealt_lies
from privfl.hybrid.two_server.recipe import Recipe

NEARLY_ALL = (
    "deals words by which nearly all weight falls on some client (in rings under 64 bits several"
    " times an honest one's), and looks at the result"
)
"""What a dealer does of whom a result tells a row."""
_DEALER = Coalition.of("dealer")
_NEAR = "deals words by which rows fail their checks, or seem near or short"
_ASKS = "compares a client's norm with a bound of its own, so that who is refused tells one bit"
_LONG = "deals words by which a row that is too long passes"
_DIFFERENCE = "deals words by which the result tells the difference of two rows"
_FARTHER = "deals words by which a client's distance, and so its weight, is another"
_ADDS = "adds to the sum under hidden weights"


def lies_of_dealer(recipe: Recipe) -> list[Lie[Liars]]:
    """The dealer's lies in its words: whatever it deals authenticates, because it knows all keys.

    Where weights stay shared it gives rows weights that are any numbers. What is left of the proofs
    that they are 0 or 1 is their number, where that is opened: then the weights of two rows can be
    of opposite signs.
    """
    known = f"{_DIFFERENCE}; one of them is known"
    friend, traits = Coalition.of("dealer", "client/1"), recipe.traits
    named = recipe.rule.reveal != "aggregate"
    if recipe.malicious and recipe.rule.kind == "signs":
        if traits.hidden:
            return [Lie(_DEALER, "read", NEARLY_ALL, dealt_lies.favours_a_trusted_row)]
        return [Lie(_DEALER, "choose", _FARTHER, dealt_lies.moves_a_distance)]
    if recipe.malicious:
        told = [Lie(_DEALER, "choose", _ASKS, dealt_lies.asks_whether_a_row_is_short, True)]
        told += _of_a_long_row(recipe)
        if traits.proved:
            told.append(Lie(_DEALER, "shift", _DIFFERENCE, dealt_lies.tells_a_difference))
            told.append(Lie(friend, "read", known, dealt_lies.tells_a_friends_difference))
        elif traits.hidden:
            told.append(Lie(_DEALER, "read", NEARLY_ALL, dealt_lies.favours_a_trusted_row))
        return told
    told = _of_a_long_row(recipe)
    if traits.proved and not traits.gram:
        told.append(Lie(_DEALER, "shift", _DIFFERENCE, dealer_lies.deals_falsely))
        told.append(Lie(friend, "read", known, dealer_lies.reads_beside_a_friend))
    elif traits.hidden and not named:
        told.append(Lie(_DEALER, "read", NEARLY_ALL, dealer_lies.deals_falsely))
    else:
        refused = recipe.rule.kind == "mean"
        told.append(Lie(_DEALER, "choose", _NEAR, dealer_lies.deals_falsely, refused))
        told += [Lie(_DEALER, "shift", _ADDS, dealer_lies.moves_a_hidden_sum)] * traits.hidden
    return told


def _of_a_long_row(recipe: Recipe) -> list[Lie[Liars]]:
    """A client's row of any length; of open products of all rows these would be impossible. Of two
    that Krum chooses it is one.
    """
    if recipe.rule.kind == "krum" and recipe.rule.reveal == "scores":
        return []
    how = dealt_lies.lets_a_long_row_pass if recipe.malicious else dealer_lies.deals_a_shorter_norm
    with_client, pair = Coalition.of("dealer", "client/0"), recipe.traits.exact == 2
    beside = ", and one more is chosen beside it" if pair else ""
    return [Lie(with_client, "read" if pair else "shift", _LONG + beside, how)]


def told_by_a_lying_dealer(recipe: Recipe) -> str:
    """What the dealer learns by lying, from the result and from who was refused."""
    traits, kind = recipe.traits, recipe.rule.kind
    if kind == "signs":
        return f"to a dealer that lies: {'any row' if traits.hidden else 'the result, shifted'}"
    named = recipe.rule.reveal != "aggregate"
    if recipe.malicious:
        read = traits.hidden and not traits.proved
    else:
        read = traits.hidden and not named and (traits.gram or not traits.proved)
    if read:
        got = "any row"
    elif traits.proved:
        got = "the difference of any two rows"
    elif kind == "fltrust" and not recipe.malicious and not traits.hidden:
        got = "the sum of rows that it picks, one of which may weigh nearly all"
    else:
        got = "the sum of rows that it picks"
    return (
        f"to a dealer that lies: {got}, one bit a row and round (whether a norm is over its bound)"
    )
