"""What is refused of a scenario before any training: parts that do not go together."""

from __future__ import annotations

import itertools
import typing

from privfl.aggregators import Before, Mean, ToleratesByzantine
from privfl.attacks.backdoor.learned import LearnedTrigger
from privfl.core import (
    ConfigError,
    Guarantee,
    Knows,
    TooManyByzantine,
    before_the_rule,
    bends_loss,
    counts_itself,
    is_private,
    poisons_training,
)
from privfl.engine.attackers import Attacker
from privfl.engine.compatibility import (
    check_declared,
    name_of,
    rule_reads_channel,
    unreadable,
)
from privfl.engine.encoding import check_data_seats
from privfl.engine.extra import check_extra
from privfl.engine.opening import too_few
from privfl.engine.paced import check_pace
from privfl.engine.releases import refuse_asking, refuse_turns, require_steady
from privfl.engine.rounding import check_rounding
from privfl.engine.samplers import PersonalPoisson
from privfl.engine.scenario import Scenario
from privfl.engine.stopping import refuse_early_stopping, refuse_metrics
from privfl.engine.users import check_users

_KNOWING = {
    "nothing": "nothing",
    "own": "its own updates",
    "benign": "the honest updates",
    "rule": "the server's rule",
}


def check_scenario(scenario: Scenario) -> None:
    """Refuse a run that cannot work.

    Raises:
        ConfigError: no clients, no rounds, an empty client, a rule that reads what the channel
            hides, integers without a clip, noise without a clip or without a proved
            sensitivity, an attack that acts nowhere or that needs to know what is withheld.
    """
    if not scenario.clients:
        raise ConfigError("there are no clients: the split left nobody with data.")
    empty = [client for client, index in scenario.clients.items() if len(index) == 0]
    if scenario.elsewhere:
        _check_elsewhere(scenario)
    elif empty:
        raise ConfigError(
            f"client {empty[0]} has no data; give the split fewer clients or a min_size."
        )
    scenario.sampler.sampling(len(scenario.clients))
    if isinstance(scenario.sampler, PersonalPoisson):
        scenario.sampler.refuse_strangers(tuple(scenario.clients))
    check_pace(scenario)
    check_declared(scenario.channel, "channel", "kind", "able", "guarantee")
    _check_guaranteed(scenario.channel.guarantee, scenario.channel)
    _check_enough(scenario)
    check_declared(scenario.bound, "bound", "adaptive", "parts", "at", "describe")
    if scenario.mechanism is not None:
        plain = ("local", "at", "local_deviation", "event")
        mechanism = ("over",) if scenario.mechanism.remembers else plain
        check_declared(scenario.mechanism, "mechanism", "guarantee", *mechanism)
        _check_guaranteed(scenario.mechanism.guarantee, scenario.mechanism)
    check_declared(
        scenario.aggregator,
        "rule",
        "reads",
        "needs_ids",
        "remembers",
        "judges",
        "public_denominator",
    )
    for defence in scenario.defences:
        check_declared(defence, "defence", "seats", "judges")
    able = scenario.channel.able
    if not rule_reads_channel(scenario.aggregator, scenario.channel):
        raise ConfigError(
            f"{unreadable(scenario.aggregator, scenario.channel)} See 'privfl list --compat'."
        )
    if scenario.channel.kind.opens == "total":
        for defence in scenario.defences:
            if before_the_rule(defence):
                raise ConfigError(
                    f"{name_of(defence)} reads individual updates, and {name_of(scenario.channel)}"
                    " opens only their sum."
                )
    if not scenario.bound.l2 < float("inf") and able.encodes is not None:
        raise ConfigError(
            f"{name_of(scenario.channel)} computes on integers, whose scale comes from a clip: set"
            " bound to {name: clip, l2: ...}."
        )
    if able.groups is not None and scenario.aggregator.public_denominator is not None:
        raise ConfigError(
            f"{name_of(scenario.channel)} regroups everybody when a client comes or goes, so a mean"
            " over a fixed denominator makes no sense of its groups: leave denominator out, or"
            " use secagg (the same sum, with less shown)."
        )
    for attacker in scenario.attackers:
        _check_attack(scenario, attacker)
    for one, other in itertools.combinations(scenario.attackers, 2):
        _check_pair(scenario, one, other)
    if scenario.bound.adaptive:
        _check_adaptive(scenario)
    check_users(scenario)
    check_data_seats(scenario)
    check_extra(scenario)
    _check_noise(scenario)
    _check_rule(scenario)
    check_rounding(scenario)
    refuse_metrics(scenario.metrics)
    if scenario.early_stopping is not None:
        refuse_early_stopping(
            validated=scenario.validation is not None,
            private=scenario.pipeline().private or scenario.workload.method.gradient.private,
        )


