from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from pipeline.core.report_types import Report
from pipeline.report.junit import junit_xml


def parse(report: Report) -> ET.Element:
    return ET.fromstring(junit_xml(report))


def case(report: Report, name: str) -> ET.Element:
    return next(node for node in parse(report).iter("testcase") if node.attrib["name"] == name)


def test_counts(report: Report) -> None:
    counts = {"tests": "6", "failures": "1", "errors": "1", "skipped": "1"}
    suites = parse(report)
    assert suites.tag == "testsuites" and suites.attrib == counts
    assert {key: suites[0].attrib[key] for key in counts} == counts
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
    assert "time" not in parse(report)[0].attrib
