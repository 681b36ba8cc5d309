"""The recipe script's manners: help, misspelt options, and what must be given."""

import subprocess
from pathlib import Path

import pytest

TEMPLATE = Path(__file__).resolve().parents[2] / "egs2" / "TEMPLATE" / "star1"
DEMO = TEMPLATE.parents[1] / "amazon_queen" / "star1"


NAMED = ["--train_set", "a", "--valid_set", "b", "--teacher", "c"]


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
        ([*NAMED, "--systems", "student studnet"], "unknown system 'studnet'"),
        ([*NAMED, "--skip_upload", "false"], "--hf_repo is required"),
        ([*NAMED, "--upload_dry_run", "true", "--hf_repo", "a/b"], "--license is required"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(options, message):
    done = call(*options)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_demo_links_to_the_template():
    for name in ("star.sh", "path.sh", "parse_options.sh", "stages"):
        assert (DEMO / name).resolve() == TEMPLATE / name
    assert call("--help", cwd=DEMO, script="./run.sh").returncode == 0


@pytest.fixture
def recipe(tmp_path):
    """A finished recipe whose Python writes down what it is asked to do."""
    for name in ("star.sh", "path.sh", "parse_options.sh", "stages"):
        (tmp_path / name).symlink_to(TEMPLATE / name)
    for name in ("asr_student", "asr_logmel", "sid_student", "sid_student_channel"):
        (tmp_path / "exp" / name).mkdir(parents=True)
        (tmp_path / "exp" / name / "config.yaml").touch()
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "RESULTS.md").touch()
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nprintf "%s|" "$@" >> calls; echo >> calls\n')
    python.chmod(0o755)

    def run(*options):
        options = [*NAMED, "--python", "./python", "--channel_seed", "0", *options]
        done = call(*options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        calls = tmp_path / "calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        calls.unlink(missing_ok=True)
        return [line.split("|")[2:-1] for line in lines]

    return run


def test_report_of_every_head_with_layers(recipe):
    """Fails if a head is left out of the report, or one is named that does not exist."""
    heads = ["exp/asr_student", "exp/sid_student", "exp/sid_student_channel"]
    results = ["--results", "results/results.json", "--outdir", "results/report"]
    expected = ["star_report", "exp/train_star", "--heads", *heads, *results, "--force", "true"]
    assert recipe("--stage", "15", "--stop_stage", "15") == [expected]


def test_packs_without_an_upload(recipe):
    """Fails if a model is not packed, or something is sent that nobody asked to send."""
    calls = recipe("--stage", "16", "--description", "two words")
    packed = [(words[1], words[words.index("--outpath") + 1]) for words in calls]
    assert [words[0] for words in calls] == ["star_pack"] * 3
    names = [("ssl", "student"), ("asr", "asr"), ("cls", "sid")]
    assert packed == [(task, f"exp/packs/{name}.zip") for task, name in names]
    for words in calls:
        assert words[words.index("--description") + 1] == "two words"
        assert words[words.index("--results") + 1] == "results/RESULTS.md"
    assert "--inference_args=--ctc_weight 1.0 --beam_size 1" in calls[1]


@pytest.mark.parametrize("dry", ["true", "false"])
def test_uploads(recipe, dry):
    """Fails if a dry run sends, or models go to one another's repository."""
    skip = ["--upload_dry_run", "true"] if dry == "true" else ["--skip_upload", "false"]
    calls = recipe("--stage", "17", "--hf_repo", "me/m", "--license", "mit", *skip)
    pairs = [("student", "me/m"), ("asr", "me/m_asr"), ("sid", "me/m_sid")]
    assert calls == [
        ["star_upload", "--pack", f"exp/packs/{name}.zip", "--hf_repo", repo, "--dry_run", dry]
        for name, repo in pairs
    ]


def test_skipped_stages(recipe):
    assert recipe("--stage", "15", "--skip_report", "true", "--skip_packing", "true") == []
