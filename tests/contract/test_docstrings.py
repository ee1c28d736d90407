"""Every public name says what it is, what shape its tensors have, and which errors it raises."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import privfl
from privfl import core

ROOT = Path(privfl.__file__).parent
ERRORS = {
    name
    for name in core.__all__
    if isinstance(vars(core)[name], type) and issubclass(vars(core)[name], core.PrivflError)
} - {"Abort"}
"""Errors that people meet; an abort is a party's word to the driver."""
COMMANDS = "cli/"
"""Docstrings of commands are their help, for people who see the sentence of an error itself."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Public:
    """A public class or function: where it is, and the docstrings that speak of it."""

    where: str
    node: ast.ClassDef | Function
    owner: ast.ClassDef | None = None

    @property
    def said(self) -> str:
        own = ast.get_docstring(self.node) or ""
        return own + (ast.get_docstring(self.owner) or "" if self.owner else "")


def public() -> Iterator[Public]:
    for path in sorted(ROOT.rglob("*.py")):
        where = path.relative_to(ROOT).as_posix()
        if path.name.startswith("_") and path.name != "__init__.py":
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.ClassDef | Function) or node.name.startswith("_"):
                continue
            yield Public(f"{where}: {node.name}", node)
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, Function) and not inner.name.startswith("_"):
                        yield Public(f"{where}: {node.name}.{inner.name}", inner, node)


def raised(node: ast.AST) -> set[str]:
    """The typed errors that a body raises itself."""
    calls = [n.exc for n in ast.walk(node) if isinstance(n, ast.Raise) and n.exc is not None]
    names = [call.func if isinstance(call, ast.Call) else call for call in calls]
    return {name.id for name in names if isinstance(name, ast.Name)} & ERRORS


def bare_tensors(node: Function) -> list[str]:
    """Arguments whose annotation is Tensor and no shape."""
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return [
        a.arg for a in every if isinstance(a.annotation, ast.Name) and a.annotation.id == "Tensor"
    ]


@cache
def every() -> tuple[Public, ...]:
    """All of them, read when the first test asks and not by every process that collects."""
    return tuple(public())


def test_every_public_name_says_what_it_is():
    assert len(every()) > 1500
    assert not [one.where for one in every() if not ast.get_docstring(one.node)]


def test_what_raises_a_typed_error_says_so():
    silent = []
    for one in every():
        if isinstance(one.node, ast.ClassDef):
            made = [
                n
                for n in one.node.body
                if isinstance(n, Function) and n.name in ("__init__", "__post_init__")
            ]
            errors = set().union(*(raised(n) for n in made)) if made else set()
        else:
            errors = raised(one.node)
        if errors and "Raises:" not in one.said and not one.where.startswith(COMMANDS):
            silent.append(f"{one.where} {sorted(errors)}")
    assert not silent, "\n".join(silent)


def test_a_tensor_without_a_shape_in_its_type_has_one_in_the_docstring():
    silent = [
        f"{one.where} {bare_tensors(one.node)}"
        for one in every()
        if isinstance(one.node, Function) and bare_tensors(one.node) and "[" not in one.said
    ]
    assert not silent, "\n".join(silent)
