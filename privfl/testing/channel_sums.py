"""What a channel opens is what its clients sent, told by a plain sum; and nobody sees more of it
than the channel says.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from privfl.core import BadUpdate, Opened, RoundPlan, Rows, Total
from privfl.dp import DistributedSkellam
from privfl.testing.channel_rounds import L2, D, N, Rounds, arrived, tolerance, updates
from privfl.testing.check import Broken, expect

WEIGHTS = {client: (1.0, 2.0, 0.5, 1.5)[client % 4] for client in range(N)}


def exact(rounds: Rounds, plan: RoundPlan, opened: Opened[Any], arrives: Tensor) -> None:
    """Refuse what was opened unless it is what its survivors sent [n, d], as it arrives.

    Where servers run a rule inside, it must be that rule's result for this to hold: `hosted` looks.
    """
    what, survivors = opened.what, list(opened.survivors)
    close = tolerance(rounds.channel, plan)
    if isinstance(what, Rows) and what.ids is not None:
        order = sorted(range(what.n), key=what.ids.__getitem__)
        ids = [what.ids[i] for i in order]
        expect(
            ids == sorted(survivors)
            and torch.allclose(what.values[order], arrives[sorted(survivors)], atol=close),
            f"of clients {sorted(survivors)} it opened rows of {ids}, or rows that differ from what"
            " arrives",
            "open each survivor's row under its id",
        )
        return
    total = what.weights @ what.values if isinstance(what, Rows) else what.value
    count = float(what.weights.sum()) if isinstance(what, Rows) else what.count
    apart = float((total - arrives[survivors].sum(dim=0)).abs().max())
    expect(
        count == len(survivors) and apart <= close * N,
        f"it opened a sum of {count:g} clients that is {apart:.3g} off the plain sum of its"
        f" {len(survivors)} survivors",
        "open exactly what arrives (able.encodes.arrives), or declare able.approximate",
    )


def opens_what_arrives(rounds: Rounds) -> None:
    """Everybody's row or sum, in a round in which nothing goes wrong."""
    channel, sent = rounds.channel, updates()
    plan, outcome, opened = rounds.opened()
    kind = channel.kind
    what = opened.what
    expect(
        isinstance(what, Rows if kind.opens == "rows" else Total),
        f"kind.opens is '{kind.opens}', and it opened {type(what).__name__}",
        "declare what it opens",
    )
    if isinstance(what, Rows):
        expect(
            (what.ids is not None) == kind.named,
            f"kind.named is {kind.named}, and its rows have {'no ' * (what.ids is None)}ids",
            "declare named as it is",
        )
        rows = N if channel.able.groups is None else channel.able.groups.rows(N)
        expect(
            what.n == rows,
            f"{N} clients made {what.n} rows, and {rows} were declared",
            "declare able.groups as they are",
        )
    arrives = arrived(channel, sent, plan)
    expect(
        arrives.dtype == torch.float32 and arrives.shape == sent.shape,
        f"encodes.arrives made {arrives.dtype} of shape {tuple(arrives.shape)}",
        "return one float32 vector [d]",
    )
    if channel.able.hosts is None:
        expect(
            sorted(opened.survivors) == list(range(N)),
            f"of {N} clients only {sorted(opened.survivors)} are in it",
            "lose nobody who did all it should",
        )
        exact(rounds, plan, opened, arrives)
    parties = {who for who in rounds.members if not who.startswith("client/")}
    seen = rounds.seen(outcome, parties)
    if isinstance(seen, Rows) and seen.ids is not None and not kind.groups:
        order = sorted(range(seen.n), key=seen.ids.__getitem__)
        close = 1e-5 if channel.able.approximate is None else 1e-3
        expect(
            torch.allclose(seen.values[order], arrives, atol=close),
            f"{', '.join(sorted(parties))} together read other rows than encodes.arrives says",
            "let decode and arrives tell of the same encoding",
        )


