"""What encrypted similarity promises, as it is set: who reads vectors, and what lies can do."""

from __future__ import annotations

from privfl.core import Coalition, Guarantee, Liars, Lie
from privfl.crypto import lies
from privfl.hybrid.encrypted_cosine.keys import KEY_HOLDER
from privfl.hybrid.encrypted_cosine.lies import answers_one_wrong, moves_the_sum, weighs_one
from privfl.hybrid.encrypted_cosine.parameters import CosineParameters


def cosine_guarantee(setting: CosineParameters) -> Guarantee[Liars]:
    """The guarantee of a channel with these numbers."""
    holder = Coalition.of(KEY_HOLDER)
    exact = "exact" if setting.norms == "exact" else "estimated"
    shown = (
        f"to server every client's cosine, {exact} norm, {setting.projections} random projections"
        " and weight" + (", and the sum of its entries" if setting.similarity == "pearson" else "")
    )
    return Guarantee(
        reads=(Coalition.of("server", KEY_HOLDER),),
        lies=(
            Lie(
                Coalition.of("server"),
                "read",
                f"weighs one client and hardly any other (key_holder sees no weights, and counts"
                f" {setting.min_clients})",
                weighs_one,
            ),
            lies.publishes_another(),
            Lie(
                holder,
                "choose",
                "answers one random question wrong, unless its answer was known",
                answers_one_wrong,
            ),
            Lie(holder, "abort", "moves the sum, which disagrees with the scores", moves_the_sum),
            lies.falls_silent(KEY_HOLDER, "abort"),
            lies.skips_its_clip("nothing", "only directions count"),
            lies.sends_garbage(),
        ),
        leaks=("who takes part", shown, lies.LAST),
        assumes=(
            "a server and a key holder that follow the protocol",
            "a key set-up in which all parties learn each other's true keys",
            "a key holder that answers a round once",
            lies.MAIL,
        ),
        shows="the aggregate of {count} updates, and {disclosed}",
        settings=lambda n: {
            "norms": setting.norms,
            "similarity": setting.similarity,
            "quorum": f"{setting.min_clients} clients, sums of fewer stay closed",
        },
    )
