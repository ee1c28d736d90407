"""Tables of what a config can name: what privfl brings, what installed packages add by entry
points, and any class by ``module:Class``.

Nothing registers itself. A package says in its metadata what it adds
(``[project.entry-points."privfl.rules"]``), and that is read, once a process, where a table is
asked for a name. Code of a package is imported only when its name is used or listed. A config that
names ``module:Class`` runs that module: read somebody else's config before you run it.
"""

from __future__ import annotations

import difflib
import importlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from privfl.core import ConfigError

T = TypeVar("T")


@cache
def entries(group: str) -> tuple[EntryPoint, ...]:
    """The entry points of a group, in order of their names; read once a process."""
    return tuple(sorted(entry_points(group=group), key=lambda entry: entry.name))


@dataclass(frozen=True, eq=False)
class PluggedTable(Mapping[str, T], Generic[T]):
    """What the config of one seam can name: ``built_in`` names, those of the entry points of
    ``group``, and ``module:Class``.

    ``declares``: what a class of this seam has, so that anything else is refused when it is loaded.

    Raises:
        ConfigError: where a name is looked up: a plug-in that cannot be loaded, that is nothing for
            this seam, or that has the name of another.

    >>> PluggedTable({"one": int}, "privfl.none", ("kind",))["math:sqrt"]
    Traceback (most recent call last):
    privfl.core.errors.ConfigError: 'math:sqrt' declares no kind, and every part here does.
    """

    built_in: Mapping[str, T]
    group: str
    declares: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> T:
        entry = self._entry(name)
        if name in self.built_in:
            return self.built_in[name]
        if entry is not None:
            return self._fitting(f"plug-in {_said(entry)}", _load(entry))
        if ":" in name:
            return self._fitting(f"'{name}'", _imported(name))
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        known = isinstance(name, str) and (":" in name or self._entry(name) is not None)
        return name in self.built_in or known

    def __iter__(self) -> Iterator[str]:
        yield from self.built_in
        yield from (entry.name for entry in entries(self.group) if self._entry(entry.name))

    def __len__(self) -> int:
        return len(self.built_in) + len(entries(self.group))

    def holds(self, name: str) -> bool:
        """Whether a name stands for something that this seam can use; a class of another seam is
        none.

        Raises:
            ConfigError: the name is a plug-in's that cannot be loaded.
        """
        if name in self.built_in or self._entry(name) is not None:
            return True
        return ":" in name and not self._missing(_imported(name))

    def usable(self) -> Iterator[str]:
        """All names but those of plug-ins that cannot be used."""
        for name in self:
            if not self.broken(name):
                yield name

    def broken(self, name: str) -> str:
        """Why a name cannot be used; empty where it can."""
        try:
            self[name]
        except ConfigError as error:
            return str(error)
        return ""

    def origin(self, name: str) -> str:
        """Where a name comes from: privfl, or a package and its version, or the module."""
        entry = None if name in self.built_in else self._entry(name)
        if entry is not None:
            dist = entry.dist
            return entry.value if dist is None else f"{dist.name} {dist.version}"
        return "privfl" if name in self.built_in else name.partition(":")[0]

    def _entry(self, name: str) -> EntryPoint | None:
        """The entry point of that name, which is nobody else's."""
        found = [entry for entry in entries(self.group) if entry.name == name]
        if found and name in self.built_in:
            raise ConfigError(
                f"plug-in {_said(found[0])} has the name of a part of privfl: rename it in its"
                " package, or uninstall that."
            )
        if len(found) > 1:
            raise ConfigError(
                f"two plug-ins are called '{name}': {' and '.join(map(_said, found))}: uninstall"
                " one of them."
            )
        return found[0] if found else None

    def _missing(self, maker: Any) -> list[str]:
        there = set(dir(maker))
        return [name for name in self.declares if name not in there]

    def _fitting(self, said: str, maker: Any) -> T:
        if not callable(maker):
            raise ConfigError(
                f"{said} is no class or function: it is of type {type(maker).__name__}."
            )
        missing = self._missing(maker)
        if missing:
            raise ConfigError(f"{said} declares no {', '.join(missing)}, and every part here does.")
        fitting: T = maker
        return fitting


@dataclass(frozen=True, eq=False)
class JoinedTable(Mapping[str, Any]):
    """Several tables as one, for people who look for a name."""

    tables: tuple[Mapping[str, Any], ...]

    def __getitem__(self, name: str) -> Any:
        return self.table_of(name)[name]

    def __iter__(self) -> Iterator[str]:
        names = Counter(name for table in self.tables for name in table)
        yield from names

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def table_of(self, name: str) -> Mapping[str, Any]:
        """The table that holds a name."""
        for table in self.tables:
            if name in table:
                return table
        raise KeyError(name)


def _said(entry: EntryPoint) -> str:
    package = "" if entry.dist is None else f" of package {entry.dist.name} {entry.dist.version}"
    return f"'{entry.name}' ({entry.group}: {entry.value}{package})"


def _load(entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except Exception as error:
        raise ConfigError(
            f"plug-in {_said(entry)} cannot be loaded: {type(error).__name__}: {error}. Mend or"
            " uninstall its package."
        ) from error


def _imported(name: str) -> Any:
    where, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(where)
    except Exception as error:
        raise ConfigError(
            f"'{name}': the module '{where}' cannot be imported: {type(error).__name__}: {error}."
            " Install it, or put its folder on PYTHONPATH."
        ) from error
    said = f"the module '{where}'"
    for step in path.split("."):
        if step not in vars(found):
            raise ConfigError(f"'{name}': {said} has no '{step}'{_near(step, vars(found))}")
        found, said = vars(found)[step], f"'{step}'"
    return found


def _near(name: str, there: Iterable[str]) -> str:
    """The end of a sentence on a name that is not there: with the nearest public one."""
    public = [known for known in there if not known.startswith("_")]
    near = difflib.get_close_matches(name, public, n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else "."
