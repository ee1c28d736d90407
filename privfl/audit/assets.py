"""What an audit protects: the assets, in which figures each is measured, and how sure a finding
is where it is the greatest of many.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, TypeAlias, get_args

from scipy.special import ndtri

from privfl.audit.findings import LUCK, Finding
from privfl.audit.score import Figure

Asset: TypeAlias = Literal[
    "samples", "membership", "properties", "labels", "text", "presence", "representatives"
]
ASSETS: tuple[Asset, ...] = get_args(Asset)
QUESTIONS: Mapping[Asset, str] = {
    "samples": "can a client's samples be reconstructed?",
    "membership": "can it be told whether a sample was trained on?",
    "properties": "can it be told what a client's data are like?",
    "labels": "can it be told which labels a client holds?",
    "text": "can it be told which tokens a client typed?",
    "presence": "can it be told whether a client's data are in the model?",
    "representatives": "can it be told what a class of the clients' samples looks like?",
}
METRICS: Mapping[Asset, tuple[str, ...]] = {
    "samples": ("recognised", "fields", "psnr"),
    "membership": ("tpr_at_.01", "tpr_at_.001", "auc"),
    "properties": ("auc",),
    "labels": ("right",),
    "text": ("right", "whole"),
    "presence": ("auc",),
    "representatives": ("right", "auc"),
}
"""The figures of each asset: the share of samples that are recognised, of a table the share of
fields that are right, and the mean PSNR in dB; true positives at 1 % and .1 % false ones and the
area under the ROC curve; the share of labels or tokens that are right (of representatives, the
share that another classifier takes for the class), and of sequences of tokens that are whole.
"""
_MAIN: Mapping[Asset, str] = {
    "samples": "psnr",
    "membership": "auc",
    "properties": "auc",
    "labels": "right",
    "text": "right",
    "presence": "auc",
    "representatives": "right",
}
REPRESENTATIVES = "share of representatives"
"""The metric of findings about what a class looks like."""
CHANCE: Mapping[str, float] = {"tpr_at_.01": 0.01, "tpr_at_.001": 0.001}
"""What somebody has who saw nothing, where it does not depend on the data."""


def asset_of(finding: Finding) -> Asset:
    """The asset that a finding is about.

    >>> asset_of(Finding("none", "server", "inversion", "LabelCounts", "share of labels"))
    'labels'
    """
    if finding.family == "inversion":
        if finding.metric == "share of tokens":
            return "text"
        return "labels" if finding.metric == "share of labels" else "samples"
    if finding.family == "property":
        return "representatives" if finding.metric == REPRESENTATIVES else "properties"
    return "presence" if finding.metric == "AUC of clients" else "membership"


def figures(finding: Finding) -> dict[str, Figure]:
    """A finding's figures by the names of `METRICS`; those that were not measured, or of too few
    samples to be seen, are left out.
    """
    asset = asset_of(finding)
    named = {name: finding.rates[name] for name in METRICS[asset] if name in finding.rates}
    if finding.value is not None:
        named[_MAIN[asset]] = finding.value
    return {name: named[name] for name in METRICS[asset] if name in named and _known(named[name])}


def unseen(finding: Finding) -> tuple[str, ...]:
    """The figures that a finding would have, were there samples enough to see them."""
    return tuple(
        name
        for name in METRICS[asset_of(finding)]
        if name in finding.rates and not _known(finding.rates[name])
    )


def blind(finding: Finding, metric: str) -> float | None:
    """What a figure is for somebody who saw nothing: chance, the prior, or the same claims held
    against samples that the client did not hold.
    """
    if metric in CHANCE:
        return CHANCE[metric]
    if metric == _MAIN[asset_of(finding)]:
        return None if finding.baseline is None else finding.baseline.value
    beside = finding.rates.get(f"{metric}, blind", finding.rates.get(f"{metric}, decoys"))
    return None if beside is None else beside.value


def clears(finding: Finding, looks: int) -> bool:
    """Whether a finding leaks although it is the greatest of so many ``looks``: its interval, as
    much wider as Bonferroni's correction asks for, still lies above what is blind.
    """
    if finding.verdict != "leaks":
        return False
    if looks <= 1:
        return True
    if asset_of(finding) == "labels":  # counts of few rows have no normal distribution
        return finding.luck * looks < 0.025
    wider = float(ndtri(0.025 / looks) / ndtri(0.025))
    for name, figure in figures(finding).items():
        beside = blind(finding, name)
        if beside is not None and figure.value - wider * (figure.value - figure.low) > beside:
            return True
    paired = ("gap to decoys", "gap to other rows", *["gap to blind"][: "fields" in finding.rates])
    for name in paired:
        gap = finding.rates.get(name)
        if gap is not None and gap.value - wider * (gap.value - gap.low) > 0:
            return True
    # of what was recognised it is Fisher's exact test against as many decoys as were drawn
    limit = 0.025 if "recognised, decoys" in finding.rates else LUCK
    return finding.luck * looks < limit


def _known(figure: Figure) -> bool:
    return math.isfinite(figure.value)
