"""State as files: anything made of dataclasses, mappings, sequences, numbers and tensors, written
atomically and read back bit for bit.

Keys and other secrets never get here: whatever inherits `KeepsSecrets` is refused. A resumed run
sets up a new session.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from privfl.core import DataCorrupt, KeepsSecrets, SecretsStay
from privfl.core.field_values import field_values

_PLAIN = (str, bool, int, float, type(None))


def _pack(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, KeepsSecrets):
        raise SecretsStay(
            f"{type(value).__name__} holds secrets and does not go into a checkpoint."
        )
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, torch.Tensor):
        name = f"t{len(tensors)}"
        tensors[name] = value.detach().cpu().clone().contiguous()
        return {"tensor": name}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value) if isinstance(value, set | frozenset) else value
        return {type(value).__name__: [_pack(item, tensors) for item in items]}
    if isinstance(value, Mapping):
        return {
            "dict": [[_pack(key, tensors), _pack(item, tensors)] for key, item in value.items()]
        }
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        fields = {name: _pack(held, tensors) for name, held in field_values(value).items()}
        return {"dataclass": f"{kind.__module__}:{kind.__qualname__}", "fields": fields}
    raise TypeError(
        f"a {type(value).__name__} cannot be checkpointed: make the state of dataclasses, mappings,"
        " numbers and tensors."
    )


def _unpack(packed: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(packed, _PLAIN):
        return packed
    if "tensor" in packed:
        return tensors[packed["tensor"]]
    if "bytes" in packed:
        return bytes.fromhex(packed["bytes"])
    if "dict" in packed:
        return {_unpack(key, tensors): _unpack(item, tensors) for key, item in packed["dict"]}
    if "dataclass" in packed:
        module, _, name = packed["dataclass"].partition(":")
        kind: Any = importlib.import_module(module)
        for step in name.split("."):
            kind = vars(kind)[step]
        if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
            raise DataCorrupt(
                f"the checkpoint names '{packed['dataclass']}', which is no dataclass."
            )
        state = object.__new__(kind)  # as it was: no checks, no defaults, no side effects
        for field, value in packed["fields"].items():
            object.__setattr__(state, field, _unpack(value, tensors))
        return state
    kinds: dict[str, Any] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
    ((kind_name, items),) = packed.items()
    return kinds[kind_name](_unpack(item, tensors) for item in items)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file as a whole: a reader, or a kill, sees the old one or the new one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    draft.write_bytes(content.encode() if isinstance(content, str) else content)
    with draft.open("rb") as written:
        os.fsync(written.fileno())
    draft.replace(path)


def save(folder: Path, step: int, state: Any) -> Path:
    """Write ``state`` into ``folder/step-N``, then forget older steps. A kill at any moment leaves
    a whole step behind.

    Raises:
        SecretsStay: the state holds secrets.
        TypeError: the state holds something that is no data.
    """
    tensors: dict[str, torch.Tensor] = {}
    skeleton = _pack(state, tensors)
    folder.mkdir(parents=True, exist_ok=True)
    draft, done = folder / f".draft-{os.getpid()}", folder / f"step-{step:08d}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    safetensors.torch.save_file(tensors, draft / "tensors.safetensors")
    (draft / "state.json").write_text(json.dumps(skeleton), encoding="utf-8")
    shutil.rmtree(done, ignore_errors=True)
    draft.rename(done)
    for old in folder.iterdir():
        if old.name != done.name and (old.name.startswith(".draft-") or old.name < done.name):
            shutil.rmtree(old, ignore_errors=True)
    return done


def load(folder: Path) -> Any | None:
    """The newest whole state in ``folder``, or None.

    Raises:
        DataCorrupt: the files are damaged.
    """
    steps = sorted(path for path in folder.glob("step-*") if path.is_dir())
    if not steps:
        return None
    try:
        tensors = safetensors.torch.load_file(steps[-1] / "tensors.safetensors")
        return _unpack(json.loads((steps[-1] / "state.json").read_text(encoding="utf-8")), tensors)
    except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
        raise DataCorrupt(f"the checkpoint '{steps[-1]}' cannot be read: {error}") from None
