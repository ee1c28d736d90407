"""From a run's parts to the `Pipeline` that its vectors leave by: the same for the engine and for
the layer around other people's loops, so that both charge alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from privfl.core import (
    Against,
    BeforeSeat,
    Bound,
    Channel,
    Coalition,
    ConfigError,
    Decides,
    Defence,
    Mechanism,
    NeighbourRelation,
    Neighbours,
    RoundPlan,
    RunNoise,
    Sampling,
    Some,
    Threat,
    Unit,
    UserBounds,
    client_of,
)
from privfl.dp import Clip
from privfl.dp.opening import for_everybody
from privfl.dp.part_release import AnyRule, PartRelease, Sum, Weights
from privfl.dp.pipeline import Pipeline
from privfl.engine.client import BITS
from privfl.engine.opening import opening
from privfl.engine.samplers import Sampler
from privfl.engine.seams import AdaptiveBound, adapts


def pipeline_of(
    bounds: Mapping[str, Bound],
    lengths: Mapping[str, int],
    *,
    channel: Channel[Any],
    rule: AnyRule,
    sampling: Sampling,
    seats: Sequence[BeforeSeat[Any]] = (),
    mechanism: Mechanism | None = None,
    over: RunNoise[Any] | None = None,
    uniform: bool = True,
    relation: NeighbourRelation | None = None,
    adaptive: AdaptiveBound | None = None,
    repeatable: bool = False,
    void: str = "",
    threat: Threat | None = None,
    users: UserBounds | None = None,
    people: int | None = None,
) -> Pipeline:
    """The releases of rounds that send parts of these ``lengths``, each under its bound.

    ``seats`` are those before the rule (which change rows of the delta alone), ``over`` is noise
    that hangs together over the rounds, in place of a mechanism, ``uniform`` says that every weight
    is one, ``adaptive`` that bits about norms travel too.

    With ``users``, of whom there are ``people``, whoever is protected is a user, at as many clients
    as its bounds say. A client that several users share changes its row from one point of the ball
    to another where one of them goes, so the relation is then replace_one; where no client has two,
    a user's clients come, go or send zero together. Samples, and a user's, are there and
    contribute nothing: their number is in the rate of a client's batches, and may be its weight.

    Without a ``relation`` it is replace_one under local noise, zero_out for noise in shares and for
    noise that hangs together, and for other noise on the aggregate add_remove where the rule
    divides by a public number (zero_out where channel or rule need more than one contribution, and
    against those who see the cohort), else (and for cohorts of a fixed size) replace_one. Against
    noise at clients and in shares stands the server, which sees the cohort: nothing is amplified
    there. Turns by a public schedule are seen by everybody.

    Raises:
        ConfigError: noise in shares and a mechanism beside it; a ``threat`` against which that
            noise does not protect.
    """
    threat = Threat() if threat is None else threat
    able, shares = channel.able, channel.able.noise
    local = mechanism is not None and mechanism.local
    if shares is not None and mechanism is not None:
        raise ConfigError(
            f"{type(channel).__name__} carries noise in shares already, and"
            f" {type(mechanism).__name__} would noise its sum again: leave one of them out."
        )
    if over is not None:
        _refuse_beside(over, channel, rule)
    opens = opening(channel, rule, seats)
    grouping = () if able.groups is None else (able.groups.stage(),)
    releases: dict[str, PartRelease] = {}
    for part, length in lengths.items():
        own = (bounds[part], Weights(uniform))
        sent = own if able.encodes is None else (*own, able.encodes.stage(length))
        before = tuple(seats) if part == "delta" else ()
        if local:  # the client's half noises the delta alone
            releases[part] = PartRelease(own, mechanism=mechanism if part == "delta" else None)
        elif shares is not None:
            releases[part] = PartRelease(sent, shares=shares)
        else:
            releases[part] = PartRelease((*sent, *grouping), rule, before, mechanism, over=over)
    if adaptive is not None:
        releases[BITS] = _bits(channel)
    public = rule.public_denominator is not None and able.groups is None
    noised = mechanism is not None or over is not None
    central = noised and not local
    clients = round(sampling.expected)
    against = adversary_of(threat, channel, clients=clients, central=central, noised=noised)
    scheduled = sampling.scheme in ("shuffled", "arrival")
    sees_cohort = local or shares is not None or scheduled or threat.learns_cohorts
    drawn = sampling.scheme == "poisson" and sampling.rate < 1
    derived: NeighbourRelation = "replace_one"
    if shares is not None or over is not None:
        derived = "zero_out"
    elif public and sampling.scheme != "fixed_size" and not local:
        open_to_all = for_everybody(opens, sampling.population)
        derived = "add_remove" if open_to_all and not (sees_cohort and drawn) else "zero_out"
        derived = "zero_out" if sampling.scheme == "arrival" else derived
    unit: Unit = "client" if users is None else "user"
    shared = users is not None and not users.one_user_per_client
    if shared and (noised or shares is not None):
        derived = _of_shared_clients(relation)
    several = 1 if users is None else users.max_clients_per_user
    if users is not None:
        sampling = replace(sampling, group=1 if local else several, people=people)
    made = Pipeline(
        releases,
        Neighbours(unit, relation or derived),
        replace(sampling, scheme="all", rate=1.0) if local else sampling,
        sees_cohort=sees_cohort,
        coins=threat.sampling,
        against=against,
        colluders=threat.colluders,
        samples=Neighbours("sample" if users is None else "user", "zero_out"),
        repeatable=repeatable or able.seeded,
        void=void,
        opens=opens,
        users=users,
        copies=several if local else 1,
    )
    if adaptive is None or mechanism is None:
        return made
    counted = replace(releases[BITS], mechanism=adaptive.counting(made.reach(BITS)))
    return replace(made, releases={**releases, BITS: counted})


def _of_shared_clients(relation: NeighbourRelation | None) -> NeighbourRelation:
    """The relation of users who share clients.

    Raises:
        ConfigError: another one is asked for.
    """
    if relation not in (None, "replace_one"):
        raise ConfigError(
            f"relation {relation} says that all that a user's clients send goes with it, and"
            " here they hold other users' samples too: claim replace_one, or give users clients"
            " of their own and set one_user_per_client."
        )
    return "replace_one"


def require_steady(bound: Bound, rounds: int) -> None:
    """Refuse a bound that changes under noise that hangs together over rounds.

    Raises:
        ConfigError: it follows the clients' norms, or a schedule.
    """
    first = bound.at(0).l2
    if adapts(bound) or any(bound.at(number).l2 != first for number in range(rounds)):
        raise ConfigError(
            f"{type(bound).__name__} changes from round to round, and correlated noise cancels only"
            " at one scale: use clip."
        )


def refuse_turns(sampler: Sampler) -> None:
    """Refuse clients that are drawn in turns, for noise of which nothing is known there.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(
        f"{type(sampler).__name__} draws clients in turns, and what that saves is known of"
        " correlated noise over a banded matrix only: use the mechanism correlated with the"
        " strategy banded, or the sampler poisson."
    )


