"""Membership by shadow models, beside Privacy Meter 1.0.1.

Its release on the package index has three attacks, all of them on the loss: a threshold for all
from population data (PopulationMetric), a logistic regression on the losses of shadows
(ShadowMetric), and a threshold for each sample from reference models (ReferenceMetric). They are
played through its own Audit and InformationSource on the same target, candidates and shadows as
ours, in one run.

Both sides are scored by `privfl.audit.score.membership`. The scores of PopulationMetric are minus
the one signal that it holds against one threshold; those of ShadowMetric its probabilities;
ReferenceMetric has nothing but predictions, one a quantile, and a sample's score is at how many of
`QUANTILES` it is predicted a member. Its own area under the ROC joins the same predictions at 100
quantiles of its choice.

ReferenceMetric is for models that never saw the sample. It is played with our shadows, half of
which did, and with as many models of the same size trained on the auxiliary samples alone; and with
each of its thresholds in `TESTS`. Its figures are those of the best, each figure by itself; ours
are those of the better of LiRA and RMIA.
"""

from __future__ import annotations

import contextlib
import copy
import io
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.stats import norm
from torch import Tensor, nn

from benchmarks.harness import Row, cost, gain, say
from benchmarks.meter_env import privacy_meter
from benchmarks.privacy_attacks.runs import mean, recipe
from privfl.attacks import (
    Inference,
    Knowledge,
    LossThreshold,
    Scores,
    ShadowMembership,
    Trainer,
)
from privfl.audit import Shadows
from privfl.audit.score import membership
from privfl.core import Dataset, FlatModel, LocalPlan, RoundPlan, Vector, View
from privfl.data import load
from privfl.models import initialised, mlp
from privfl.training import LocalSGD

K, EPOCHS, SIZE = 16, 40, 500
SHAPE = (1, 8, 8)
AUC, TPR = "AUC", "TPR at 1 % FPR"
PEER = "Privacy Meter 1.0.1"
QUANTILES = norm.cdf(np.linspace(-8, 8, 1601)).tolist()
"""Close together where false positives are few, and as far out as 1 less a quantile is not 1."""
TESTS = ("linear_itp", "gaussian", "logit_rescale", "min_linear_logit")
"""Its thresholds but `threshold_func`, which asks numpy for an argument that numpy 2.4 has not."""
OURS: Mapping[str, Inference] = {
    "LiRA": ShadowMembership("lira_online", shadows=K, epochs=EPOCHS),
    "RMIA": ShadowMembership("rmia", shadows=K, epochs=EPOCHS),
    "loss threshold": LossThreshold(),
}


@dataclass
class Kept:
    """A trainer that keeps the shadows that it trained: who asks for the same again gets them."""

    train: Trainer
    data: Dataset | None = None
    subsets: Sequence[Tensor] = ()
    changes: Float[Tensor, "K d"] | None = None

    def __call__(
        self,
        start: Vector,
        data: Dataset,
        subsets: Sequence[Tensor],
        *,
        epochs: int | None = None,
        seed: int = 0,
    ) -> Float[Tensor, "K d"]:
        if self.changes is None:
            self.data, self.subsets = data, list(subsets)
            self.changes = self.train(start, data, subsets, epochs=epochs, seed=seed)
        assert len(subsets) == len(self.subsets)
        assert all(torch.equal(a, b) for a, b in zip(subsets, self.subsets, strict=True))
        return self.changes


@dataclass(frozen=True)
class Game:
    """A model released, and candidates of whom ``inside`` are called members, and come first."""

    net: nn.Module
    view: View
    knows: Knowledge
    kept: Kept
    candidates: Dataset
    auxiliary: Dataset
    inside: Bool[Tensor, " n"]


