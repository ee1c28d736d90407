"""A sample of the random search of lying servers; `benchmarks.secagg_fuzz` plays thousands."""

from privfl.audit.protocol.search import lying_server


def test_no_lying_server_with_the_claimed_friends_knows_a_sum_of_fewer_than_are_claimed():
    found = [lying_server(seed) for seed in (3, 34, 37, 42, 52, 326, 380)]
    assert set(found) <= {"a sum", "nothing"}


def test_with_one_friend_more_than_claimed_the_search_finds_smaller_sums():
    """So that the search could find them where they should not be."""
    found = [lying_server(seed, extra=1) for seed in (34, 37, 42, 52)]
    assert any("are claimed" in one for one in found)
