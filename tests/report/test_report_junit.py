from __future__ import annotations

import re
from dataclasses import dataclass
from xml.etree import ElementTree as ET

import pytest

from pipeline.core.report_types import Report
from pipeline.report.junit import junit_xml

SECONDS = re.compile(r"\d+(\.\d*)?")
COUNT = re.compile(r"\d+")
ANY = re.compile(r"(?s).*")


@dataclass(frozen=True)
class Element:
    """What an element may and must have: attributes with the form of their values, and children."""

    attributes: dict[str, re.Pattern[str]]
    needed: frozenset[str] = frozenset()
    children: frozenset[str] = frozenset()


_COUNTS = {"tests": COUNT, "failures": COUNT, "errors": COUNT}
_MARK = Element({"type": ANY, "message": ANY})
SCHEMA = {
    "testsuites": Element({"name": ANY, "time": SECONDS, **_COUNTS}, children=frozenset({"testsuite"})),
    "testsuite": Element(
        {
            **{"name": ANY, "time": SECONDS, **_COUNTS, "skipped": COUNT},
            **dict.fromkeys(("group", "timestamp", "hostname", "id", "package", "file", "log", "url"), ANY),
        },
        needed=frozenset({"name", *_COUNTS}),
        children=frozenset({"testsuite", "properties", "testcase", "system-out", "system-err"}),
    ),
    "properties": Element({}, children=frozenset({"property"})),
    "property": Element({"name": ANY, "value": ANY}, needed=frozenset({"name", "value"})),
    "testcase": Element(
        {"name": ANY, "time": SECONDS, "classname": ANY, "group": ANY},
        needed=frozenset({"name"}),
        children=frozenset({"skipped", "error", "failure", "system-out", "system-err"}),
    ),
    "failure": _MARK,
    "error": _MARK,
    "skipped": _MARK,
    "system-out": Element({}),
    "system-err": Element({}),
}
"""The structure that the xUnit plugin of Jenkins accepts (its junit-10.xsd), without reruns."""


def problems(node: ET.Element) -> list[str]:
    """What of a tree the schema does not accept, in the order of the document."""
    rule = SCHEMA[node.tag]
    found = [f"{node.tag} has {name}" for name in node.attrib if name not in rule.attributes]
    found += [f"{node.tag} lacks {name}" for name in sorted(rule.needed - node.attrib.keys())]
    known = [(name, value) for name, value in node.attrib.items() if name in rule.attributes]
    found += [f"{node.tag}.{name} is {value!r}" for name, value in known if not rule.attributes[name].fullmatch(value)]
    for child in node:
        found += problems(child) if child.tag in rule.children else [f"{node.tag} contains {child.tag}"]
    return found


def parse(report: Report) -> ET.Element:
    return ET.fromstring(junit_xml(report))


def case(report: Report, name: str) -> ET.Element:
    return next(node for node in parse(report).iter("testcase") if node.attrib["name"] == name)


def test_counts(report: Report) -> None:
    counts = {"tests": "6", "failures": "1", "errors": "1", "time": "4.830"}
    suites = parse(report)
    assert suites.tag == "testsuites" and suites.attrib == {"name": "edge", **counts}
    name = f"edge.phone.{report.model}"
    assert suites[0].attrib == {"name": name, "skipped": "1", **counts}
    for tag, number in (("testcase", 6), ("failure", 1), ("error", 1), ("skipped", 1)):
        assert len(list(suites.iter(tag))) == number


def test_every_case_is_named_after_target_model_and_metric(report: Report) -> None:
    assert {node.attrib["classname"] for node in parse(report).iter("testcase")} == {f"edge.phone.{report.model}"}
    assert [node.attrib["name"] for node in parse(report).iter("testcase")] == [r.metric for r in report.budgets]


def test_dots_of_a_model_name_do_not_part_packages(bare: Report) -> None:
    tree = parse(bare.model_copy(update={"model": "squeezenet1.1"}))
    assert tree[0].attrib["name"] == "edge.phone.squeezenet1_1"


def test_a_failure_says_all_that_is_known(report: Report) -> None:
    failure = case(report, "min_top10_overlap")[0]
    assert failure.tag == "failure"
    assert failure.attrib["message"] == "min_top10_overlap is 0.89996, must be at least 0.9 (host)"
    assert failure.text == (
        "figure: 0.89996 [0.891, 0.909]\n"
        "limit: at least 0.9\n"
        "margin: -0.00004\n"
        "evidence: host\n"
        "reason: 0.89996 < 0.9 on ag-news\n"
        "dominated by: encoder.layer.5.output.dense (38 %), embeddings.word_embeddings (21 %)\n"
        "remedy: Leave encoder.layer.5.output.dense in float: nodes_to_exclude in the recipe's scheme."
    )


@pytest.mark.parametrize(
    ("metric", "tag", "message"),
    [
        ("peak_memory_mb", "error", "only device evidence counts, and no device is connected"),
        ("max_power_w", "skipped", "no power meter on this host"),
    ],
)
def test_not_measured(report: Report, metric: str, tag: str, message: str) -> None:
    assert [(node.tag, node.attrib["message"]) for node in case(report, metric)] == [(tag, message)]


def test_a_pass_shows_its_figure(report: Report) -> None:
    (output,) = case(report, "latency_p95_ms")
    assert output.tag == "system-out"
    assert (output.text or "").splitlines()[0] == "figure: 18.24 ms [17.61, 19.02]"


def test_control_characters_leave_the_xml_well_formed(report: Report) -> None:
    results = (report.budgets[3].model_copy(update={"reason": "\x1b[31m\x00]]> & <", "metric": "a\x07b"}),)
    tree = parse(report.model_copy(update={"budgets": results, "model": "\x08m"}))
    assert next(tree.iter("testcase")).attrib["name"] == "a\ufffdb"


def test_the_same_report_gives_the_same_bytes(report: Report) -> None:
    again = Report.model_validate(report.model_dump(mode="json"))
    assert junit_xml(again) == junit_xml(report)
    assert "timestamp" not in parse(report)[0].attrib


def test_only_what_readers_know(report: Report, bare: Report) -> None:
    """Every attribute and child is one that Jenkins' xUnit plugin takes, and none that it needs is missing."""
    for one in (report, bare, report.model_copy(update={"budgets": ()})):
        assert problems(parse(one)) == []


def test_the_schema_sees_what_is_wrong() -> None:
    broken = ET.fromstring(
        '<testsuites skipped="1"><testsuite name="a" tests="1" errors="0" time="1e3"><testcase/><stack/></testsuite>'
        "</testsuites>"
    )
    assert problems(broken) == [
        "testsuites has skipped",
        "testsuite lacks failures",
        "testsuite.time is '1e3'",
        "testcase lacks name",
        "testsuite contains stack",
    ]


def test_verdicts_are_the_types(report: Report) -> None:
    marks = [node for node in parse(report).iter() if node.tag in {"failure", "error", "skipped"}]
    assert {(node.tag, node.attrib["type"]) for node in marks} == {
        ("failure", "FAIL"),
        ("error", "NOT_MEASURED"),
        ("skipped", "NOT_MEASURED"),
    }
