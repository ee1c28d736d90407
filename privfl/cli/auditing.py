"""``privfl audit``: what each adversary really gets, under each layer."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer

from privfl.cli.screen import bar, say, strict, table
from privfl.cli.seconds import seconds_of
from privfl.config import load
from privfl.core import Adversary, ConfigError, PrivflError
from privfl.core.pool import ended_by_signals
from privfl.engine.files import make_folder, refuse_full, said
from privfl.federation import Federation
from privfl.report import config_in, write_report

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout instead of tables.")]
MOST_SHOWN = 200


def audit(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|CONFIG.yaml", help="A run folder, or a config (see examples/audit.yaml)."
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=C", help="Override a key of the config; repeatable."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="A new folder for the page; audit-NAME beside the source unless said."
        ),
    ] = None,
    dp: Annotated[
        bool,
        typer.Option(
            "--dp", help="Audit what the run claims in differential privacy, on its own model."
        ),
    ] = False,
    canaries: Annotated[
        int | None,
        typer.Option(
            "--canaries",
            min=0,
            help="With --dp: how many bound epsilon from below beside the tests; 2000 unless said,"
            " 0 for none.",
        ),
    ] = None,
    pairs: Annotated[
        int | None,
        typer.Option(
            "--pairs",
            min=1,
            help="With --dp: how many pairs of neighbours are tried before some more from the worst"
            " of them; 120 unless said.",
        ),
    ] = None,
    values: Annotated[
        int | None,
        typer.Option(
            "--values",
            min=1,
            help="With --dp: at least how many values of noise; 40000 unless said, which see noise"
            " x .97.",
        ),
    ] = None,
    protocol: Annotated[
        int | None,
        typer.Option(
            "--protocol",
            min=3,
            help="Play lying servers and clients against the config's secure aggregation, among so"
            " many clients, and nothing else.",
        ),
    ] = None,
    effort: Annotated[
        str | None,
        typer.Option("--effort", help="low, default or high, over the config's audit.effort."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget", metavar="90s|3m", help="No attack begins after this; what is left says so."
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            min=1,
            help="How many layers at a time, each in a process of its own; as many as there are"
            " cores unless said.",
        ),
    ] = None,
    fail_over: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-over",
            metavar="ASSET.FIGURE=LIMIT",
            help="Exit 1 where a figure is surely over a limit, and 3 where it is not surely under"
            " it; repeatable. As in membership.tpr_at_.01=.05.",
        ),
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(
            "--against",
            metavar="OLD.json",
            help="Exit 1 where a figure is surely worse than in an older audit.json, 3 where that"
            " cannot be told.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Attack a run through every adversary's view, under each of its layers; prints the report
    card, and writes a page and audit.json.

    The run is trained again with some of every client's data held out, because membership needs
    samples that are no members. Exit codes: 0, all gates are green, or there are none; 1, a gate is
    red; 3, none is red and one is inconclusive; 2, a config, an argument or data that cannot be
    audited, or an audit that broke off.

    With --dp, canaries go through the run's own code instead: every
    claim is searched for neighbours that lie too far apart, every value of its noise is looked at,
    its sampler replayed, its accountant held against drawn losses; exit code 1 where one alarms. An
    alarm is no epsilon, and no alarm proves nothing.

    With --protocol N the parties of the config's secure aggregation are replaced by lying ones, one
    attack at a time; exit code 1 where one opens what an honest round does not.
    """
    tries = effort, budget, jobs or os.cpu_count() or 1
    if dp and protocol:
        raise ConfigError("--dp and --protocol are two audits: ask for one at a time.")
    if dp or protocol:
        passed = {"--fail-over": fail_over, "--against": compare}
        _refuse_beside(
            "--dp" if dp else "--protocol", {**passed, "--effort": effort, "--budget": budget}
        )
    of_claims = {"canaries": canaries, "pairs": pairs, "values": values}
    _refuse_useless({**of_claims, "jobs": jobs, "out": out}, dp, protocol is not None)
    try:
        if protocol:
            _protocol(source, settings or (), protocol, as_json)
        elif dp:
            _claims(
                source,
                settings or (),
                out,
                {k: v for k, v in of_claims.items() if v is not None},
                as_json,
            )
        else:
            _attacked(source, settings or (), out, tries, (fail_over or (), compare), as_json)
    except PrivflError as error:  # 1 is a red gate or an alarm, and no data that cannot be read
        raise ConfigError(str(error)) from error
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except Exception as error:
        traceback.print_exc()
        say(f"privfl: the audit broke off by {type(error).__name__}, above; no gate was judged")
        raise typer.Exit(2) from error


