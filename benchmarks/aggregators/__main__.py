"""The cases of `benchmarks.aggregators`."""

from __future__ import annotations

from benchmarks.aggregators import mixing, seconds
from benchmarks.aggregators.detectors import detectors
from benchmarks.aggregators.growth import curve
from benchmarks.aggregators.memory import memory
from benchmarks.aggregators.network import network
from benchmarks.harness import main

CASES = {
    "multi_krum": seconds.multi_krum,
    "nnm": mixing.nnm,
    "trimmed_mean": seconds.trimmed_mean,
    "median": seconds.median,
    "meamed": seconds.meamed,
    "centered_clipping": seconds.centered_clipping,
    "geometric_median": seconds.geometric_median,
    "bulyan": seconds.bulyan,
    "mda": seconds.mda,
    "detectors": detectors,
    "network": network,
    "memory": memory,
    "curve": curve,
}

if __name__ == "__main__":
    main("aggregators", CASES)