def weighs(rounds: Rounds) -> None:
    """Weights count as they were said, where a sum or rows by name are opened."""
    channel, sent = rounds.channel, updates()
    if channel.able.hosts is not None or channel.kind.groups:
        return
    plan, _, opened = rounds.opened(weights=WEIGHTS)
    what = opened.what
    weights = torch.tensor([WEIGHTS[c] for c in range(N)])
    if isinstance(what, Rows):
        carried = what.weights.tolist()
        if what.ids is None:
            as_said = sorted(carried) == sorted(WEIGHTS.values())
        else:
            as_said = dict(zip(what.ids, carried, strict=True)) == WEIGHTS
        expect(
            as_said,
            f"clients said the weights {WEIGHTS}, and it opened {carried}",
            "carry each update's weight",
        )
        return
    arrives = arrived(channel, sent, plan)
    apart = float((what.value - weights @ arrives).norm())
    expect(
        abs(what.weight - float(weights.sum())) < 0.02 * N and apart < 0.1 * L2,
        f"updates of weights {weights.tolist()} came out with the weight {what.weight:.4g},"
        f" {apart:.3g} off the weighted sum",
        "sum weight times update, and the weights beside it",
    )


def has_headroom(rounds: Rounds) -> None:
    """The longest updates that a plan allows, all alike and all in one value, do not overflow."""
    if rounds.channel.able.hosts is not None:
        return
    for value in (L2, -L2):
        sent = torch.zeros(N, D)
        sent[:, 3] = value
        plan, _, opened = rounds.opened(sent=sent)
        exact(rounds, plan, opened, arrived(rounds.channel, sent, plan))


def refuses_what_cannot_be_encoded(rounds: Rounds) -> None:
    """NaN and vectors of another length do not arrive."""
    encodes = rounds.channel.able.encodes
    if encodes is None:
        return
    for row in (torch.full((D,), math.nan), torch.ones(D + 1)):
        try:
            encodes.arrives(row, rounds.plan())
        except BadUpdate:
            continue
        raise Broken(
            f"encodes.arrives took {'NaN' if len(row) == D else f'{D + 1} values for {D}'}",
            "raise BadUpdate",
        )


def hides_what_it_says(rounds: Rounds) -> None:
    """The server reads what is opened; who taps every wire, and clients, read no single update of a
    channel that opens sums or groups.
    """
    channel = rounds.channel
    _, outcome, opened = rounds.opened()
    what, seen = opened.what, rounds.seen(outcome, {"server"})
    hides = channel.kind.opens == "total" or channel.kind.groups
    if isinstance(seen, Total) and isinstance(what, Total):
        apart = float((seen.value - what.value).abs().max())
        expect(
            apart < 1e-4,
            f"decode gives the server a sum {apart:.3g} off what its party opened",
            "decode what the server's party opens",
        )
    tapped = channel.decode(outcome.received(rounds.members), {})
    for who, view in (
        ("the server", seen),
        ("whoever taps every wire", tapped),
        ("client/0", rounds.seen(outcome, {"client/0"})),
    ):
        rows = view.n if isinstance(view, Rows) and view.ids is not None else 0
        expect(
            not hides or rows == 0,
            f"it opens {'group means' if channel.kind.groups else 'a sum'}, and {who} reads single"
            f" updates ({rows} of {N})",
            "hide them, or declare that it opens rows",
        )
    expect(
        hides or isinstance(seen, Rows),
        "it opens rows, and decode gives the server none",
        "decode what the server reads",
    )


def carries_noise(rounds: Rounds) -> None:
    """A channel that takes noise carries it: what it opens differs, and an event tells of it."""
    channel: Any = rounds.channel
    kind = channel.kind
    if not kind.takes_noise or channel.able.hosts is not None:
        expect(
            kind.takes_noise or channel.able.noise is None,
            "able.noise is there, and kind.takes_noise is False",
            "declare both alike",
        )
        return
    noise = DistributedSkellam(noise_multiplier=1.0)
    noisy: Any = replace(channel, **{kind.noise_field: noise})
    carried = noisy.able.noise
    expect(
        carried is not None,
        f"it was given noise as {kind.noise_field}, and able.noise is None",
        "declare able.noise where there is noise",
    )
    loud = Rounds(noisy)
    plan, _, opened = loud.opened()
    event = carried.noise_event(plan, N)
    what = opened.what
    total = what.weights @ what.values if isinstance(what, Rows) else what.value
    apart = float((total - arrived(noisy, updates(), plan).sum(dim=0)).abs().max())
    expect(
        event is not None and apart > 1e-3,
        f"with noise of multiplier 1 the sum is {apart:.2g} off the exact one, and its event is"
        f" {event}",
        "add every client's share, and account for it",
    )
