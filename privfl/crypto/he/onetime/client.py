"""A client's part: it draws a one-time key, encrypts, deals the key to the decryptors, and speaks
once.
"""

from __future__ import annotations

from privfl.core import Abort, Bounded, KeepsSecrets, KnownKeys, Mail, PartyKeys, RoundPlan
from privfl.crypto.he.onetime.dealing import Dealing
from privfl.crypto.he.onetime.message import BOXES, dealt_message, dealt_parts, dealt_size
from privfl.crypto.he.onetime.pad import ShortStream, encrypted
from privfl.crypto.he.onetime.parameters import OneTimeSettings
from privfl.crypto.he.onetime.set_up import Occasions
from privfl.crypto.he.wire import RoomInFrame
from privfl.crypto.primitives.sealed_box import OVERHEAD


class OneTimeClientParty(KeepsSecrets):
    """A client in one round. Its key exists while `step` runs, and serves one contribution."""

    def __init__(
        self,
        settings: OneTimeSettings,
        identity: PartyKeys,
        directory: KnownKeys,
        occasions: Occasions,
        plan: RoundPlan,
        update: Bounded,
    ) -> None:
        self.settings, self.identity, self.directory = settings, identity, directory
        self.occasions, self.plan = occasions, plan
        self.update: Bounded | None = update

    def step(self, mail: Mail) -> Mail:
        """The one message; then silence.

        Raises:
            Abort: too few decryptors were heard in the set-up.
        """
        if self.update is None:
            return {}
        update, self.update = self.update, None
        settings, who = self.settings, self.identity.who
        there = sum(map(bool, self.occasions.heard.values()))
        if there < settings.threshold:
            raise Abort(
                f"{who} deals to nobody: it heard {there} of {settings.holders} decryptors in the"
                f" set-up, and {settings.threshold} are needed to open a sum"
            )
        topic, layout = settings.topic(self.plan), settings.layout(self.plan)
        numbers = settings.scheme.encode(update, self.plan)
        short = ShortStream(settings.secrets).take(1)[0]
        body = encrypted(numbers, short, settings.secrets, topic, layout)
        dealt = Dealing(short, settings.threshold)
        heard, rest = self.occasions.heard, dealt_size(settings.holders, settings.threshold)
        frame = RoomInFrame(BOXES + settings.holders, layout.size + OVERHEAD, rest)
        parts = dealt_parts(dealt, body, topic, who, heard, self.directory, frame.first)
        return {"server": dealt_message(self.identity, topic, parts).framed(frame)}