def _refuse_beside(over: RunNoise[Any], channel: Channel[Any], rule: AnyRule) -> None:
    """Refuse what correlated noise does not go with.

    Raises:
        ConfigError: noise in shares; a rule that divides by how many came.
    """
    if channel.able.noise is not None:
        raise ConfigError(
            f"{type(channel).__name__} carries noise in shares, and correlated noise cannot be"
            " shared out: rounds would have to cancel noise of the same survivors every time. Use"
            " a channel without noise, whose server adds it, or noise in shares alone."
        )
    if rule.public_denominator is None or channel.able.groups is not None:
        raise ConfigError(
            f"{type(rule).__name__} divides by how many rows came, and correlated noise cancels"
            " from round to round only at one scale: use the mean over a public denominator, as in"
            " {name: mean, weighted: false, denominator: ...}, and a channel without groups."
        )


def adversary_of(
    threat: Threat,
    channel: Channel[Any],
    *,
    clients: int,
    central: bool,
    noised: bool,
) -> Against:
    """Against whom the noise protects: whom the threat names, or the strongest that it can;
    ``clients`` are those of a round.

    Raises:
        ConfigError: the server, where it adds the noise itself; clients that collude, where these
            alone read single updates before that noise; the server and clients, where these read
            single updates with one share of the noise; a cohort that is not seen, where noise is at
            clients or in shares.
    """
    shares = channel.able.noise is not None
    if not (noised or shares):
        return threat.adversary or "model_recipients"
    if central:
        if threat.adversary in ("server", "server_and_clients"):
            raise ConfigError(
                f"threat.adversary is {threat.adversary}, and the server adds the noise itself,"
                " after it has read what the channel opens: nothing is claimed against it. Use"
                " noise at the clients (local_gaussian) or in shares (distributed_skellam)."
            )
        _refuse_neighbours(channel, threat.colluders, clients)
        return "model_recipients"
    if threat.sees_cohort is False:
        raise ConfigError(
            "threat.sees_cohort is false, and of noise at clients or in shares no amplification is"
            " proved: it is claimed against those who see the cohort. Leave sees_cohort out."
        )
    against = threat.adversary or ("server_and_clients" if threat.colluders else "server")
    if shares and against != "model_recipients":
        _refuse_readers(channel, threat.colluders, clients)
    return against


