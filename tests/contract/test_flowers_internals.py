"""What Flower does not promise is used in as few files as possible."""

import ast
from pathlib import Path

import privfl.flower

PROMISED = ("flwr.app", "flwr.serverapp", "flwr.clientapp")
ALLOWED = {"internals.py", "gate.py"}


def flowers(path):
    """The modules of Flower that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "flwr":
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (one.name for one in node.names if one.name.split(".")[0] == "flwr")


def test_flowers_internals_are_imported_in_two_files():
    found = {path.name: set(flowers(path)) for path in Path(privfl.flower.__path__[0]).glob("*.py")}
    inside = {
        name: {one for one in modules if one not in PROMISED} for name, modules in found.items()
    }
    assert {name for name, modules in inside.items() if modules} == ALLOWED | {"strategies.py"}
    assert inside["strategies.py"] == {"flwr.serverapp.strategy.strategy_utils"}
