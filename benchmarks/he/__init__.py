"""Homomorphic aggregation against python-paillier, BatchCrypt's way of packing, NVFlare's and
TenSEAL's tutorial settings.

Times are CPU seconds of one process, ours and the peer's in turn; worker cases and the federated
run are wall time. Lattice cases carry a million values and include serialising and deserialising on
both sides, as a round does.
"""