@dataclass
class Figures:
    """Area and rate of each attack, seed by seed, and least CPU seconds of scoring."""

    found: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, scores: Tensor, inside: Tensor) -> None:
        told = membership(scores, inside)
        at = self.found.setdefault(name, {AUC: [], TPR: []})
        at[AUC].append(told.auc.value)
        at[TPR].append(told.at_hundredth.value)

    def took(self, name: str, seconds: float) -> None:
        self.seconds[name] = min(seconds, self.seconds.get(name, float("inf")))

    def best(self, names: Iterable[str], metric: str) -> tuple[str, float]:
        return max(((n, mean(self.found[n][metric])) for n in names), key=lambda one: one[1])

    def told(self, title: str) -> None:
        say(f"{title}:")
        for name, at in self.found.items():
            say(f"  {name:54s} AUC {_spread(at[AUC])}   TPR {_spread(at[TPR])}")


def meter(quick: bool) -> Iterable[Row]:
    """LiRA, RMIA and the loss threshold against Privacy Meter's three attacks, on 500 digits and
    their true labels.
    """
    peer = privacy_meter()
    ours, theirs, null = Figures(), Figures(), Figures()
    for seed in range(3 if quick else 6):
        game = _game(seed, 0, 2 * SIZE)
        _ours(game, ours)
        _theirs(peer, game, theirs)
        untrained = _game(seed, SIZE, SIZE + 600)  # the rest is enough for reference models
        _ours(untrained, null)
        _theirs(peer, untrained, null)
    ours.told("ours")
    theirs.told(PEER)
    null.told("nobody trained on the candidates: AUC must be near .5, TPR near .01")
    say("least CPU s of scoring:", {**ours.seconds, **theirs.seconds})
    yield from _rows(ours, theirs)


def _spread(values: list[float]) -> str:
    """The mean and its standard error over seeds."""
    return f"{mean(values):.4f} +- {np.std(values, ddof=1) / len(values) ** 0.5:.4f}"


def _rows(ours: Figures, theirs: Figures) -> Iterable[Row]:
    case = f"{SIZE} digits, MLP of 128, {EPOCHS} epochs, K={K}"
    sides = [
        [name for name in theirs.found if name.startswith(kind)]
        for kind in ("population", "shadow", "reference")
    ]
    for metric in (AUC, TPR):
        leader = ours.best(("LiRA", "RMIA"), metric)[0]
        top = theirs.best(theirs.found, metric)[0]
        for name in ("LiRA", "RMIA"):
            pairs = zip(ours.found[name][metric], theirs.found[top][metric], strict=True)
            say(f"{name} less {top}, {metric}: {_spread([a - b for a, b in pairs])}")
        for name in OURS:
            for names in sides:
                told, value = theirs.best(names, metric)
                yield gain(
                    f"{name}, {case}",
                    f"{PEER}, {told}",
                    metric,
                    mean(ours.found[name][metric]),
                    max(value, 0.002),
                    1.0 if name == leader and top in names else None,
                )
    for name in OURS:
        yield cost(
            f"{name}, scoring alone, {case}",
            f"{PEER}, reference, 100 quantiles",
            "CPU s",
            ours.seconds[name],
            theirs.seconds["reference"],
        )


def _game(seed: int, first: int, stop: int) -> Game:
    """The target is trained on the first 500 of a shuffled set; candidates are those from ``first``
    to ``stop``, and what comes after is auxiliary.
    """
    split = load("digits")
    x, y = torch.cat([split.train.x, split.test.x]), torch.cat([split.train.y, split.test.y])
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    data = Dataset(x[order], y[order], 10)
    training = LocalSGD(lr=0.1, plan=LocalPlan(batch_size=16, epochs=EPOCHS))
    net = initialised(mlp, SHAPE, 10, seed=0, hidden=(128,))
    train, start = Shadows(net, training), FlatModel(net).read()
    after = start + train(start, data, [torch.arange(SIZE)], seed=99 + seed)[0]
    candidates, auxiliary = data.take(range(first, stop)), data.take(range(stop, data.n))
    kept = Kept(train)
    knows = Knowledge(
        forward=recipe(net, SHAPE, training),
        candidates=candidates,
        auxiliary=auxiliary,
        trainer=kept,
        seed=seed,
    )
    view = View("server", RoundPlan(0, (0,), len(start), float("inf")), start, after, {})
    inside = torch.arange(candidates.n) < candidates.n // 2
    return Game(net, view, knows, kept, candidates, auxiliary, inside)


