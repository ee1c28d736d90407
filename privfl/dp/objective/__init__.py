"""Objective perturbation: logistic regression with noise in what it minimises."""

from privfl.dp.objective.logistic import in_the_ball
from privfl.dp.objective.perturbation import Fitted, GaussianObjective, PureObjective

__all__ = ["Fitted", "GaussianObjective", "PureObjective", "in_the_ball"]
