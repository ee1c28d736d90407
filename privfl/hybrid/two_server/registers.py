"""The registers that rules share: what a round begins with, and what it ends with."""

from privfl.crypto.mpc import Known, Shared, SharedBits

TESTS = Shared("tests")
"""Every row's projections on the joint coins [rows, n]."""
INNER = Shared("inner")
"""Inner products: of each row with itself [n], or of all with all [n, n]."""
NORMS = Shared("norms")
"""Squared norms [n]."""
DOTS = Shared("dots")
"""Products with the direction [n]."""
CLAIMED = Shared("claimed weights")
"""Weights that clients brought along [n]."""
ALONG = Shared("along")
"""Products with the direction, of the valid rows."""
MARGIN = Shared("margin")
"""Numbers whose signs decide."""
BIT = SharedBits("bit")
"""Signs that become numbers next."""
CHOSEN = Shared("chosen")
"""0 or 1 for each valid row; opened, whom both servers count."""
WEIGHT = Shared("weight")
"""What each row weighs in the sum [n], where that stays shared."""
COUNT = Shared("count")
"""How many rows count [1]."""
MASS = Shared("mass")
"""The sum of weights [1]."""
SUM = Shared("sum")
"""The weighted sum of rows."""
WEIGHTS = Known("weights")
"""What each row weighs in the sum [n], where both servers know it."""
