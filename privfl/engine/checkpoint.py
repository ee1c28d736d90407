"""State as files: anything made of dataclasses, mappings, sequences, numbers and tensors, written
whole and read back bit for bit (`engine.packing`).

A step lies in a folder of its own, with the SHA-256 of every file in its manifest, and that of the
manifest in itself. The two newest are kept: where the last one is damaged, or was cut by a loss of
power, the one before it counts. The hashes find damage; against who changes a file and its hash on
purpose they promise nothing but that no code of theirs runs.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from privfl.core import DataCorrupt
from privfl.engine.files import make_folder, said, sync_folder, write_all_synced
from privfl.engine.packing import pack, unpack

FORMAT = "privfl-checkpoint-2"
KEPT = 2
"""Generations of a checkpoint that stay on disk."""
_TENSORS, _STATE, _MANIFEST = "tensors.safetensors", "state.json", "manifest.json"


@dataclass(frozen=True, slots=True)
class Restored:
    """A state as it was saved at ``step``, what was saved ``about`` it, and a sentence for each
    newer step that was ``damaged``.
    """

    state: Any
    step: int
    about: Mapping[str, Any]
    damaged: tuple[str, ...] = ()


def save(folder: Path, step: int, state: Any, about: Mapping[str, Any] | None = None) -> Path:
    """Write ``state`` into ``folder/step-N``, with plain data ``about`` it, then forget all but the
    one before it. A kill or a loss of power at any moment leaves a whole step behind.

    Raises:
        SecretsStay: the state holds secrets.
        TypeError: the state holds something that is no data, or of a class that nobody finds again.
        CannotWrite: the operating system refuses; the steps before are as they were.
    """
    tensors: dict[str, torch.Tensor] = {}
    skeleton = pack(state, tensors)
    files = {
        _TENSORS: safetensors.torch.save(tensors),
        _STATE: json.dumps(skeleton).encode(),
    }
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    files[_MANIFEST] = _manifest({"step": step, "about": dict(about or {}), "files": hashes})
    draft, done = folder / f".draft-{os.getpid()}", step_of(folder, step)
    with said(folder):
        make_folder(folder)
        shutil.rmtree(draft, ignore_errors=True)
        try:
            draft.mkdir()
            write_all_synced(draft, files)
            shutil.rmtree(done, ignore_errors=True)  # a step that is played again after damage
            draft.rename(done)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        sync_folder(folder)
    _forget(folder, done)
    return done


def step_of(folder: Path, step: int) -> Path:
    """Where a step lies."""
    return folder / f"step-{step:08d}"


def hashes_of(step: Path) -> Mapping[str, str]:
    """The SHA-256 of each file of a step that was saved, by name."""
    manifest = (step / _MANIFEST).read_bytes()
    files: Mapping[str, str] = json.loads(manifest)["files"]
    return {_MANIFEST: hashlib.sha256(manifest).hexdigest(), **files}


def about_of(step: Path) -> Mapping[str, Any]:
    """What was saved about a step.

    Raises:
        DataCorrupt: a file of it is not what its hash says.
    """
    found: Mapping[str, Any] = _checked(step)["about"]
    return found


def load(
    folder: Path,
    packages: Collection[str] = (),
    fits: Callable[[Mapping[str, Any]], str] = lambda about: "",
) -> Restored | None:
    """The newest whole state in ``folder``, or None where there is no step at all.

    Args:
        folder: where `save` wrote.
        packages: whose dataclasses it may hold beside those of privfl. Nothing is imported.
        fits: why a step whose files are whole cannot be used, from what was saved about it; "" if
            it can.

    Raises:
        DataCorrupt: every step is damaged.
    """
    steps = sorted((path for path in folder.glob("step-*") if path.is_dir()), reverse=True)
    damaged: list[str] = []
    for path in steps:
        try:
            manifest = _checked(path)
            why = fits(manifest["about"])
            if why:
                raise DataCorrupt(why)
            return Restored(
                _state(path, packages),
                int(manifest["step"]),
                manifest["about"],
                tuple(damaged),
            )
        except DataCorrupt as error:
            damaged.append(f"the checkpoint '{path}' is damaged: {error}")
    if damaged:
        raise DataCorrupt(f"{'; '.join(damaged)}. No whole one is left: begin the run anew.")
    return None


def _forget(folder: Path, done: Path) -> None:
    """Remove all but a new step and the one before it; those after it were damaged."""
    others = [path for path in folder.iterdir() if path.is_dir() and path != done]
    older = sorted(path for path in others if path.name < done.name and path.name[0] != ".")
    for path in others:
        if path not in older[1 - KEPT :]:
            _remove(path)


def _remove(step: Path) -> None:
    """Remove a step, or what is left of a draft. A kill in between leaves no half of a step under
    its name, where a check of the run would call it touched: it is put aside in one go, and what
    lies aside goes with the next step.
    """
    aside = step if step.name.startswith(".") else step.with_name(f".old-{step.name}")
    if aside != step:
        try:
            step.rename(aside)
        except OSError:
            return  # it stays whole, and is tried again with the next step
    shutil.rmtree(aside, ignore_errors=True)


def _manifest(body: Mapping[str, Any]) -> bytes:
    content = {"format": FORMAT, **body}
    return json.dumps({**content, "sha256": _digest(content)}).encode()


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _checked(path: Path) -> dict[str, Any]:
    """A step's manifest, once every file is what it says."""
    try:
        told = json.loads(_read(path / _MANIFEST))
        whole = told.pop("sha256") == _digest(told) and told["format"] == FORMAT
        hashes, _ = dict(told["files"]), dict(told["about"])
        named = f"step-{int(told['step']):08d}" == path.name
    except FileNotFoundError:
        raise DataCorrupt(f"it has no {_MANIFEST}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataCorrupt(f"its {_MANIFEST} cannot be read ({error})") from None
    if not whole:
        raise DataCorrupt(f"its {_MANIFEST} was changed, or is of another version")
    if not named:
        raise DataCorrupt(f"its {_MANIFEST} is that of step {told['step']}")
    for name in (_TENSORS, _STATE):
        try:
            content = _read(path / name)
        except OSError as error:
            raise DataCorrupt(f"its {name} cannot be read ({error.strerror or error})") from None
        if hashlib.sha256(content).hexdigest() != hashes.get(name):
            raise DataCorrupt(f"its {name} is not what was written ({len(content):,} bytes)")
    return dict(told)


def _read(path: Path) -> bytes:
    """A file's bytes; what is no file, such as a pipe, may never end."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no file")
    return path.read_bytes()


def _state(path: Path, packages: Collection[str]) -> Any:
    try:
        tensors = safetensors.torch.load_file(path / _TENSORS)
        return unpack(json.loads((path / _STATE).read_bytes()), tensors, packages)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        safetensors.SafetensorError,
    ) as error:
        raise DataCorrupt(f"its state cannot be read ({error})") from None
