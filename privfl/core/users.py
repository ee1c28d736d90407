"""Who is one user, and how much of a user takes part."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from privfl.core import require
from privfl.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class UserBounds:
    """Who is one user, and how much of one user's data a run trains on.

    ``ids`` names the attribute of the data by which users are told apart. Of each user at most
    ``max_records_per_user`` samples take part (None: however many there are), at at most
    ``max_clients_per_user`` clients; what is beyond is dropped, by a choice that looks at that
    user's own samples and clients only. ``one_user_per_client``: no client holds samples of two
    users, as where clients are people's devices.

    Raises:
        ConfigError: no name of an attribute, or a number under 1.

    >>> UserBounds("writer", max_records_per_user=20).words
    "by 'writer', at most 20 samples and 1 client each, what is beyond is dropped"
    """

    ids: str
    max_records_per_user: int | None = None
    max_clients_per_user: int = 1
    one_user_per_client: bool = False

    def __post_init__(self) -> None:
        if not self.ids:
            raise ConfigError(
                "users.ids is empty: name the attribute of the data that says whose a sample is, as"
                " in {ids: writer}."
            )
        require.at_least(
            1,
            **{
                "users.max_records_per_user": self.max_records_per_user or 1,
                "users.max_clients_per_user": self.max_clients_per_user,
            },
        )

    def told_apart(self, ids: Tensor) -> Tensor:
        """Whose each sample is, if these can be users' ids [n]: whole numbers, of which each is
        like itself. A missing id that is NaN is like no other, so that everybody without one would
        be as many users as samples.

        Raises:
            ConfigError: they cannot.
        """
        if ids.dim() != 1 or ids.is_floating_point() or ids.is_complex():
            raise ConfigError(
                f"users.ids is '{self.ids}', whose values are {ids.dtype} of shape"
                f" {tuple(ids.shape)}, and users are told apart by one whole number a sample:"
                " number them, and give those without an id one number, or leave them out."
            )
        return ids

    @property
    def words(self) -> str:
        """The bounds, for statements."""
        clients = "client" if self.max_clients_per_user == 1 else "clients"
        samples = (
            "" if self.max_records_per_user is None else f"{self.max_records_per_user} samples and "
        )
        return (
            f"by '{self.ids}', at most {samples}{self.max_clients_per_user} {clients} each,"
            " what is beyond is dropped"
        )
