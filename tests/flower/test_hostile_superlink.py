"""The attacks of a relay, through a SuperLink that plays them on real nodes."""

import pytest
import torch

from privfl.core import Faults, Rows, Total
from privfl.federation import Federation
from privfl.flower.local import RunLost
from tests.flower.hostile_federation import BASE, CHANNEL
from tests.network.relays import read_by_relay

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
HELPER = {"two_server": "server/1", "one_time_rlwe": "decryptor/0", "bfv": "decryptor/0"}
OTHERS = ["client/1", "client/2"]


def impostor(hostile, folder, names, *, servers=False):
    told = {"relay": "Impostor", "names": names, "server": str(hostile.home)}
    told["folder"] = str(folder / "own")
    return told | ({"servers": str(hostile.home)} if servers else {})


def blames(told):
    return [what for what in told["incidents"] if "(blames" in what or "was excluded" in what]


@pytest.mark.parametrize("channel", HELPER)
def test_the_relays_own_helper_is_named_and_the_run_ends(channel, hostile, tmp_path):
    config = {**BASE, "channel": CHANNEL[channel]}
    plan = impostor(hostile, tmp_path, [HELPER[channel]])
    with pytest.raises(RunLost, match=f"an answer in the name of {HELPER[channel]}: .* not signed"):
        hostile.play(config, tmp_path / "run", **plan)


SPEAKS = [
    ("secagg", False),  # where clients write to the server alone
    *(
        (channel, servers)
        for channel in ("two_server", "one_time_rlwe")
        for servers in (False, True)
    ),
]


@pytest.mark.parametrize(("channel", "servers"), SPEAKS)
def test_a_relay_that_speaks_for_all_but_one_opens_nothing(channel, servers, hostile, tmp_path):
    config = {**BASE, "channel": CHANNEL[channel]}
    plan = impostor(hostile, tmp_path, OTHERS, servers=servers)
    (told,), _ = hostile.play(config, tmp_path / "run", **plan)
    assert told["survivors"] == 0
    assert not blames(told)
    kind = "a letter" if servers else "an answer"
    for who in OTHERS:
        assert any(f"{kind} in the name of {who}: " in what for what in told["incidents"])


TAMPERED = {
    "secagg, an answer again": ("secagg", {"relay": "Replays", "at": 3, "back": True}),
    "secagg, an envelope again": ("secagg", {"relay": "Replays", "at": 2, "back": False}),
    "secagg, an answer late": ("secagg", {"relay": "Delays", "at": 2}),
    "secagg, an answer lost": ("secagg", {"relay": "Drops", "at": 2, "back": True}),
    "two_server, an answer lost": ("two_server", {"relay": "Drops", "at": 1, "back": True}),
    "two_server, an envelope again": ("two_server", {"relay": "Replays", "at": 1, "back": False}),
    "one_time_rlwe, an answer lost": ("one_time_rlwe", {"relay": "Drops", "at": 2, "back": True}),
    "one_time_rlwe, an answer late": ("one_time_rlwe", {"relay": "Delays", "at": 1}),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_what_the_relay_loses_delays_or_repeats_is_a_drop_out(name, hostile, tmp_path):
    channel, plan = TAMPERED[name]
    config = {**BASE, "channel": CHANNEL[channel]}
    (told,), model = hostile.play(config, tmp_path / "run", who="client/1", **plan)
    assert not blames(told)
    assert told["survivors"] == 2
    alone = Federation.from_config(config).run(faults=Faults(silent_from={"client/1": 0}))
    assert torch.equal(model, alone.parameters)


@pytest.mark.parametrize("channel", ["secagg", "two_server", "one_time_rlwe"])
def test_swapped_recipients_are_refused(channel, hostile, tmp_path):
    config = {**BASE, "channel": CHANNEL[channel]}
    plan = {"relay": "Swaps", "one": "client/0", "other": "client/1", "at": 1}
    (told,), _ = hostile.play(config, tmp_path / "run", **plan)
    assert told["survivors"] < 3
    assert not blames(told)
    named = [what for what in told["incidents"] if "an answer in the name of client/" in what]
    assert named


@pytest.mark.parametrize(
    ("channel", "reads"),
    [("plain", Rows), ("secagg", Total), ("two_server", None), ("bfv", None)],
)
def test_what_passed_the_relay_reads_as_the_page_says(channel, reads, hostile, tmp_path):
    config, kept = {**BASE, "channel": CHANNEL[channel]}, tmp_path / "kept"
    kept.mkdir()
    (told,), _ = hostile.play(config, tmp_path / "run", relay="", record=str(kept))
    assert told["survivors"] == 3
    exchanges, answered = [[]], False
    for path in sorted(kept.iterdir()):
        back = " from " in path.name
        if answered and not back:
            exchanges.append([])
        answered = back
        exchanges[-1].append(path.read_bytes())
    mail, _ = read_by_relay(exchanges)
    seen = Federation.from_config(config).scenario.channel.decode(mail, {})
    assert seen is None if reads is None else isinstance(seen, reads)
