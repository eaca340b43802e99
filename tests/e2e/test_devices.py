"""`edge devices`, and the emulated Arm tiers, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fixtures import LENIENT_TARGET, Edge

from pipeline.devices.arm64 import environment


@pytest.fixture
def no_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder in which nothing is set up."""
    monkeypatch.setenv("EDGE_DEVICES", str(tmp_path / "devices"))
    return tmp_path / "devices"


def test_list_says_what_is_there(edge: Edge, no_devices: Path) -> None:
    done = edge("devices", "list")
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert rows["host"].split()[1] == "host" and rows["arm64"].split()[1] == "emulated"
    assert "not set up: `edge devices setup arm64`" in rows["arm64"] or "cannot be set up" in rows["arm64"]
    assert not no_devices.exists()


def test_probe_of_this_machine(edge: Edge) -> None:
    done = edge("devices", "probe", "host")
    assert done.returncode == 0, done.stderr
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert names == ["cpu", "features", "cores", "memory", "system", "runtime"]


@pytest.mark.usefixtures("no_devices")
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("probe", "arm64"), 3, "The arm64 environment is not set up on this machine."),
        (("probe", "arm64:a72"), 2, "Unknown tier 'a72'."),
        (("probe", "amr64"), 2, "Did you mean 'arm64'?"),
        (("setup", "host"), 2, "The runner 'host' needs no set-up."),
        (("remove", "arm46"), 2, "Did you mean 'arm64'?"),
        (("setup", "arm64", "--sources", "no.list"), 2, "There is no list of sources no.list."),
        (("setup", "arm64", "--sources", "no.txt"), 2, "apt's lists of sources end in .list or .sources"),
    ],
)
def test_mistakes(edge: Edge, arguments: tuple[str, ...], code: int, said: str) -> None:
    done = edge("devices", *arguments)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert said in done.stderr


def test_nothing_to_remove(edge: Edge, no_devices: Path) -> None:
    done = edge("devices", "remove", "arm64")
    assert (done.returncode, done.stdout) == (0, f"There was nothing to remove: {no_devices}/arm64 does not exist.\n")


def test_a_profile_that_no_cpu_has(edge: Edge, workspace: Path) -> None:
    text = LENIENT_TARGET.replace('isa = ["asimd"]', 'isa = ["asimd", "i8mm"]')
    (workspace / "odd.toml").write_text(text, encoding="utf-8")
    done = edge("devices", "probe", "arm64", "--target", "odd.toml")
    assert done.returncode == 2
    assert "device.isa: no CPU has these features: i8mm without asimddp, which every CPU with i8mm has" in done.stderr


def test_settings_are_not_tuned_by_an_emulator(edge: Edge, workspace: Path) -> None:
    text = LENIENT_TARGET.replace('recipe = "w8a8-dynamic"', 'recipe = "w8a8-dynamic"\nrunner = "arm64"')
    (workspace / "emulated.toml").write_text(text, encoding="utf-8")
    done = edge("tune", "--target", "emulated.toml")
    assert done.returncode == 2
    assert "Settings are tuned by latency, and the runner 'arm64' has none: under emulation a time is" in done.stderr


@pytest.mark.slow
def test_an_export_is_checked_on_every_tier_of_its_target(edge: Edge, workspace: Path, tiny: list[str]) -> None:
    """The target's own device has no more than asimd; the bundle goes to others too."""
    if environment.find() is None:
        pytest.skip("the arm64 environment is not set up here: `edge devices setup arm64`")
    text = LENIENT_TARGET.replace('recipe = "w8a8-dynamic"', 'recipe = "w8a8-dynamic"\ncpu_tiers = ["asimd", "i8mm"]')
    (workspace / "older.toml").write_text(text, encoding="utf-8")
    flags = ["older.toml" if flag == "lenient" else flag for flag in tiny]
    done = edge("export", *flags, "--runner", "arm64", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [(tier["tier"], tier["matched"], tier["golden"]) for tier in report["tiers"]] == [
        ("asimd", 4, 4),
        ("i8mm", 4, 4),
    ]
    found = {budget["metric"]: budget for budget in report["budgets"]}
    assert found["min_golden_match"]["figure"]["evidence"] == "emulated"
    assert found["min_golden_match"]["verdict"] == found["max_tier_drop"]["verdict"] == "PASS"
    assert report["figures"].keys() >= {"instructions_m", "min_instruction_ratio"} or report["tiers"][0]["uncounted"]
    assert found["latency_p95_ms"]["figure"]["evidence"] == "host"
    again = edge("check", "out/bundle", "--target", "older.toml", "--runner", "arm64:dotprod")
    assert again.returncode == 0, again.stderr
    assert "On dotprod (Cortex-A76, emulated by QEMU" in again.stdout
    assert "On asimd" not in again.stdout
    assert "On other CPUs" in (workspace / "out/report.html").read_text(encoding="utf-8")


def test_a_set_up_that_is_whole_is_kept(edge: Edge) -> None:
    if environment.find() is None:
        pytest.skip("the arm64 environment is not set up here: `edge devices setup arm64`")
    done = edge("devices", "setup", "arm64")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("arm64 is already set up: ONNX Runtime ")
