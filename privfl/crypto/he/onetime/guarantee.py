"""What one-time-pad RLWE promises, as it is set."""

from __future__ import annotations

import math

from privfl.core import TRUE_KEYS, Coalition, Guarantee, Liars, Lie, Power, Some
from privfl.crypto import lies
from privfl.crypto.he.onetime.committee import chance
from privfl.crypto.he.onetime.lies import (
    AnswersAnother,
    TurnsDown,
    deals_on_no_polynomial,
    encrypts_under_another_key,
    two_sums,
)
from privfl.crypto.he.onetime.parameters import OneTimeSettings


def one_time_guarantee(settings: OneTimeSettings) -> Guarantee[Liars]:
    """The guarantee of a channel with these settings."""
    t, k = settings.threshold, settings.holders
    drawn = settings.committee == "clients"
    holders = Some.of(t, settings.decryptors, f"any {t} of {k} decryptors")
    if drawn:  # nobody knows beforehand who is drawn
        holders = Some.others(lambda n: min(t, n - 1), f"any {t} of the {k} clients that are drawn")
    return Guarantee(
        reads=(Coalition.of("server", some=holders),),
        lies=(
            *lies.of_any_sum(lambda plan: settings.quorum(plan.n), "quorum"),
            *([] if drawn else _two_sums(settings)),
            *_decryptors(settings),
            lies.skips_its_clip("shift", "nobody sees a single input"),
            Lie(
                Coalition.of("client/0"),
                "abort",
                "encrypts under another key than it deals, or sends a copy of another client's"
                " contribution, and nobody can tell who did",
                lies.each(encrypts_under_another_key),
            ),
            Lie(
                Coalition.of("client/0"),
                "nothing",
                "deals shares that lie on no polynomial",
                lies.each(deals_on_no_polynomial),
            ),
            lies.sends_garbage(),
        ),
        leaks=(
            "who takes part",
            "the sum of the one-time keys and errors of those who are summed",
            lies.LAST,
            lies.CHOSEN,
        ),
        assumes=(TRUE_KEYS, lies.MAIL, *_assumed(settings)),
        shows="only the sum of {count} updates",
        tapped=False,
        settings=lambda n: {
            "quorum": f"{settings.quorum(n)} clients, sums of fewer stay closed",
            "threshold": f"{t} of {k} decryptors open a sum",
            "one-time keys": f"{settings.secrets}, a fresh one for every contribution",
            **(_figures(settings, n) if drawn else {}),
        },
    )


def _assumed(settings: OneTimeSettings) -> tuple[str, ...]:
    if settings.committee == "helpers":
        return ("decryptors that open a round once",)
    meet = 2 * settings.threshold - settings.holders
    return (
        f"fewer than {meet} of the {settings.holders} clients that are drawn as decryptors lie"
        " together with the server: so many have two overlapping sums of a round opened",
        f"a population of which {settings.corrupt:.0%} collude, fixed before the draw",
    )


def _figures(settings: OneTimeSettings, n: int) -> dict[str, str]:
    """How likely the draw falls on too many who are corrupt."""
    k, t = settings.holders, settings.threshold
    said = {
        "two sums open": chance(n, settings.corrupt, k, 2 * t - k),
        "single updates are read": chance(n, settings.corrupt, k, t),
    }
    return {
        what: ("never" if log2 == -math.inf else f"with probability 2^{log2:.1f} a session")
        + f" where {math.floor(settings.corrupt * n + 1e-9)} of {n} clients are corrupt"
        for what, log2 in said.items()
    }


def _two_sums(settings: OneTimeSettings) -> list[Lie[Liars]]:
    meet = 2 * settings.threshold - settings.holders
    if settings.threshold == settings.holders:
        return []
    corrupt = Coalition.of("server", *settings.decryptors[:meet])
    what = "has two overlapping sums of a round opened, by groups of decryptors that meet in"
    return [Lie(corrupt, "read", f"{what} {meet} that collude", two_sums)]


def _decryptors(settings: OneTimeSettings) -> list[Lie[Liars]]:
    who = "client/0" if settings.committee == "clients" else settings.decryptors[0]
    spare = settings.threshold < settings.holders
    wrong: Power = "nothing" if spare else "abort"
    chooses: Power = "nothing" if spare else "choose"
    return [
        Lie(
            Coalition.of(who),
            wrong,
            "answers another sum than that of its shares",
            lies.each(AnswersAnother),
        ),
        Lie(
            Coalition.of(who),
            chooses,
            "finds good dealings bad",
            lies.each(TurnsDown),
        ),
        lies.falls_silent(who, wrong),
    ]
