"""Libraries that only an extra of privfl brings: imported when something of them is used, or one
sentence on how to have them.
"""

from __future__ import annotations

import importlib
from typing import Any

from privfl.core.errors import ConfigError


class Library:
    """A module that stands in for one which may not be installed: what is read of it is that
    module's, imported by then.

    Raises:
        ConfigError: where something is read of it, or it is required, and it is not installed.

    >>> Library("math", "numbers").floor(2.5)
    2
    >>> Library("no_such.library", "plots").require()
    Traceback (most recent call last):
    privfl.core.errors.ConfigError: no_such is not installed: pip install 'privfl[plots]'.
    """

    def __init__(self, module: str, extra: str) -> None:
        self.module, self.extra = module, extra

    @property
    def missing(self) -> str:
        """That it is not installed, and how to have it; "" where it is."""
        try:
            importlib.import_module(self.module)
        except ImportError:
            name = self.module.partition(".")[0]
            return f"{name} is not installed: pip install 'privfl[{self.extra}]'."
        return ""

    def require(self) -> None:
        """Refuse to go on without it.

        Raises:
            ConfigError: it is not installed.
        """
        if why := self.missing:
            raise ConfigError(why)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # of copies and checks, never of a library's face
            raise AttributeError(name)
        self.require()
        found = vars(importlib.import_module(self.module))[name]
        vars(self)[name] = found
        return found


PICTURES = Library("matplotlib", "plots")
"""What draws the figures of pages."""
