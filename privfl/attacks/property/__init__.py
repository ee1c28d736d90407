"""Property inference: facts about a client's samples that nobody meant to train on."""

from privfl.attacks.property.black_box import BlackBoxProperty
from privfl.attacks.property.client_gan import ClientGAN
from privfl.attacks.property.multi_task import MultiTask
from privfl.attacks.property.passive import PropertyInference
from privfl.attacks.property.selection import SelectionProfile
from privfl.attacks.property.server_gan import ServerGAN

__all__ = [
    "BlackBoxProperty",
    "ClientGAN",
    "MultiTask",
    "PropertyInference",
    "SelectionProfile",
    "ServerGAN",
]
