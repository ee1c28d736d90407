"""Runs the Python blocks of README.md and docs/ when they are collected."""

import os

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

os.environ.setdefault("MPLBACKEND", "Agg")

collect_ignore = ["docs/hooks"]  # mkdocs runs these, where it is installed
pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser()],
    patterns=["README.md", "docs/*.md", "docs/tutorials/*.md", "docs/layers/*.md"],
).pytest()