def _check_pair(scenario: Scenario, one: Attacker, other: Attacker) -> None:
    """Refuse two attacks of which one would undo the other."""
    both = sorted(one.clients & other.clients)
    trains = [
        poisons_training(attacker.attack) or bends_loss(attacker.attack)
        for attacker in (one, other)
    ]
    if not both or not all(trains):
        return
    learn = [isinstance(attacker.attack, LearnedTrigger) for attacker in (one, other)]
    together = any(
        one.schedule.active(round) and other.schedule.active(round)
        for round in range(scenario.rounds)
    )
    if together or all(learn):  # a client remembers one trigger
        raise ConfigError(
            f"attacks '{one.name}' and '{other.name}' both train in place of client {both[0]}, and"
            " only the last of them would: give them different clients"
            f"{'' if all(learn) else ' or rounds'}."
        )


def _check_elsewhere(scenario: Scenario) -> None:
    """Refuse what needs clients' data at the server, where they are on other machines."""
    if scenario.attackers:
        raise ConfigError(
            f"attack '{scenario.attackers[0].name}' is played by the simulator, and these clients"
            " are on machines of their own: leave attacks out, or run the config by itself."
        )
    if scenario.users is not None:
        raise ConfigError(
            "privacy is claimed for users, whose samples are counted over all clients, and these"
            " clients hold theirs elsewhere: leave users out."
        )
    if scenario.workload.method.weighting != "uniform" and scenario.max_weight is None:
        raise ConfigError(
            "clients weigh by their numbers of samples, which nobody else knows where they hold"
            " their data elsewhere: set max_weight to the most that one may count, or"
            " training.weighting to uniform."
        )
    hosted = scenario.channel.able.hosts
    rules = (scenario.aggregator, *(() if hosted is None else (hosted,)), *scenario.defences)
    for part in (*rules, scenario.bound):
        for oracle in part.needs.values():
            if oracle.asks_clients:
                raise ConfigError(
                    f"{name_of(part)} asks clients about their own data ({oracle.value}), which"
                    " only the simulator does: leave it out."
                )


def _check_enough(scenario: Scenario) -> None:
    """Refuse a run in which no cohort is large enough for the channel."""
    sampling = scenario.sampling
    drawn = 1.0 if sampling.scheme == "poisson" else sampling.rate
    why = too_few(scenario.channel, round(drawn * len(scenario.clients)))
    if why:
        raise ConfigError(f"no round could be opened: {why} Ask more clients.")


def _check_guaranteed(guarantee: object, part: object) -> None:
    """Refuse a part of somebody's own whose record of who may lie is missing."""
    if not isinstance(guarantee, Guarantee):
        raise ConfigError(
            f"{name_of(part)} has no guarantee, the record of who may collude and who may lie,"
            " from which the report is made: see privfl.core.Guarantee."
        )


