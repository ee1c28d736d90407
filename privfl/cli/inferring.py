"""``privfl infer``: a run's model asked about encrypted samples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from privfl.audit.inspection import trained_model
from privfl.cli.screen import say, table
from privfl.federation import Federation
from privfl.inference import infer_encrypted
from privfl.report import config_in

CALIBRATION = 1000


def infer(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="A run folder whose model has only squares between."),
    ],
    samples: Annotated[
        int, typer.Option("--samples", min=1, help="How many test samples are asked about.")
    ] = 100,
    as_json: Annotated[
        bool, typer.Option("--json", help="Rows as JSON on stdout instead of a table.")
    ] = False,
) -> None:
    """Ask a run's model about encrypted samples, and compare with its answers in the clear.

    Both parties run here, through the messages that they would send each other. The model's owner
    reads no sample and no answer; nothing proves to the client that the answer is the model's, and
    its answers say about the training data what they say in the clear.
    """
    federation = Federation.from_config(config_in(run))
    data = federation.scenario.measured_on
    found = infer_encrypted(
        trained_model(federation, run), data.x[:samples], calibration=data.x[:CALIBRATION]
    )
    encrypted, clear = found.accuracy(data.y[:samples])
    figures = {
        "samples": len(found.clear),
        "same class": found.agreement,
        "accuracy encrypted": encrypted,
        "accuracy in the clear": clear,
        "largest error of a logit": found.error,
        "CPU s to encrypt": found.seconds.encrypt,
        "CPU s to evaluate": found.seconds.evaluate,
        "CPU s to decrypt": found.seconds.decrypt,
        "kB a query": found.query_bytes / 1e3,
        "kB an answer": found.answer_bytes / 1e3,
        "MB of keys, once": found.keys_bytes / 1e6,
    }
    rows = [{"what": what, "figure": value} for what, value in figures.items()]
    table("Answers to encrypted samples", rows, as_json)
    say("privfl: the client keeps what it decrypts: published, it gives its key away")
