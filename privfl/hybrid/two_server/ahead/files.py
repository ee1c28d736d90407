"""Where the servers find what the dealer dealt ahead, and how the dealer makes it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from privfl.core import CannotWrite, ConfigError, KeepsSecrets, PartyId, PartyKeys
from privfl.crypto.mpc.dealt_file import DealtFile, DealtFileWriter, fresh_id
from privfl.crypto.primitives.identity import refuse_signing
from privfl.hybrid.two_server.ahead.dealing import Part, binding, deal, sizes
from privfl.hybrid.two_server.parameters import SERVERS, TwoServerParameters
from privfl.hybrid.two_server.recipe import Recipe

FILES: Mapping[PartyId, str] = {"server": "server.dealing", "server/1": "server-1.dealing"}
"""The file of each server, in one folder where one machine plays both."""


@dataclass(frozen=True, slots=True)
class DealtAhead:
    """A folder with dealings, and the public Ed25519 key [32 bytes] of the dealer that signed them.
    A server needs its own file alone, and must not have the other's.
    """

    folder: Path
    dealer: bytes

    def part(self, who: PartyId, now: TwoServerParameters, recipe: Recipe, least: int) -> Part:
        """A server's part of the next dealing, which is gone from its file when this returns; of
        number ``least``, if that is near.

        Raises:
            ConfigError: as `DealtFile.take`.
            UsedUp: no dealing is left.
            CannotWrite: the operating system refuses.
        """
        stock = DealtFile(self.folder / FILES[who], who, self.dealer)
        taken = stock.take(binding(now, recipe), least)
        return Part(taken, now, recipe.demand(now, now.plan.n))


@dataclass(repr=False)
class FirstPart(KeepsSecrets):
    """What the first server takes once the second has said which one it took: so that a crash
    between the two loses no round. Whoever plays the round again, from what the server remembers of
    it, is handed the same.
    """

    files: DealtAhead
    now: TwoServerParameters
    recipe: Recipe
    part: Part | None = None

    def after(self, number: int) -> Part:
        """Its part of the dealing of this number; of a later one where it took that already, of an
        earlier one where this is far off.

        Raises:
            ConfigError: as `DealtFile.take`.
            UsedUp: no dealing is left.
            CannotWrite: the operating system refuses.
        """
        if self.part is None:
            self.part = self.files.part("server", self.now, self.recipe, number)
        return self.part


def where_dealt(folder: str, dealer: str) -> DealtAhead | None:
    """The folder of a config and the dealer's key in hex; None where there are neither.

    Raises:
        ConfigError: one of them, or a key that is none.

    >>> where_dealt("", "") is None
    True
    """
    if not folder:
        if dealer:
            raise ConfigError(
                "dealer_key says who signed what was dealt ahead, and nothing was: set"
                " preprocessing to its folder, or leave both out."
            )
        return None
    try:
        key = bytes.fromhex(dealer)
        refuse_signing(key)
    except ValueError as error:
        raise ConfigError(
            "preprocessing needs dealer_key, the Ed25519 key in hex that 'privfl deal' prints, and"
            f" it is '{dealer}' ({error})"
        ) from None
    return DealtAhead(Path(folder), key)


def write_dealings(
    now: TwoServerParameters, recipe: Recipe, folder: Path, count: int, dealer: PartyKeys
) -> None:
    """What a dealer makes ahead: ``count`` dealings, a file for each server, of this round's
    parameters.

    Raises:
        ConfigError: such a file exists, or there would be no dealing in it.
        CannotWrite: the operating system refuses.
    """
    if count < 1:
        raise ConfigError(f"a dealing for {count} rounds is none: deal for 1 at least.")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWrite(
            f"cannot make '{folder}': {error.strerror or os.fspath(folder)}."
        ) from error
    of, bound = fresh_id(), binding(now, recipe)
    writers: list[DealtFileWriter] = []
    try:
        for who, size in zip(SERVERS, sizes(now, recipe), strict=True):
            writers.append(DealtFileWriter(folder / FILES[who], who, of, bound, count, size))
        for _ in range(count):
            for writer, record in zip(writers, deal(now, recipe), strict=True):
                writer.add(record)
        for writer in writers:
            writer.close(dealer)
    except BaseException:
        for writer in writers:
            writer.drop()
        raise
