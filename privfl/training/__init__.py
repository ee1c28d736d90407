"""Local training: SGD and its relatives, one client at a time, several at once, or in worker
processes.
"""

from privfl.core import cross_entropy
from privfl.training.adversarial import FGSM, PGD, Ball, FreeAdversarial
from privfl.training.buffers import WithStatistics, adapt, plain
from privfl.training.choose import executors, several
from privfl.training.evaluation import Evaluation, evaluate
from privfl.training.executor import Executor, Sequential, TrainsInTurn
from privfl.training.fednova import FedNova
from privfl.training.gradient import PlainGradient
from privfl.training.method import Method, State
from privfl.training.processes import Processes
from privfl.training.ray_actors import RayActors
from privfl.training.robustness import Climb, at_radius, robust_accuracy, searched_accuracy
from privfl.training.scaffold import Scaffold
from privfl.training.server import (
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedYogi,
    ServerHalf,
    ServerOptimizer,
)
from privfl.training.sgd import FedProx, FedSGD, LocalSGD, LocalTrainer
from privfl.training.soteria import Soteria
from privfl.training.stacked import Stacked
from privfl.training.task import Failed, Result, Samples, Task, Trained, Workload
from privfl.training.vmapped import Vmapped

__all__ = [
    "FGSM",
    "PGD",
    "Ball",
    "Climb",
    "Evaluation",
    "Executor",
    "Failed",
    "FedAdagrad",
    "FedAdam",
    "FedAvg",
    "FedAvgM",
    "FedNova",
    "FedProx",
    "FedSGD",
    "FedYogi",
    "FreeAdversarial",
    "LocalSGD",
    "LocalTrainer",
    "Method",
    "PlainGradient",
    "Processes",
    "RayActors",
    "Result",
    "Samples",
    "Scaffold",
    "Sequential",
    "ServerHalf",
    "ServerOptimizer",
    "Soteria",
    "Stacked",
    "State",
    "Task",
    "Trained",
    "TrainsInTurn",
    "Vmapped",
    "WithStatistics",
    "Workload",
    "adapt",
    "at_radius",
    "cross_entropy",
    "evaluate",
    "executors",
    "plain",
    "robust_accuracy",
    "searched_accuracy",
    "several",
]