def _refuse_useless(given: Mapping[str, object], dp: bool, protocol: bool) -> None:
    """Refuse options that say nothing to the audit that was asked for."""
    beside = "beside --protocol" if protocol else "beside --dp"
    useless = {} if dp else dict.fromkeys(("canaries", "pairs", "values"), "without --dp")
    useless |= {"jobs": beside} if dp or protocol else {}
    useless |= {"out": beside} if protocol else {}
    for name, where in useless.items():
        if given[name] is not None:
            raise ConfigError(f"--{name} is of no use {where}: leave it out.")


def _refuse_beside(instead: str, passed: Mapping[str, object]) -> None:
    """Refuse what the other audits do not look at: a gate that nobody reads would look green."""
    for option, given in passed.items():
        if given:
            raise ConfigError(
                f"{option} is for attacks on what is seen, and {instead} audits something else,"
                " which would pass over it: leave one of them out."
            )


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """A folder for an audit's page and record, empty until now; what is left in the middle takes
    back what it began there, and the folder too where that is new.
    """
    new = not folder.exists()
    with ended_by_signals():
        with said(folder):
            make_folder(folder)
        try:
            yield
        except BaseException:  # Ctrl-C as well
            with suppress(OSError):  # it is not empty, or gone
                for name in ("audit.html", "audit.json"):
                    (folder / name).unlink(missing_ok=True)
                if new:
                    folder.rmdir()
            raise


def _attacked(
    source: Path,
    overrides: Sequence[str],
    out: Path | None,
    tries: tuple[str | None, str | None, int],
    gates: tuple[Sequence[str], Path | None],
    as_json: bool,
) -> None:
    """Attack all layers of a config, print the card and the gates, write the page and the record;
    everything that can be refused is refused before anything trains.
    """
    from privfl.audit import audit as attack
    from privfl.audit import card, named_attacks, record, write_page, write_record
    from privfl.audit.gates import EXIT, Limit, against, light_of, over
    from privfl.audit.record import read_record
    from privfl.cli.audit_card import named_by, print_card

    path = config_in(source) if source.is_dir() else source
    folder = out or source.parent / f"audit-{source.stem}"
    _refuse_file(folder)
    refuse_full(folder)
    given = [f"audit.effort={tries[0]}"] if tries[0] is not None else []
    given += [f"audit.budget={seconds_of('--budget', tries[1])}"] if tries[1] is not None else []
    config = load(path, [*overrides, *given])
    for adversary in config.audit.adversaries:
        Adversary.parse(adversary)
    limits = [Limit.parse(text) for text in gates[0]]
    old = None if gates[1] is None else read_record(gates[1])
    named = named_attacks(config.audit.attacks) if config.audit.attacks else None
    layers = config.audit.layers or {"as configured": {}}
    base = {key: value for key, value in config.model_dump().items() if key != "audit"}
    keep = {"audit": {"keep": "all", "delta": config.audit.delta}}
    federations = {}
    for name, changes in layers.items():
        try:
            federations[name] = Federation.from_config({**base, **changes, **keep})
        except ConfigError as error:
            where = f"audit.layers '{name}': " if config.audit.layers else ""
            raise ConfigError(f"{where}{error}") from error
    with _made(folder), bar("audit", MOST_SHOWN) as shown:
        report = attack(
            federations,
            adversaries=config.audit.adversaries or None,
            attacks=named,
            effort=config.audit.effort,
            budget=config.audit.budget,
            held_out=config.audit.held_out,
            seed=config.seed,
            jobs=tries[2],
            progress=shown.step,
        )
        shown.step("writes the page")
        report = named_by(report, path, overrides, config)
        page = write_page(report, folder)
        write_record(report, folder)
    held = record(report)
    judged = [over(held, limit) for limit in limits]
    judged += [] if old is None else against(held, old)
    if as_json:
        held = {**held, "gates": [gate.row() for gate in judged], "light": light_of(judged)}
        print(json.dumps(held, allow_nan=False))  # noqa: T201
    else:
        print_card(card(report))
        for layer, facts in report.layers.items():
            if "data seats" in facts:
                say(f"privfl: {layer}: data seats: {facts['data seats']}; not found says nothing")
        if report.lies:
            told = [one.row() for one in report.lies if not one.framed or one.alarming or one.read]
            table("What liars get", told, False)
        if report.models:
            rows = [one.row() for one in report.models]
            table("What a server gets that sends models of its own", rows, False)
        if judged:
            table("Gates", [gate.row() for gate in judged], False)
    say(f"privfl: the page is {page}, its figures are in audit.json")
    if any(federation.claims_privacy for federation in federations.values()):
        say("privfl: it attacks the clients' data themselves, so no claim of the run covers it")
    if EXIT[light_of(judged)]:
        raise typer.Exit(EXIT[light_of(judged)])


