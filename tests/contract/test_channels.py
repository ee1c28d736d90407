"""Every channel of the catalogue is held to what `privfl.testing` asks of a channel."""

import pytest

from privfl import catalog
from privfl.testing import channel_checks

CHECKS = [check for kind in catalog.CHANNELS.values() for check in channel_checks(kind)]


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_every_channel_of_the_catalogue_conforms(check):
    check()