def _refuse_readers(channel: Channel[Any], colluders: int, clients: int) -> None:
    """Refuse a server that reads a single update, and with it one share of the noise alone,
    together with so many of a cohort of ``clients``.
    """
    plan = RoundPlan(0, tuple(range(max(clients, 2))), d=1, l2=1.0)
    why = _knows(channel, colluders, plan)
    if not why:
        return
    fewer = range(min(colluders - 1, plan.n), -1, -1)
    passes = next((k for k in fewer if not _knows(channel, k, plan)), None)
    out = (
        ""
        if passes is None
        else f", or lower threat.colluders to {passes} at most (attackers of a run count)"
    )
    raise ConfigError(
        f"with threat.colluders: {colluders}, {why}: nothing is claimed against them. Use a channel"
        f" that holds against them{out}."
    )


def _refuse_neighbours(channel: Channel[Any], colluders: int, clients: int) -> None:
    """Refuse clients that collude, where so many read a single update without the server: the noise
    that the server adds comes after that.
    """
    plan = RoundPlan(0, tuple(range(max(clients, 2))), d=1, l2=1.0)
    reader = _reader(channel, colluders, plan, alone=True)
    if reader is not None:
        reading = range(1, colluders + 1)
        fewest = next(k for k in reading if _reader(channel, k, plan, alone=True) is not None)
        raise ConfigError(
            f"threat.colluders is {colluders}, and over {type(channel).__name__}"
            f" {reader.describe()} read single updates before the server adds noise: nothing is"
            " claimed against them. Use a channel that holds against them (secagg), or lower"
            f" threat.colluders to {fewest - 1} at most."
        )


def _knows(channel: Channel[Any], colluders: int, plan: RoundPlan) -> str:
    """How the server with so many clients comes to know a single update with no noise but one
    share, or with none; "" where it does not.
    """
    reader = _reader(channel, colluders, plan)
    if reader is not None:
        return (
            f"{reader.describe()} read single updates over {type(channel).__name__} in a cohort of"
            f" {plan.n}, each with one share of the noise"
        )
    try:
        if channel.able.noise is not None:
            channel.able.noise.noise_event(plan, colluders=colluders)
    except ConfigError:
        return f"a cohort of {plan.n} has a sum in which they know every share of the noise"
    return ""


def _reader(
    channel: Channel[Any], colluders: int, plan: RoundPlan, *, alone: bool = False
) -> Coalition | None:
    """A coalition of the server and so many clients that reads a single update; ``alone``: of
    clients without the server.
    """
    for coalition in channel.guarantee.reads:
        acting = {party for party in coalition.parties if client_of(party) is not None}
        helping = acting if alone else acting | {"server"}
        if coalition.parties - helping or len(acting) > colluders:
            continue  # it needs a helper, or more clients, who are not in this adversary
        if coalition.some is None or (colluders and _enough(coalition.some, colluders, plan)):
            return coalition
    return None


def _enough(some: Some, colluders: int, plan: RoundPlan) -> bool:
    """Whether so many clients are as many as it takes against somebody, whichever they are."""
    for quota in some.around(plan).values():
        others = [party for party in quota.among if client_of(party) is not None]
        if quota.least <= min(colluders, len(others)):
            return True
    return False


def _bits(channel: Channel[Any]) -> PartRelease:
    """The sum of the clients' bits: plus or minus one half each."""
    encodes = channel.able.encodes
    return PartRelease((Clip(0.5), *(() if encodes is None else (encodes.stage(1),))), Sum())


def refuse_asking(parts: Sequence[Decides | Defence]) -> None:
    """Refuse rules and seats that ask clients about their data, in runs that claim privacy.

    Raises:
        ConfigError: one of them does.
    """
    for part in parts:
        for oracle in part.needs.values():
            if oracle.asks_clients:
                raise ConfigError(
                    f"{type(part).__name__} asks clients about their own data ({oracle.value}), and"
                    " the answers leave without noise: no epsilon counts them. Leave it out, or the"
                    " noise."
                )
