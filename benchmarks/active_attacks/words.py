"""Which words clients train on, from the updates of their embeddings."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

import torch

from benchmarks.active_attacks.runs import SUMMED, run
from benchmarks.harness import Row, gain
from privfl.attacks import EmbeddingLeakage
from privfl.core import Dataset, LocalPlan
from privfl.data import files
from privfl.data.shakespeare import speeches
from privfl.models import initialised, lstm
from privfl.training import LocalSGD


def words(quick: bool) -> Iterable[Row]:
    """The words of eight roles of Shakespeare (400 each), next-word LSTM, 2 local epochs."""
    path = files.find("shakespeare", "tinyshakespeare/input.txt", None)
    spoken = {
        role: re.findall(r"[a-z']+", " ".join(lines).lower())
        for role, lines in speeches(files.read_text(path), path).items()
    }
    code = {
        word: i
        for i, (word, _) in enumerate(
            Counter(w for said in spoken.values() for w in said).most_common(3000)
        )
    }
    clients = []
    for role in sorted(spoken, key=lambda r: -len(spoken[r]))[:8]:
        said = torch.tensor([code[w] for w in spoken[role] if w in code][:401])
        clients.append(Dataset(said[:-1].view(40, 10), said[1:].view(40, 10), 3000))
    training = LocalSGD(lr=0.5, plan=LocalPlan(batch_size=8, epochs=2))
    for name, target, options in (("one client", "client", {}), ("SecAgg sum of 8", "sum", SUMMED)):
        view = run(
            initialised(lstm, (10,), 3000, seed=0, hidden=32), clients, training, **options
        ).view("server", 0)
        found = set(EmbeddingLeakage(target=target).run(view).tokens.tolist())
        true = set(
            (clients[0].x if target == "client" else torch.cat([c.x for c in clients]))
            .flatten()
            .tolist()
        )
        yield gain(
            f"words of {name}, of a vocabulary of 3,000",
            "shown",
            "precision",
            len(found & true) / max(len(found), 1),
            1.0,
        )
        yield gain(
            f"words of {name}, of a vocabulary of 3,000",
            "shown",
            "recall",
            len(found & true) / len(true),
            1.0,
        )
