"""The cases of `benchmarks.privacy_attacks`."""

from __future__ import annotations

from benchmarks.harness import Case, main
from benchmarks.privacy_attacks.black_box import black_box
from benchmarks.privacy_attacks.federated import federated
from benchmarks.privacy_attacks.gans import client_gan, client_gan_noise, server_gan
from benchmarks.privacy_attacks.honest import honest
from benchmarks.privacy_attacks.membership import stream, writers
from benchmarks.privacy_attacks.meter import meter
from benchmarks.privacy_attacks.noise import noise
from benchmarks.privacy_attacks.nulls import nulls
from benchmarks.privacy_attacks.over_rounds import over_rounds
from benchmarks.privacy_attacks.presence import presence
from benchmarks.privacy_attacks.reconstruction import (
    adaptive,
    closed_form,
    labels,
    peers,
    reconstruction,
    spear,
)
from benchmarks.privacy_attacks.shadows import shadows
from benchmarks.privacy_attacks.statistics import INVERTED, counted
from benchmarks.privacy_attacks.tables import tables
from benchmarks.privacy_attacks.text import dager, lamp
from benchmarks.privacy_attacks.trajectory import trajectory
from benchmarks.privacy_attacks.tuned import tuned, unseen

CASES: dict[str, Case] = {
    "closed_form": closed_form,
    "spear": spear,
    "reconstruction": reconstruction,
    "peers": peers,
    "labels": labels,
    "adaptive": adaptive,
    "stream": stream,
    "trajectory": trajectory,
    "black_box": black_box,
    "over_rounds": over_rounds,
    "presence": presence,
    "writers": writers,
    "shadows": shadows,
    "meter": meter,
    "honest": honest,
    "nulls": nulls,
    "tuned": tuned,
    "unseen": unseen,
    "federated": federated,
    "noise": noise,
    **INVERTED,
    "batch_norm_labels": counted,
    "dager": dager,
    "lamp": lamp,
    "tables": tables,
    "client_gan": client_gan,
    "client_gan_noise": client_gan_noise,
    "server_gan": server_gan,
}

if __name__ == "__main__":
    main("privacy_attacks", CASES)
