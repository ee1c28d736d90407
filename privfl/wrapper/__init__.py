"""Privacy layers for somebody else's training loop: updates in, a mean and a receipt out, no engine
needed.
"""

from privfl.wrapper.layer import PrivateAggregation
from privfl.wrapper.receipt import Receipt

__all__ = ["PrivateAggregation", "Receipt"]
