"""The page's table of what a relay reads, computed from the envelopes that it carries."""

import pytest
import torch

from privfl.core import Rows, Total
from privfl.federation import Federation
from privfl.flower.mail import unpacked_vector
from tests.network.relays import label, read_by_relay

READS = {
    "plain": Rows,
    "secagg": Total,
    "additive_sharing": Total,
    "chain": None,
    "two_server": None,
    "paillier": None,
    "bfv": None,
    "ckks": None,
    "mp_rlwe": None,
    "one_time_rlwe": None,
}
"""Of the letters to the server of a round, by `Channel.decode` without anybody's member."""

SETTINGS = {"secagg": {"mode": "active"}, "paillier": {"key_bits": 512, "insecure_for_tests": True}}


def carried(federation):
    """A run, and the envelopes of each exchange."""
    exchanges, wire = [], federation._carrier.wire
    send = wire.send

    def keeps(who, back, raw):
        exchanges[-1].append(raw)
        return raw

    def sends(envelopes, seconds):
        exchanges.append([])
        send(envelopes, seconds)

    wire.tap, wire.send = keeps, sends
    return federation.run(), exchanges


def models_in(exchanges):
    """The models that are in the orders, in the clear."""
    orders = [one for exchange in exchanges for one in map(label, exchange) if one.kind == "order"]
    kinds = [(one.head.get("vectors", {}).get("model"), one.bodies.get("model")) for one in orders]
    return [unpacked_vector(kind, body) for kind, body in kinds if kind]


@pytest.mark.parametrize("channel", READS)
def test_a_relay_reads_of_a_round_what_the_page_says(channel, make, base):
    config = {**base, "rounds": 1, "channel": {"name": channel, **SETTINGS.get(channel, {})}}
    federation = make(3).federation(config)
    run, exchanges = carried(federation)
    mail, _ = read_by_relay(exchanges)
    assert mail["server"]
    seen, due = federation._carrier.channel.decode(mail, {}), READS[channel]
    if due is None:
        assert seen is None
        return
    change = run.parameters - models_in(exchanges)[0]
    assert isinstance(seen, due)
    mean = seen.values.mean(0) if isinstance(seen, Rows) else seen.value / 3
    torch.testing.assert_close(mean, change, atol=1e-4, rtol=0)


def test_over_every_channel_it_reads_the_model_of_each_round(make, base):
    config = {**base, "rounds": 2, "channel": "bfv"}
    _, exchanges = carried(make(3).federation(config))
    models = models_in(exchanges)
    first = Federation.from_config({**config, "rounds": 1}).run()
    assert torch.equal(models[-1], first.parameters)
