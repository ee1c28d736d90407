"""What a person can choose is found where they look for it, under a name that nothing else has."""

import ast
import importlib
import importlib.util
import inspect
import pkgutil
from collections import defaultdict
from pathlib import Path

import pytest
from torch import nn

import privfl

CHANNEL = {"client", "server", "helpers", "decode"}
FITS = {
    "aggregators": [{"sensitivity"}, {"before"}, {"after"}, {"at_client"}],
    "attacks": [
        {"poison_data"},
        {"poison_training"},
        {"poison_updates"},
        {"poison_and_remember"},
        {"poison_bounded"},
        {"poison_party"},
        {"poison_broadcast"},
        {"family", "run"},
    ],
    "crypto": [CHANNEL],
    "data": [{"__call__"}],
    "dp": [{"share", "release"}, {"add", "reach"}, {"batches", "charges"}, {"l2", "__call__"}],
    "engine": [{"draw", "sampling"}],
    "hybrid": [CHANNEL],
    "training": [{"on", "combine"}, {"init", "step"}, {"batches", "charges"}, {"train", "close"}],
}
"""By package, what a class has that fits into a seam: rules and seats, attacks, channels, data sets
and partitioners, mechanisms, bounds and gradients, samplers, methods, optimisers and executors.
"""


def modules(package):
    root = importlib.import_module(f"privfl.{package}")
    for found in pkgutil.walk_packages(root.__path__, f"{root.__name__}."):
        yield importlib.import_module(found.name)


def defined(package, kind):
    """Its public classes or functions, each where it is defined."""
    for module in modules(package):
        for name, thing in vars(module).items():
            if kind(thing) and thing.__module__ == module.__name__ and not name.startswith("_"):
                yield thing


def has(kind, names):
    own = {name for base in kind.__mro__ if base is not object for name in vars(base)}
    fields = {name for base in kind.__mro__ for name in vars(base).get("__annotations__", ())}
    return names <= own | fields


@pytest.mark.parametrize("package", sorted(FITS))
def test_every_public_class_that_fits_a_seam_is_in_its_packages_face(package):
    """A class of which others are made (it has subclasses in privfl) stands for no choice."""
    face = importlib.import_module(f"privfl.{package}").__all__
    fitting = [
        kind
        for kind in defined(package, inspect.isclass)
        if any(has(kind, names) for names in FITS[package]) and not kind.__subclasses__()
    ]
    assert len(fitting) >= 3, "the seams of this package have other names by now"
    assert not [f"{k.__module__}.{k.__name__}" for k in fitting if k.__name__ not in face]


def test_every_model_is_in_the_face_and_has_a_name():
    from privfl import models

    def builds(function):
        signature = inspect.signature(function, eval_str=True)
        made = signature.return_annotation
        takes = list(signature.parameters)[:2] == ["shape", "classes"]
        return takes and inspect.isclass(made) and issubclass(made, nn.Module)

    makers = {f.__name__ for f in defined("models", inspect.isfunction) if builds(f)}
    assert makers == set(models.MODELS)
    assert makers <= set(models.__all__)


def test_every_name_of_a_face_is_there():
    for found in pkgutil.walk_packages(privfl.__path__, "privfl."):
        if found.ispkg:
            face = importlib.import_module(found.name)
            missing = [name for name in getattr(face, "__all__", ()) if not hasattr(face, name)]
            assert not missing, found.name


def test_no_two_public_classes_share_a_name():
    root = Path(privfl.__file__).parent
    where = defaultdict(list)
    for path in root.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                where[node.name].append(str(path.relative_to(root)))
    assert len(where) > 300
    assert not {name: files for name, files in where.items() if len(files) > 1}


def scripts():
    root = Path(__file__).parents[2]
    return [path for folder in ("benchmarks", "examples") for path in (root / folder).rglob("*.py")]


@pytest.mark.parametrize("path", scripts(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_benchmarks_and_examples_import_of_privfl_is_there(path):
    """They run rarely, and a name that moved would be found late."""
    missing = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "privfl":
            module, found = importlib.import_module(node.module), importlib.util.find_spec
            missing += [
                f"{node.module}.{name}"
                for name in (alias.name for alias in node.names)
                if not hasattr(module, name) and not found(f"{node.module}.{name}")
            ]
    assert not missing
