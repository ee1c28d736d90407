"""privfl: federated learning with every privacy layer and every attack in one engine."""

from typing import TYPE_CHECKING, Any

from privfl.version import __version__

if TYPE_CHECKING:
    from privfl.federation import Federation
    from privfl.wrapper import PrivateAggregation

__all__ = ["Federation", "PrivateAggregation", "__version__"]


def __getattr__(name: str) -> Any:
    """Load the two faces on first use, so that importing a pillar stays light."""
    if name == "Federation":
        from privfl.federation import Federation

        return Federation
    if name == "PrivateAggregation":
        from privfl.wrapper import PrivateAggregation

        return PrivateAggregation
    raise AttributeError(f"module 'privfl' has no attribute '{name}'")