def _check_attack(scenario: Scenario, attacker: Attacker) -> None:
    attack = attacker.attack
    declared = ("seats", "remembers", "measured", "divided", "counts", "knows")
    check_declared(attack, "attack", *declared)
    if not attack.seats and not attack.divided:
        raise ConfigError(
            f"attack '{attacker.name}' ({name_of(attacker.attack)}) fills none of the seats of"
            " an attacker."
        )
    needs = attack.knows
    ladder = typing.get_args(Knows)
    if ladder.index(needs) > ladder.index(scenario.attackers_know):
        raise ConfigError(
            f"attack '{attacker.name}' needs to know {_KNOWING[needs]}, and this scenario lets"
            f" attackers know {_KNOWING[scenario.attackers_know]} at most."
        )
    if needs in ("benign", "rule") and attacker.clients.issuperset(scenario.clients):
        raise ConfigError(
            f"attack '{attacker.name}' needs to know the honest updates, and has all clients:"
            " leave some out."
        )
    if counts_itself(attack) and scenario.sampling.scheme == "all":
        for team in attacker.teams(sorted(attacker.clients)):
            attack.among(len(scenario.clients), len(team))
    if needs == "rule" and scenario.aggregator.reads == "total":
        raise ConfigError(
            f"attack '{attacker.name}' tries out the server's rule on rows, and"
            f" {name_of(scenario.aggregator)} reads none: give the attack a rule of its own to"
            " stand in for it."
        )


def _check_noise(scenario: Scenario) -> None:
    if scenario.mechanism is not None:
        _check_noisable(scenario)
    _check_turns(scenario)
    if scenario.local_noise and scenario.channel.able.encodes is not None:
        raise ConfigError(
            f"noise at the clients has no bound, and {name_of(scenario.channel)} computes on"
            " integers that need one: use the plain channel."
        )
    sent = scenario.workload.method.parts(scenario.workload.model.d)
    for part in scenario.part_bounds:
        if part not in sent:
            sends = f"it sends {', '.join(sent)}" if sent else "it sends the delta alone"
            raise ConfigError(f"part_bounds has '{part}', which the method does not send: {sends}.")
    for part in sent:
        if scenario.bound.l2 < float("inf") and part not in scenario.part_bounds:
            raise ConfigError(
                f"the method also sends '{part}', which needs a bound of its own here: set"
                f" bound.parts to {{{part}: ...}}, or part_bounds of a Federation."
            )
    _check_coins(scenario)
    pipeline = scenario.pipeline()
    if pipeline.private or scenario.workload.method.gradient.private:
        refuse_asking((scenario.aggregator, *scenario.defences))
    if pipeline.private:
        remembering = [scenario.aggregator] if scenario.aggregator.remembers else []
        for one in (*remembering, *filter(before_the_rule, scenario.defences)):
            check_declared(one, "rule or seat that remembers", "memory")
    pipeline.check(scenario.expected_rows)


def _check_noisable(scenario: Scenario) -> None:
    """Refuse all that noise lacks in one sentence: from Python, where weights are counts of samples
    unless said, there would else be one refusal after the other.
    """
    rule = scenario.aggregator
    lacking = []
    if not scenario.bound.l2 < float("inf"):
        lacking.append(
            ("a bound on each update", "bound=Clip(l2=1.0)", "bound: {name: clip, l2: 1.0}")
        )
    if scenario.workload.method.weighting != "uniform":
        what = "clients that weigh the same (with their own counts there is no proved sensitivity)"
        python = "training=LocalSGD(0.1, weighting='uniform')"
        lacking.append((what, python, "training.weighting: uniform"))
    if lacking and isinstance(rule, Mean) and rule.weighted and not scenario.local_noise:
        config = "aggregator: {name: mean, weighted: false}"
        lacking.append(("a mean that does not weigh", "aggregator=Mean(weighted=False)", config))
    if lacking:
        what, python, config = (" and ".join(words) for words in zip(*lacking, strict=True))
        raise ConfigError(f"noise needs {what}: {python} in Python, {config} in a config.")


def _check_turns(scenario: Scenario) -> None:
    """Refuse a scale that changes under correlated noise, and turns that only that prices."""
    if scenario.mechanism is None:
        return
    if scenario.mechanism.remembers:
        require_steady(scenario.bound, scenario.rounds)
    elif scenario.participation.rate < 1:
        refuse_turns(scenario.sampler)