def _protocol(source: Path, overrides: Sequence[str], n: int, as_json: bool) -> None:
    """Score the suite of malicious servers and clients against the config's channel."""
    from privfl.audit.protocol import attacks
    from privfl.crypto import SecAgg

    path = config_in(source) if source.is_dir() else source
    channel = Federation.from_config(path, overrides).scenario.channel
    if not isinstance(channel, SecAgg):
        raise ConfigError(
            f"--protocol attacks secure aggregation, and the channel is {type(channel).__name__}:"
            " --set channel=secagg."
        )
    scored = list(attacks(channel, n))
    table(f"Liars among {n} clients ({channel.mode})", [one.row() for one in scored], as_json)
    broken = [one for one in scored if one.broken]
    if broken:
        rows = ", ".join(f"'{one.attack}' ({one.leaked})" for one in broken)
        way_out = (
            "mode: active promises that none does: please report it, as SECURITY.md says"
            if channel.active
            else "mode: semi_honest promises nothing against liars: set channel.mode: active"
        )
        say(
            f"privfl: red: {len(broken)} of {len(scored) - 1} attacks"
            f" {'opens' if len(broken) == 1 else 'open'} what an honest round does not: {rows};"
            f" {way_out}."
        )
        raise typer.Exit(1)


def _refuse_file(folder: Path) -> None:
    """Refuse what no folder can be before an audit begins, and not at its end."""
    for above in (folder, *folder.parents):
        if above.exists() and not above.is_dir():
            raise ConfigError(f"'{folder}' cannot be: '{above}' is a file; give --out a folder.")


def _claims(
    source: Path,
    overrides: Sequence[str],
    out: Path | None,
    sizes: Mapping[str, int],
    as_json: bool,
) -> None:
    """Audit every claim with so many canaries, pairs and values; a run folder's report then shows
    what was found beside what is claimed.
    """
    from privfl.audit import Settings, audit_claims
    from privfl.engine import read_ledger
    from privfl.engine.files import write_atomically

    path = config_in(source) if source.is_dir() else source
    federation = Federation.from_config(path, overrides)
    folder = out or (source if source.is_dir() else None)
    if folder is not None:
        _refuse_file(folder)
    recorded = (
        read_ledger(source)
        if source.is_dir() and not overrides and (source / "ledger.json").exists()
        else None
    )
    settings = Settings(**sizes)
    with bar("audit", MOST_SHOWN) as shown:
        claims = audit_claims(federation, recorded=recorded, settings=settings, progress=shown.step)
    rows = [claim.row() for claim in claims]
    if as_json:
        table("", rows, as_json)
    else:
        for claim in claims:
            tests = f"{len(claim.findings)} tests at level {claim.level:g}"
            title = f"{claim.unit} level: {claim.verdict}, {tests}"
            table(title, [finding.row() for finding in claim.findings], as_json)
        heads = [
            {key: row[key] for key in row if key not in ("tests", "would have seen")}
            for row in rows
        ]
        table("What is claimed, and what was found", heads, as_json)
        for claim in claims:
            if claim.covers:
                say(f"privfl: {claim.unit} level: {claim.covers}")
    if folder is not None:
        with said(folder):
            make_folder(folder)
        write_atomically(folder / "dp_audit.json", json.dumps(strict(rows), indent=1))
        say(f"privfl: the audit is in {folder / 'dp_audit.json'}")
    if source.is_dir() and recorded is not None:
        say(f"privfl: the report shows it: {write_report(source)}")
    for claim in claims:
        for one in claim.alarms:
            say(f"privfl: red: {claim.unit} level: {one.name}: {one.seen}")
    if any(claim.alarms for claim in claims):
        raise typer.Exit(1)
