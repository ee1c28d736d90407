"""Against whom a run claims privacy, and what that adversary learns beside what is released."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from privfl.core import require
from privfl.core.errors import ConfigError, unknown

Against: TypeAlias = Literal["model_recipients", "server", "server_and_clients"]
"""Who looks: whoever reads the released models; the server, which follows the protocol and keeps
all that it is sent; the server with clients that tell it all they know.
"""
Coins: TypeAlias = Literal["secret", "public"]
"""Where cohorts and private batches are drawn from: the operating system, which nobody can repeat,
or a seed, with which anybody draws them again.
"""


@dataclass(frozen=True, slots=True)
class Threat:
    """The adversary of a claim.

    ``adversary`` None: the strongest against whom the noise can protect, the server for noise at
    clients or in shares, whoever reads the released models for noise that the server adds itself.
    ``colluders`` clients tell the adversary what they know: their own shares of distributed noise,
    and who takes part in a round with them, as a round's plan says. ``sees_cohort`` None: the
    server does, which draws it, and clients that take part.

    Sampling makes a release cheaper only against those who do not learn who was drawn
    (amplification by sampling: Kasiviswanathan et al. 2011; Balle, Barthe, Gaboardi 2018). With
    ``sampling="secret"`` cohorts and the batches of DP-SGD are drawn from the operating system;
    with ``"public"`` they follow from the run's seed, and an amplified figure is that of the same
    run with secret coins.

    Raises:
        ConfigError: an unknown adversary or sampling, fewer than 0 colluders, colluders beside a
            server that is alone, clients that collude and are none, a server that does not see whom
            it draws, or clients that do not see with whom they take part.

    >>> Threat("server_and_clients", colluders=2).learns_cohorts
    True
    """

    adversary: Against | None = None
    colluders: int = 0
    sees_cohort: bool | None = None
    sampling: Coins = "public"

    def __post_init__(self) -> None:
        if self.adversary is not None and self.adversary not in get_args(Against):
            raise ConfigError(unknown("threat.adversary", self.adversary, get_args(Against)))
        if self.sampling not in get_args(Coins):
            raise ConfigError(unknown("threat.sampling", self.sampling, get_args(Coins)))
        require.at_least(0, **{"threat.colluders": self.colluders})
        if self.adversary == "server" and self.colluders:
            raise ConfigError(
                f"threat.adversary is the server alone, and threat.colluders is {self.colluders}:"
                " set adversary to server_and_clients."
            )
        if self.adversary == "server_and_clients" and not self.colluders:
            raise ConfigError(
                "threat.adversary is server_and_clients, and threat.colluders is 0: say how many"
                " clients collude, or set adversary to server."
            )
        if self.adversary not in (None, "model_recipients") and self.sees_cohort is False:
            raise ConfigError(
                "threat.sees_cohort is false, and the server draws the cohort itself: nothing is"
                " amplified against it. Leave sees_cohort out, or set adversary to"
                " model_recipients."
            )
        if self.colluders and self.sees_cohort is False:
            raise ConfigError(
                f"threat.sees_cohort is false, and threat.colluders is {self.colluders}: clients"
                " that take part are told who does. Leave sees_cohort out, or colluders."
            )

    @property
    def learns_cohorts(self) -> bool:
        """Whether the adversary is said to see who was drawn, or has clients that are told."""
        return bool(self.sees_cohort) or self.colluders > 0
