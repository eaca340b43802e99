"""Where targets and recipes are found, and how mistakes in their files are told."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from pipeline.cli.options import parse_amounts
from pipeline.config.job import Job
from pipeline.config.loading import available, load_recipe, load_target, shipped
from pipeline.core.errors import ExitCode, UsageError
from pipeline.core.untrusted import read_toml
from pipeline.plan.build import make_plan

PHONE = (shipped("targets") / "phone.toml").read_text(encoding="utf-8")
RECIPE = 'title = "Nothing"\nscheme = "fp32"\n'


@pytest.fixture(autouse=True)
def empty_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that only the shipped files and those that a test writes are found."""
    monkeypatch.chdir(tmp_path)


def write(path: str, text: str) -> str:
    Path(path).parent.mkdir(exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")
    return path


def refused(name: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        load_target(name)
    return caught.value


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("phon", "Unknown target 'phon'. Did you mean 'phone' or 'phone-npu'?"),
        ("phone-bud", "Unknown target 'phone-bud'. Did you mean 'phone-budget' or 'phone-npu'?"),
        ("toaster", "Unknown target 'toaster'. Allowed: car, car-npu, phone, phone-budget, phone-npu, robot."),
    ],
)
def test_unknown_target_is_named_with_the_nearest_known_ones(given: str, message: str) -> None:
    error = refused(given)
    assert str(error) == f"{message}\n`edge targets` lists them."
    assert error.exit_code == ExitCode.BAD_USAGE


def test_missing_file() -> None:
    expected = "There is no target file 'my/car.toml'.\n`edge targets` lists the targets by name."
    assert str(refused("my/car.toml")) == expected


def test_invalid_toml_is_told_with_its_place() -> None:
    text = "title = \n"
    with pytest.raises(tomllib.TOMLDecodeError) as caught:
        tomllib.loads(text)
    message = refused(write("broken.toml", text)).message
    assert message == f"broken.toml is not valid TOML: {caught.value}."
    assert "line 1" in message


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"^binary\.toml is not valid UTF-8 at byte 0\."):
        read_toml(path)


def test_a_directory_is_no_target_file(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    assert refused("folder.toml").message == "'folder.toml' is a folder, not a file."


def test_several_mistakes_are_reported_at_once() -> None:
    text = PHONE.replace("title =", "titel =").replace("memory_mb = 8192", "memory_mb = -1")
    text = text.replace("limit = 30\n", 'limit = "30"\n')
    assert refused(write("mine.toml", text)).message == (
        "mine.toml has 4 mistakes:\n"
        "  - title: is missing\n"
        "  - device.memory_mb: Input should be greater than 0 (given: -1)\n"
        "  - budgets.bundle_mb.limit: a limit must be a number (given: '30')\n"
        "  - titel: unknown key. Did you mean 'title'?"
    )


def test_the_name_is_the_file_name_unless_the_file_gives_one() -> None:
    assert load_target(write("mine.toml", PHONE)).name == "mine"
    assert load_target(write("named.toml", f'name = "tablet"\n{PHONE}')).name == "tablet"


def test_a_local_target_hides_the_shipped_one_of_its_name_and_no_other() -> None:
    write("targets/phone.toml", PHONE.replace('title = "', 'title = "Our ', 1))
    assert load_target("phone").title.startswith("Our ")
    assert not load_target("car").title.startswith("Our ")


def test_a_local_target_is_listed_among_the_shipped_ones() -> None:
    write("targets/tablet.toml", PHONE)
    assert list(available("targets")) == ["car", "car-npu", "phone", "phone-budget", "phone-npu", "robot", "tablet"]
    assert load_target("tablet").name == "tablet"


def test_a_target_says_only_what_differs_from_another() -> None:
    changes = 'extends = "phone"\ntitle = "Ours"\n[device]\nmemory_mb = 4096\n[budgets.bundle_mb]\nlimit = 12\n'
    ours, phone = load_target(write("ours.toml", changes)), load_target("phone")
    assert (ours.name, ours.title, ours.device.memory_mb, ours.budgets["bundle_mb"].limit) == ("ours", "Ours", 4096, 12)
    assert ours.device.soc == phone.device.soc
    assert ours.budgets["bundle_mb"].source == phone.budgets["bundle_mb"].source
    assert ours.budgets["max_accuracy_drop"] == phone.budgets["max_accuracy_drop"]


def test_a_name_is_not_taken_over() -> None:
    write("named.toml", f'name = "tablet"\n{PHONE}')
    assert load_target(write("ours.toml", 'extends = "named.toml"\n')).name == "ours"


def test_a_target_of_the_same_name_extends_the_shipped_one() -> None:
    write("targets/phone.toml", 'extends = "phone"\ntitle = "Our phone"\n')
    assert load_target("phone").title == "Our phone"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.toml": 'extends = "b.toml"', "b.toml": 'extends = "a.toml"'}, "a.toml extends itself."),
        ({"a.toml": 'extends = "phon"'}, "Unknown target 'phon'. Did you mean 'phone' or 'phone-npu'?"),
        ({"a.toml": "extends = 1"}, "a.toml: extends is 1."),
    ],
)
def test_what_no_target_can_extend(files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        write(name, text)
    assert refused("a.toml").message == message


def test_other_files_in_the_folder_are_no_targets() -> None:
    write("targets/README.md", "text")
    assert "README" not in available("targets")


def test_recipe_file() -> None:
    recipe = load_recipe(write("plain.toml", RECIPE))
    assert (recipe.name, recipe.scheme, recipe.passes) == ("plain", "fp32", ())
    assert (recipe.calibration.data, recipe.calibration.samples) == ("text-en", 512)


def test_mistakes_in_a_recipe_are_told_like_those_in_a_target() -> None:
    path = write("plain.toml", RECIPE.replace("scheme", "shceme") + "[calibration]\nsamples = 0\n")
    with pytest.raises(UsageError) as caught:
        load_recipe(path)
    assert caught.value.message == (
        "plain.toml has 3 mistakes:\n"
        "  - scheme: is missing\n"
        "  - calibration.samples: Input should be greater than 0 (given: 0)\n"
        "  - shceme: unknown key. Did you mean 'scheme'?"
    )


def test_missing_recipe_file() -> None:
    with pytest.raises(UsageError, match=r"There is no recipe file 'gone\.toml'\.\n`edge recipes` lists"):
        load_recipe("gone.toml")


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("\ufefftitle = 'x'\n", encoding="utf-8")
    assert read_toml(tmp_path / "r.toml") == {"title": "x"}


def test_a_limit_given_twice() -> None:
    with pytest.raises(UsageError) as caught:
        parse_amounts(["bundle_mb=1", "bundle_mb=2"], "budget")
    assert caught.value.message == "--budget 'bundle_mb' is given twice."


def test_a_recipe_without_a_name() -> None:
    with pytest.raises(UsageError) as caught:
        make_plan(Job(recipe=""))
    assert caught.value.message.startswith("Unknown recipe ''.")
