"""The report of a run: plots a person would want, as PNG files and as one self-contained page."""

from privfl.report.folder import config_in, read_run, write_public_report, write_report

__all__ = ["config_in", "read_run", "write_public_report", "write_report"]
