"""Settings that a class names itself, for whoever builds it without knowing it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

Examples: TypeAlias = Mapping[str, Mapping[str, Any]]
"""By a short name, keyword arguments of a constructor, without those that a run fills (`Needs`).

A class declares them as ``examples: ClassVar[Examples]``, or as a class method of that name, where
its defaults do not build it, or where other settings behave so differently that `privfl.testing`
should look at them too. What the class says of itself must hold of each of them. A value that is a
class stands for an object of it, built from its defaults and from what it needs of a run.
"""
