"""The report as JUnit XML, so that any CI system shows each budget as a test."""

from __future__ import annotations

from collections import Counter
from xml.etree import ElementTree as ET

from pipeline.core.report_types import BudgetResult, Report
from pipeline.core.types import Verdict
from pipeline.report.comparison.text import verdict_sentence
from pipeline.report.text import (
    evidence_text,
    interval,
    limit_text,
    margin_text,
    printable,
    summary,
    value_text,
)

_COUNTED = {"failure": "failures", "error": "errors"}


def junit_xml(report: Report) -> str:
    """One test case per budget: FAIL is a failure, NOT_MEASURED an error if required and skipped if not.

    Elements and attributes are those that Jenkins' xUnit plugin (junit-10.xsd) and the JUnit readers of other CI
    systems know. The suite's time is that of the stages; a budget has none of its own. The text has no dates: the same
    report gives the same bytes.
    """
    outcomes = Counter(_outcome(result) for result in report.budgets)
    counts = {"tests": str(len(report.budgets)), **{_COUNTED[key]: str(outcomes[key]) for key in _COUNTED}}
    totals = {"name": "edge", "time": _seconds(sum(stage.seconds for stage in report.stages)), **counts}
    suites = ET.Element("testsuites", totals)
    suite = ET.SubElement(
        suites, "testsuite", {**totals, "name": _classname(report), "skipped": str(outcomes["skipped"])}
    )
    _add_properties(suite, report)
    for result in report.budgets:
        _add_case(suite, result, _classname(report))
    ET.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suites, encoding="unicode") + "\n"


def _classname(report: Report) -> str:
    """Dots part packages in CI systems, so those of names become underscores."""
    return ".".join(["edge", *(printable(name).replace(".", "_") for name in (report.target, report.model))])


def _outcome(result: BudgetResult) -> str:
    """The element that marks a test case, or an empty string for one that passed."""
    if result.verdict is Verdict.FAIL:
        return "failure"
    if result.verdict is Verdict.NOT_MEASURED:
        return "error" if result.required else "skipped"
    return ""


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f}"


def _add_properties(suite: ET.Element, report: Report) -> None:
    facts = {
        "model": report.model,
        "target": report.target,
        "recipe": report.recipe,
        "scheme": report.scheme.name,
        "verdict": report.verdict,
        "summary": summary(report),
        "model_digest": report.model_digest,
        "bundle_digest": report.bundle_digest,
        **({"warnings": " ".join(report.warnings)} if report.warnings else {}),
        **({"comparison": verdict_sentence(report.comparison)} if report.comparison else {}),
    }
    properties = ET.SubElement(suite, "properties")
    for name, value in facts.items():
        ET.SubElement(properties, "property", {"name": name, "value": printable(value)})


def _add_case(suite: ET.Element, result: BudgetResult, classname: str) -> None:
    case = ET.SubElement(
        suite, "testcase", {"classname": classname, "name": printable(result.metric), "time": _seconds(0.0)}
    )
    outcome, explanation = _outcome(result), printable(_explanation(result))
    if outcome:
        ET.SubElement(
            case, outcome, {"type": str(result.verdict), "message": printable(_message(result))}
        ).text = explanation
    else:
        ET.SubElement(case, "system-out").text = explanation


def _message(result: BudgetResult) -> str:
    if result.verdict is Verdict.NOT_MEASURED:
        return result.reason or f"{result.metric} was not measured"
    return f"{result.metric} is {value_text(result)}, must be {limit_text(result)} ({evidence_text(result)})"


def _explanation(result: BudgetResult) -> str:
    measured = f"{value_text(result)} {interval(result.figure) if result.figure else ''}".rstrip()
    lines = {
        "figure": measured,
        "limit": limit_text(result),
        "margin": margin_text(result),
        "evidence": evidence_text(result),
        "reason": result.reason,
        "dominated by": ", ".join(result.dominated_by),
        "remedy": result.remedy,
    }
    return "\n".join(f"{name}: {value}" for name, value in lines.items() if value)
