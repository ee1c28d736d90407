"""Whoever carries the mail reads what goes to the server and can keep anything from anybody. It
speaks for nobody, opens nothing, and has nobody blamed.
"""

import pytest
import torch

from privfl.core import Faults, RoundFailed
from privfl.federation import Federation
from tests.network.relays import Delays, Drops, Impostor, Replays, Swaps, Twice

CHANNELS = {
    "secagg": {"name": "secagg", "mode": "active"},
    "two_server": "two_server",
    "one_time_rlwe": "one_time_rlwe",
    "bfv": "bfv",
}
HELPERS = {
    "two_server": ("server/1", "dealer"),
    "one_time_rlwe": ("decryptor/0",),
    "bfv": ("decryptor/0",),
}
OTHERS = ("client/1", "client/2")


def played(make, base, channel, made):
    """A round through a relay: its record, and the model; ``made`` gets machines and nodes."""
    machines = make(3)
    config = {**base, "rounds": 1, "channel": CHANNELS[channel]}
    nodes = machines.started(config)
    run = machines.federation(config, made(machines, nodes), nodes).run()
    (record,) = run.history
    assert not [what for what in record.incidents if "(blames" in what and "nobody" not in what]
    return record, run.parameters


def impostor(names, folder, *, servers=False):
    def made(machines, nodes):
        keys = machines.keys["server"] if servers else None
        return Impostor(names, machines.directory, folder, lambda who: nodes[who].own, keys)

    return made


@pytest.mark.parametrize("channel", HELPERS)
def test_a_relays_own_helper_in_the_key_set_up_ends_the_run_and_is_named(
    channel, make, base, tmp_path
):
    names = HELPERS[channel]
    with pytest.raises(RoundFailed, match=f"an answer in the name of {names[0]}.* not signed by"):
        played(make, base, channel, impostor(names, tmp_path))


@pytest.mark.parametrize("channel", ["secagg", "two_server", "one_time_rlwe"])
def test_a_relay_that_speaks_for_all_clients_but_one_is_not_left_with_that_ones_update(
    channel, make, base, tmp_path
):
    record, _ = played(make, base, channel, impostor(OTHERS, tmp_path))
    assert record.survivors == 0
    for who in OTHERS:
        assert any(f"an answer in the name of {who}: " in what for what in record.incidents)


@pytest.mark.parametrize("channel", ["two_server", "one_time_rlwe", "bfv"])
def test_nor_where_it_has_the_servers_keys_and_puts_letters_into_its_envelopes(
    channel, make, base, tmp_path
):
    record, _ = played(make, base, channel, impostor(OTHERS, tmp_path, servers=True))
    assert record.survivors == 0
    for who in OTHERS:
        assert any(f"a letter in the name of {who}: " in what for what in record.incidents)


@pytest.mark.parametrize("servers", [False, True])
def test_letters_of_one_client_in_the_envelope_of_another_open_nothing(servers, make, base):
    def swaps(machines, nodes):
        return Swaps("client/0", "client/1", 1, machines.keys["server"] if servers else None)

    record, _ = played(make, base, "two_server", swaps)
    assert record.survivors < 3
    assert any("refused" in what or "in the name of" in what for what in record.incidents)


TAMPERED = {
    "secagg, an answer again": ("secagg", lambda nodes: Replays("client/1", 3, True)),
    "secagg, an envelope again": ("secagg", lambda nodes: Replays("client/1", 2, False)),
    "secagg, an answer late": ("secagg", lambda nodes: Delays("client/1", 2)),
    "secagg, asked twice": ("secagg", lambda nodes: Twice("client/1", 3, nodes["client/1"].answer)),
    "two_server, a client's answer lost": (
        "two_server",
        lambda nodes: Drops("client/1", 1, True),
    ),
    "two_server, an envelope again": ("two_server", lambda nodes: Replays("client/1", 1, False)),
    "one_time_rlwe, an answer lost": ("one_time_rlwe", lambda nodes: Drops("client/1", 2, True)),
    "one_time_rlwe, a decryptor's set-up lost": (
        "one_time_rlwe",
        lambda nodes: Drops("decryptor/0", 1, False),
    ),
    "one_time_rlwe, asked twice": (
        "one_time_rlwe",
        lambda nodes: Twice("client/1", 2, nodes["client/1"].answer),
    ),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_what_a_relay_loses_delays_or_repeats_is_a_drop_out_at_most(name, make, base):
    channel, made = TAMPERED[name]
    record, model = played(make, base, channel, lambda machines, nodes: made(nodes))
    config = {**base, "rounds": 1, "channel": CHANNELS[channel]}
    faults = Faults(silent_from={"client/1": 0}) if record.survivors == 2 else None
    alone = Federation.from_config(config).run(**({"faults": faults} if faults else {}))
    assert record.survivors in (2, 3)
    assert torch.equal(model, alone.parameters)
    assert not [what for what in record.incidents if "was excluded" in what]


def test_who_is_silent_to_a_lone_decryptor_blames_nobody(make, base):
    """The set-up of the decryptor is lost on its way: that is not its doing."""
    record, _ = played(make, base, "bfv", lambda machines, nodes: Drops("decryptor/0", 1, True))
    assert record.survivors == 0
    assert any("has no key: decryptor/0 is silent, or" in what for what in record.incidents)
