"""Trackers of experiments, for ``Federation.run(trackers=...)`` and ``privfl run --tensorboard``.

A tracker of your own has ``private``, ``begin``, ``round`` and ``end`` (`federation.Tracker`).
"""

from privfl.trackers.mlflow import MLflow
from privfl.trackers.tensorboard import TensorBoard

__all__ = ["MLflow", "TensorBoard"]
