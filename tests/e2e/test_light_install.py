"""An installation without torch, transformers and the rest of what exports need: it verifies and checks bundles."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from processes import environment

from benchmarks.installs import LARGEST_MB, installed, lowest
from pipeline.core.installed import EXPORT

_LIGHT = """
import sys
sys.modules.update(dict.fromkeys({hidden}))
from pipeline.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def light(workspace: Path):
    """Runs `edge` where nothing of the extra `export` can be imported, with an empty store."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", _LIGHT.format(hidden=EXPORT), *arguments]
        env = environment(EDGE_STORE=str(workspace / "empty"))
        return subprocess.run(command, cwd=workspace, env=env, capture_output=True, text=True, check=False)

    return run


def test_verify(light, exported) -> None:
    done = light("verify", "out/bundle")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("out/bundle is whole, and gives its golden outputs here (largest difference: 0 of")


def test_check(light, exported) -> None:
    done = light(
        "check", "out/bundle", "--target", "lenient", "--budget", "max_accuracy_drop=30", "--output", "reports"
    )
    assert done.returncode == 0, done.stderr
    assert "PASS" in done.stdout


@pytest.mark.parametrize("command", ["schemes", "formats", "budgets", "targets", "recipes", "tasks"])
def test_lists(light, command: str) -> None:
    assert light(command).returncode == 0


@pytest.mark.parametrize("command", ["export", "compare"])
def test_what_an_export_needs_is_named_before_anything_starts(light, workspace, command: str) -> None:
    done = light(command, "nothing")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: This installation checks bundles: {', '.join(EXPORT)} are not installed.\n"
        "  Install what exports need: pip install 'edge-pipeline[export]'\n"
    )
    assert not (workspace / "empty").exists()


def test_a_list_that_needs_torch_says_so(light) -> None:
    done = light("passes")
    assert done.returncode == 2
    assert done.stderr.startswith("error: This installation checks bundles: torch")


@pytest.mark.slow
@pytest.mark.parametrize("versions", ["newest", "lowest"])
def test_a_wheel_in_an_environment_of_its_own(exported, workspace, tmp_path: Path, versions: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(workspace / "out", elsewhere / "out")
    target = str(workspace / "targets/lenient.toml")
    with installed(lowest() if versions == "lowest" else ()) as place:
        assert place.megabytes <= LARGEST_MB
        verified = place.edge("verify", "out/bundle", cwd=elsewhere)
        assert verified.returncode == 0, verified.stderr
        checked = place.edge("check", "out/bundle", "--target", target, cwd=elsewhere)
        assert checked.returncode == 0, checked.stderr
        assert place.edge("export", "model", cwd=elsewhere).returncode == 2