def _check_coins(scenario: Scenario) -> None:
    """Refuse secret coins that somebody can draw again, and coins that are said to be both."""
    if scenario.repeatable:
        _check_repeatable(scenario)
    if scenario.threat.sampling != "secret":
        return
    if scenario.noise.repeatable:
        raise ConfigError(
            "threat.sampling is secret, and a noise seed draws the cohorts again: leave"
            " noise_seed out, or set sampling to public."
        )
    gradient = scenario.workload.method.gradient
    if is_private(gradient) and gradient.sampling != "secret":
        raise ConfigError(
            "threat.sampling is secret, and the batches of private training are drawn from the"
            " run's seed: give its gradient sampling='secret'."
        )


def _check_repeatable(scenario: Scenario) -> None:
    """Refuse coins that everybody is told and nobody knows."""
    if scenario.threat.sampling == "secret":
        raise ConfigError(
            "repeatable is true, so that everybody is told the seed that draws the cohorts, and"
            " threat.sampling is secret: leave one of them out."
        )
    if scenario.threat.sees_cohort is False:
        raise ConfigError(
            "repeatable is true, so that everybody is told the seed that draws the cohorts, and"
            " threat.sees_cohort is false: leave one of them out."
        )
    if not scenario.seeds.repeatable:
        raise ConfigError(
            "repeatable is true, and the coins of this scenario repeat for nobody: leave coins out."
        )


def _check_adaptive(scenario: Scenario) -> None:
    """Refuse a channel that does not sum the bits, and noise beside which their count is not
    accounted for.
    """
    able = scenario.channel.able
    if able.hosts is not None or able.groups is not None:
        raise ConfigError(
            "an adaptive bound needs the sum of the clients' bits, which"
            f" {name_of(scenario.channel)} does not open: use secagg."
        )
    if able.noise is not None:
        raise ConfigError(
            "the count of an adaptive bound is noised by the server, and distributed noise does"
            " not trust it: use clip."
        )
    if scenario.local_noise:
        raise ConfigError(
            "the bits of an adaptive bound would reach the server without noise of their own:"
            " use clip under local noise."
        )
    mechanism = scenario.in_round(0, None).round_noise
    event = None if mechanism is None else mechanism.event(1)
    if mechanism is not None and (event is None or event.mechanism != "gaussian"):
        raise ConfigError(
            "an adaptive bound's count is accounted for beside Gaussian noise only:"
            f" {name_of(mechanism)} needs clip."
        )


def _check_rule(scenario: Scenario) -> None:
    """Refuse a rule or a seat before it that tolerates fewer Byzantine clients than its f among
    the rows that it gets, before any training.
    """
    sampling = scenario.sampling
    seats = [defence for defence in scenario.defences if before_the_rule(defence)]
    nameless = "" if scenario.channel.kind.named else f"the rows of {name_of(scenario.channel)} are"
    for seat in seats:
        if isinstance(seat, Before) and seat.needs_ids and nameless:
            raise ConfigError(
                f"{name_of(seat)} needs to know whose row is whose, and {nameless} anonymous."
            )
        if not seat.keeps_ids and scenario.aggregator.needs_ids:
            raise ConfigError(
                f"{name_of(scenario.aggregator)} needs to know whose row is whose, and"
                f" {name_of(seat)} makes rows anonymous."
            )
        if not seat.keeps_ids:
            nameless = f"rows after {name_of(seat)} are"
    deciding: tuple[object, ...] = (scenario.aggregator, scenario.channel.able.hosts)
    rules = [rule for rule in deciding if isinstance(rule, ToleratesByzantine)]
    for rule in rules:
        rule.admit(scenario.clients)
    if sampling.scheme == "poisson":  # how many come is not known
        return
    try:
        n = scenario.rows(round(sampling.rate * len(scenario.clients)))
        for seat in seats:
            n = seat.passes(n)
        for rule in rules:
            rule.max_byzantine(n)
    except TooManyByzantine as refused:
        raise ConfigError(str(refused)) from None
