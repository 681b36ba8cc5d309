"""The recipe script's manners: help, misspelt options, and what must be given."""

import subprocess
from pathlib import Path

import pytest

TEMPLATE = Path(__file__).resolve().parents[2] / "egs2" / "TEMPLATE" / "star1"
DEMO = TEMPLATE.parents[1] / "amazon_queen" / "star1"


def call(*options, cwd=TEMPLATE, script="./star.sh"):
    return subprocess.run([script, *options], cwd=cwd, capture_output=True, text=True, check=False)


def test_help_lists_every_option_with_its_default():
    done = call("--help")
    assert done.returncode == 0
    for option in ("--stage 1 ", "--ngpu 0 ", "--skip_asr false", "--teacher", "--feature_cache"):
        assert option in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trainset", "x"], "unknown option --trainset"),
        (["--skip_asr", "maybe"], "--skip_asr must be true or false"),
        (["--stage"], "--stage needs a value"),
        (["positional"], "options begin with --"),
        ([], "--train_set and --valid_set are required"),
        (["--train-set", "a", "--valid-set", "b"], "--teacher is required"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(options, message):
    done = call(*options)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_demo_links_to_the_template():
    for name in ("star.sh", "path.sh", "parse_options.sh"):
        assert (DEMO / name).resolve() == TEMPLATE / name
    assert call("--help", cwd=DEMO, script="./run.sh").returncode == 0
