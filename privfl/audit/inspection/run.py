"""The model that a run folder holds, and the clean images that its config leads to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import nn

from privfl.audit.inspection.inspection import Inspection, inspect, refuse_no_images
from privfl.core import ConfigError, DataCorrupt
from privfl.engine import checkpoint, packages_of
from privfl.engine.folder import CHECKPOINT
from privfl.federation import Federation


def trained_model(federation: Federation, folder: Path) -> nn.Module:
    """The model of a run folder, in the module of the federation that its config makes: the last
    one of a run that has ended, else that of its newest whole checkpoint.

    Raises:
        ConfigError: the folder holds no model, or one of another size.
        DataCorrupt: the file of the model, or every checkpoint, is damaged.
    """
    model, file = federation.scenario.workload.model, folder / "model.safetensors"
    if file.exists():
        try:
            flat = safetensors.torch.load_file(file)["parameters"]
        except (OSError, KeyError, safetensors.SafetensorError) as error:
            raise DataCorrupt(f"'{file}' cannot be read as a model: {error}.") from None
    else:
        found = checkpoint.load(folder / CHECKPOINT, packages_of(federation.scenario))
        if found is None:
            raise ConfigError(
                f"'{folder}' holds no model: its run has not begun. Give the folder of a run that"
                " has finished a round."
            )
        flat = found.state.parameters
    if len(flat) != model.d:
        raise ConfigError(
            f"the model in '{folder}' has {len(flat):,} parameters, and its config describes one of"
            f" {model.d:,}: one of them was changed."
        )
    model.write(flat)
    return model.module


def inspect_run(federation: Federation, folder: Path, **how: Any) -> Inspection:
    """Inspect the model of a run folder, on clean images of what the run is measured on: its
    validation samples where it has such, else its test set. ``how`` are keys of `inspect`.

    Raises:
        ConfigError: the folder holds no model, the samples are no images, or there are too few
            classes or images.
        DataCorrupt: what the folder holds is damaged.
    """
    scenario = federation.scenario
    refuse_no_images(scenario.measured_on)
    whose = "the test set" if scenario.validation is None else "the run's validation samples"
    return inspect(
        trained_model(federation, folder), scenario.measured_on, **{"data": whose, **how}
    )
