"""The report of a run: plots a person would want, as PNG files and as one self-contained page."""

from privfl.report.folder import read_run, write_report

__all__ = ["read_run", "write_report"]
