"""The games of an audit: each attack against each view, scored by who knows the truth."""

from privfl.audit.games.active import attack_actively
from privfl.audit.games.isolation import isolated
from privfl.audit.games.membership import attack_stream
from privfl.audit.games.notes import AuditNotes, tell
from privfl.audit.games.presence import attack_presence
from privfl.audit.games.property import attack_property
from privfl.audit.games.reconstruction import Truth, attack_probe
from privfl.audit.games.representatives import attack_representatives
from privfl.audit.games.rounds import attack_rounds, doubt_proofs, who_solves
from privfl.audit.games.text import attack_text

__all__ = [
    "AuditNotes",
    "Truth",
    "attack_actively",
    "attack_presence",
    "attack_probe",
    "attack_property",
    "attack_representatives",
    "attack_rounds",
    "attack_stream",
    "attack_text",
    "doubt_proofs",
    "isolated",
    "tell",
    "who_solves",
]