def _ours(game: Game, figures: Figures) -> None:
    OURS["LiRA"].run(game.view, game.knows)  # trains the shadows
    for name, attack in OURS.items():
        began = time.process_time()
        result = attack.run(game.view, game.knows)
        figures.took(name, time.process_time() - began)
        assert isinstance(result, Scores)
        figures.add(name, result.scores, game.inside)


def _theirs(peer: Any, game: Game, figures: Figures) -> None:
    """Its metrics by the public arguments of their constructors; models and pixels in double
    precision, so that no small losses are tied.
    """
    start, kept, half = game.view.before, game.kept, int(game.inside.sum())
    assert kept.changes is not None
    assert kept.data is not None

    def model(parameters: Vector) -> Any:
        module = copy.deepcopy(game.net)
        FlatModel(module).write(parameters)
        return peer.model.PytorchModel(module.double(), nn.CrossEntropyLoss())

    def source(models: list[Any], *splits: dict[str, Dataset]) -> Any:
        datasets = [
            peer.dataset.Dataset(
                {name: {"x": d.x.double().numpy(), "y": d.y.numpy()} for name, d in parts.items()},
                default_input="x",
                default_output="y",
            )
            for parts in splits
        ]
        return peer.information_source.InformationSource(models, datasets)

    def run(metric: str, reference: Any, test: str | None, quantiles: list[float] | None) -> Any:
        made = getattr(peer.metric, f"{metric.capitalize()}Metric")(
            target_info_source=source([target], asked),
            reference_info_source=reference,
            signals=[peer.information_source_signal.ModelLoss()],
            hypothesis_test_func=test and getattr(peer.hypothesis_test, f"{test}_threshold_func"),
        )
        game_type = peer.constants.InferenceGame.PRIVACY_LOSS_MODEL
        with contextlib.redirect_stdout(io.StringIO()):
            began = time.process_time()
            audit = peer.audit.Audit(made, game_type, fpr_tolerances=quantiles, save_logs=False)
            audit.prepare()
            (result,) = audit.run()
            if quantiles is None:
                figures.took(metric, time.process_time() - began)
        return result if metric == "shadow" else result[0]

    def score(name: str, scores: Any, result: Any) -> None:
        inside = torch.as_tensor(np.asarray(result.true_labels)) > 0
        figures.add(name, torch.as_tensor(scores), inside)

    target, n = model(game.view.after), game.candidates.n
    asked = {
        "train": game.candidates.take(range(half)),
        "test": game.candidates.take(range(half, n)),
    }
    shadows = [model(start + change) for change in kept.changes]
    parts = [
        {
            "train": kept.data.take(own),
            "test": kept.data.take(sorted(set(range(n)) - set(own.tolist()))),
        }
        for own in kept.subsets
    ]
    rng = torch.Generator().manual_seed(game.knows.seed)
    drawn = [torch.randperm(game.auxiliary.n, generator=rng)[:SIZE] for _ in range(K)]
    strangers = [
        model(start + change)
        for change in kept.train(
            start, game.auxiliary, drawn, epochs=EPOCHS, seed=game.knows.seed + 7
        )
    ]
    result = run("population", source([target], {"train": game.auxiliary}), TESTS[0], None)
    score("population", -result.signal_values, result)
    result = run("shadow", source(shadows, *parts), None, None)
    score("shadow", result.predictions_proba, result)
    run("reference", source(strangers, asked), TESTS[0], None)  # its own quantiles, for its time
    for told, models in (("shadows", shadows), ("models of auxiliary data", strangers)):
        for test in TESTS:
            result = run("reference", source(models, asked), test, QUANTILES)
            score(f"reference, {told}, {test}", result.predicted_labels.mean(axis=0), result)
