"""Checks that parts of privfl, and parts of yours, are what they say: they run the part itself.

``check_rule(rule)`` and its likes raise a `ConformanceError` at the first property that does not
hold; ``rule_checks(rule)`` and its likes yield the single checks, for a test runner:

    @pytest.mark.parametrize("check", rule_checks(MyRule), ids=str)
    def test_my_rule_conforms(check):
        check()
"""

from privfl.testing.attacks import attack_checks, check_attack
from privfl.testing.channels import channel_checks, check_channel
from privfl.testing.check import Check, ConformanceError
from privfl.testing.datasets import check_dataset, dataset_checks
from privfl.testing.defences import check_defence, defence_checks
from privfl.testing.guarantees import (
    check_guarantee,
    what_it_does,
    what_noise_is_left,
    who_reads,
)
from privfl.testing.inference import check_inference_attack, inference_attack_checks
from privfl.testing.mechanisms import check_mechanism, mechanism_checks
from privfl.testing.models import check_model, model_checks
from privfl.testing.played_rounds import Contributions, PlayedRound, contributions
from privfl.testing.rules import check_rule, rule_checks
from privfl.testing.told_lies import LiesTold, ToldLie
from privfl.testing.votes import check_vote, vote_checks

__all__ = [
    "Check",
    "ConformanceError",
    "Contributions",
    "LiesTold",
    "PlayedRound",
    "ToldLie",
    "attack_checks",
    "channel_checks",
    "check_attack",
    "check_channel",
    "check_dataset",
    "check_defence",
    "check_guarantee",
    "check_inference_attack",
    "check_mechanism",
    "check_model",
    "check_rule",
    "check_vote",
    "contributions",
    "dataset_checks",
    "defence_checks",
    "inference_attack_checks",
    "mechanism_checks",
    "model_checks",
    "rule_checks",
    "vote_checks",
    "what_it_does",
    "what_noise_is_left",
    "who_reads",
]
