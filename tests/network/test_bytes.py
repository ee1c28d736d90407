"""What envelopes weigh beside the mail that they carry."""

import pytest

from privfl.flower.wire import Patience


@pytest.mark.parametrize("channel", ["plain", {"name": "secagg", "mode": "active"}], ids=str)
def test_envelopes_add_next_to_nothing_to_what_a_protocol_and_the_model_weigh(
    channel, machines, base
):
    """What nodes send, and all that travels, of a round of 100,000 parameters."""
    up, both = [], []

    def tap(who, back, raw):
        both.append(len(raw))
        if back:
            up.append(len(raw))
        return raw

    model = {"name": "mlp", "hidden": [1333]}
    config = {**base, "rounds": 1, "channel": channel, "model": model}
    run = machines.federation(config, tap, patience=Patience(30, 30, 30)).run()
    (told,) = run.history
    assert told.survivors == 3
    assert told.bytes_sent > 3 * 3 * run.parameters.numel()
    assert sum(up) <= 1.01 * told.bytes_sent
    assert sum(both) <= 1.01 * (told.bytes_sent + 3 * 4 * run.parameters.numel())
