"""What a run can give its parts beside the keys of its config; each part declares what it needs."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TypeAlias


class Oracle(Enum):
    """What a run can give a part beside the keys of its config: from clean data at the server, from
    its clients, or from its model.

    >>> Oracle.ROOT.value
    'root'
    """

    ROOT = "root"
    """(context) -> the update [d] that a client with the server's clean data would send."""
    LOSS = "loss"
    """(parameters [d], context) -> the loss on the server's clean data."""
    ACCURACY = "accuracy"
    """(parameters [d], context) -> the accuracy on the server's clean data."""
    LOSSES = "losses"
    """(rows, context) -> how much each row lowers the loss on its own client's data [n]."""
    VOTES = "votes"
    """(rows, context) -> whether row j does not worsen the loss at the client of row i [n, n]."""
    ERRORS = "errors"
    """(models, context) -> error rates by class at some clients [clients, models, classes]."""
    ACTIVATIONS = "activations"
    """(parameters [d], context) -> mean activations of the last hidden layer at some clients."""
    FEATURES = "features"
    """(parameters [d], context) -> what the last layer reads of each of the server's clean samples
    [s, h]."""
    UNITS = "units"
    """For each unit of the last hidden layer the positions [d] of its parameters."""
    LAST_HIDDEN = "last hidden layer"
    """The positions [d] of all parameters of the last hidden layer."""
    LAYER_SIZES = "layer sizes"
    """How many parameters each layer has, in the order of the flat vector."""

    @property
    def asks_clients(self) -> bool:
        """Whether clients answer, from their own data: such an answer leaves without noise."""
        return self in (Oracle.LOSSES, Oracle.VOTES, Oracle.ERRORS, Oracle.ACTIVATIONS)


Needs: TypeAlias = Mapping[str, Oracle]
"""Which arguments of a constructor the run fills, and with what."""
