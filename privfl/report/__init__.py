"""The report of a run: plots a person would want, as PNG files and as one self-contained page."""

from privfl.report.folder import (
    config_in,
    read_records,
    read_run,
    refuse_in_public,
    write_public_report,
    write_report,
)
from privfl.report.honest import play_honest
from privfl.report.kept import as_written
from privfl.report.vertical import vertical_page

__all__ = [
    "as_written",
    "config_in",
    "play_honest",
    "read_records",
    "read_run",
    "refuse_in_public",
    "vertical_page",
    "write_public_report",
    "write_report",
]
