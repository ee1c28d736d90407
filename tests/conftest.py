"""Shapes in annotations are checked while tests run; small nets run on one thread."""

import os

import torch
from jaxtyping import install_import_hook

os.environ.setdefault("MPLBACKEND", "Agg")
torch.set_num_threads(1)
install_import_hook("privfl", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")
