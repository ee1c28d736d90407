"""The model that a round's clients started from, as the vector that rules read and plans name."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import nn

from privfl.core import BadUpdate, Channel, ConfigError, Vector
from privfl.core.flat import refuse_running_statistics
from privfl.wrapper.tree import UpdateLayout

V = TypeVar("V")


def parameters_of(model: V | nn.Module, layout: UpdateLayout[V]) -> Vector:
    """The parameters [d], float32, of a module or of a model in the shape of updates.

    Of a module are taken the entries of its state_dict that updates have by name, else all its
    trainable parameters, in their order.

    Raises:
        UnsupportedModel: a module with running statistics, which updates leave behind.
        BadUpdate: it does not have the parameters that updates have.
    """
    if not isinstance(model, nn.Module):
        return layout.read(model, "model")
    refuse_running_statistics(model)
    held = dict(model.named_parameters())
    names = layout.keys
    if names is None:
        chosen = [held[name] for name in held if held[name].requires_grad]
    else:
        for name in names:
            if name not in held:
                raise BadUpdate(
                    f"model: it has no parameter '{name}', and updates have one: send what"
                    " named_parameters() gives, and no buffers."
                )
        chosen = [held[str(name)] for name in names]
    whole = [one.detach().cpu().to(torch.float32).reshape(-1) for one in chosen]
    vector = torch.cat(whole) if whole else torch.empty(0)
    if len(vector) != layout.d:
        raise BadUpdate(
            f"model: it has {len(vector):,} parameters where updates have {layout.d:,} values."
        )
    return vector


def require_model(channel: Channel[Any]) -> None:
    """Refuse to run a rule that reads the model without one.

    Raises:
        ConfigError: the channel's own rule does.
    """
    hosted = channel.able.hosts
    if channel.able.informed and hosted is not None and hosted.needs:
        raise ConfigError(
            f"{type(hosted).__name__} inside {type(channel).__name__} reads the model that clients"
            " started from: give model=..., a module or parameters in the shape of updates."
        )
