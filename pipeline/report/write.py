"""Report files: written beside the bundle, and read back."""

from __future__ import annotations

from pathlib import Path

from pipeline.core.digest import pretty_json
from pipeline.core.documents import DocumentError, read_json
from pipeline.core.errors import UsageError
from pipeline.core.paths import write_whole
from pipeline.core.report_types import REPORT_VERSION, Report
from pipeline.report.html import html
from pipeline.report.junit import junit_xml

REPORT = "report.json"
REPORTS = (REPORT, "report.html", "junit.xml")
_REMEDY = "Give the report.json that `edge export` or `edge check` wrote."


def write_reports(report: Report, folder: Path) -> None:
    """Write report.json, report.html and junit.xml (UTF-8, LF) into `folder`, which must exist; each is whole."""
    contents = {
        REPORT: pretty_json(report.model_dump(mode="json")),
        "report.html": html(report),
        "junit.xml": junit_xml(report),
    }
    for name, content in contents.items():
        write_whole(folder / name, content)


def read_report(path: Path) -> Report:
    """The report in a report.json. UsageError if it is missing, damaged or of another version."""
    if not path.is_file():
        raise UsageError(f"There is no report file {str(path)!r}.", _REMEDY)
    try:
        data = read_json(path.resolve())
    except DocumentError as error:
        raise UsageError(f"{path.name} {error}.", _REMEDY) from error
    if not isinstance(data, dict) or "version" not in data:
        raise UsageError(f"{path.name} is JSON but not a report: it has no `version`.", _REMEDY)
    if data["version"] != REPORT_VERSION:
        raise UsageError(
            f"{path.name} is a report of version {data['version']!r}; allowed is version {REPORT_VERSION}.",
            _REMEDY,
        )
    return Report.from_data(data, path.name)
