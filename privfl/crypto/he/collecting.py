"""What every server of homomorphic sums does with its clients' mail: it takes one message of each,
names who is out, and goes on with enough of them.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping

from privfl.core import Abort, Buffer, ClientId, Mail, PartyId, RoundPlan, client_of
from privfl.crypto.he.wire import Refused


def collect(
    mail: Mail,
    plan: RoundPlan,
    taken: Container[ClientId],
    excluded: dict[PartyId, str],
    take: Callable[[ClientId, Buffer], None],
    late: str = "",
) -> None:
    """Take what clients sent whose messages are not among those ``taken``. Whom ``take`` refuses is
    excluded by name, and who is not in the cohort; and everybody, where ``late`` says why.
    """
    for sender, body in mail.items():
        client = client_of(sender)
        if client is None or client in taken:
            continue
        try:
            if client not in plan.cohort:
                raise Refused("not in the cohort")
            if late:
                raise Refused(late)
            take(client, body)
        except Refused as refused:
            excluded.setdefault(sender, str(refused))


def enough(
    count: int, did: str, least: int, plan: RoundPlan, excluded: Mapping[PartyId, str]
) -> None:
    """End a round in which too few clients ``did`` what they were to do.

    Raises:
        Abort: fewer than ``least``.
    """
    if count < least:
        why = "".join(f"; {who}: {reason}" for who, reason in excluded.items())
        raise Abort(
            f"{count} of {plan.n} clients {did}, and sums of fewer than {least} stay closed{why}"
        )
