"""The recipe script's manners: help, misspelled options, and what must be given."""

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
    for option in ("Stage 5: ", "--stage 1 ", "--ngpu 0 ", "--students train_star", "--teacher"):
        assert option in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trainset", "x"], "unknown option --trainset"),
        (["--force", "maybe"], "--force must be true or false"),
        (["--stage"], "--stage needs a value"),
        (["positional"], "options begin with --"),
        ([*NAMED, "--ngpu", "two"], "--ngpu must be a number"),
        ([*NAMED, "--stop_stage", "chekc"], "--stop_stage must be a number"),
        ([], "--train_set and --valid_set are required"),
        (["--train-set", "a", "--valid-set", "b"], "--teacher is required"),
        ([*NAMED, "--systems", "student studnet"], "unknown system 'studnet'"),
        ([*NAMED, "--launcher", "mpirun -n 2"], "unknown launcher 'mpirun'"),
        ([*NAMED, "--lm_args", "--lm_file 4-gram.arpa"], "give --token_type char"),
        ([*NAMED, "--hf_repo", "me/m"], "say under which license"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(options, message):
    done = call(*options)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_missing_language_model_is_told_before_the_heads_are_trained(recipe):
    """Fails if hours of training end at a decoding whose language model is not there."""
    words = ["--token_type", "char", "--lm_args", "--lm_file 4-gram.arpa --lm_weight 2"]
    with pytest.raises(AssertionError, match=r"--lm_args --lm_file 4-gram\.arpa: no such file"):
        recipe("--stage", "3", "--stop_stage", "3", *words)


def test_the_demo_links_to_the_template():
    for name in ("star.sh", "path.sh", "parse_options.sh"):
        assert (DEMO / name).resolve() == TEMPLATE / name
    assert call("--help", cwd=DEMO, script="./run.sh").returncode == 0


@pytest.fixture
def recipe(tmp_path):
    """A finished recipe whose Python writes down what it is asked to do."""
    for name in ("star.sh", "path.sh", "parse_options.sh"):
        (tmp_path / name).symlink_to(TEMPLATE / name)
    for name in ("train_star", "asr_student", "asr_logmel", "sid_student", "sid_logmel"):
        (tmp_path / "exp" / name).mkdir(parents=True)
        (tmp_path / "exp" / name / "config.yaml").touch()
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "RESULTS.md").touch()
    (tmp_path / "results" / "results.json").touch()
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nprintf "%s|" "$@" >> calls; echo >> calls\n')
    python.chmod(0o755)

    def run(*options):
        options = [*NAMED, "--python", "./python", *options]
        done = call(*options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        calls = tmp_path / "calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        calls.unlink(missing_ok=True)
        return [line.split("|")[2:-1] for line in lines]

    return run


def test_report_of_every_head_with_layers(recipe):
    """Fails if a head is left out of the report, or one is named that does not exist."""
    heads = ["exp/asr_student", "exp/sid_student"]
    results = ["--results", "results/results.json", "--output_dir", "results/report"]
    expected = [
        "star_report",
        "--expdir",
        "exp/train_star",
        "--heads",
        *heads,
        *results,
        "--force",
        "true",
    ]
    assert recipe("--stage", "15", "--stop_stage", "15") == [expected]


def test_packs_without_an_upload(recipe):
    """Fails if a model is not packed, or something is sent that nobody asked to send."""
    calls = recipe("--stage", "16", "--pack_args", "--license mit --description two words")
    packed = [(words[2], words[words.index("--output") + 1]) for words in calls]
    assert [words[:2] for words in calls] == [["star_export", "pack"]] * 3
    names = [("ssl", "student"), ("asr", "asr"), ("cls", "sid")]
    assert packed == [(task, f"exp/packs/{name}.zip") for task, name in names]
    for words in calls:
        assert words[words.index("--description") + 1 :] == ["two", "words"]
        assert words[words.index("--results") + 1] == "results/results.json"
    assert "--inference_args=--ctc_weight 1.0 --beam_size 1" in calls[1]


def test_uploads(recipe, tmp_path):
    """Fails if a dry run sends, or models go to one another's repository."""
    pairs = {"asr": "me/m_asr", "sid": "me/m_sid", "student": "me/m"}
    (tmp_path / "exp" / "packs").mkdir()
    for name in pairs:
        (tmp_path / "exp" / "packs" / f"{name}.zip").touch()
    dry = ["--upload_args", "--dry_run true"]
    assert recipe("--stage", "17", "--hf_repo", "me/m", *dry) == [
        [
            "star_export",
            "upload",
            "--pack",
            f"exp/packs/{name}.zip",
            "--hf_repo",
            repo,
            "--dry_run",
            "true",
        ]
        for name, repo in pairs.items()
    ]


def distillation(recipe, *options):
    """The command of stage 5, after star_run's own options."""
    (words,) = recipe("--stage", "5", "--stop_stage", "5", *options)
    return words[words.index("--") + 1 :]


COMMON = ["--config", "conf/train_star.yaml", "--teacher", "c", "--output_dir", "exp/train_star"]


def test_how_many_processes(recipe):
    """Fails if the plan is made for other processes than are started."""
    options = ["--ngpu", "4", "--num_nodes", "2", "--launcher", "torchrun --rdzv_endpoint n1:29500"]
    plan, run = recipe("--stage", "4", "--stop_stage", "5", *options)
    assert plan[plan.index("--ranks") + 1] == "8"
    assert run[: run.index("--")][-8:] == [
        *("--launcher", "torchrun --rdzv_endpoint n1:29500"),
        *("--num_nodes", "2", "--ngpu", "4", "--cpu_ranks", "1"),
    ]
    words = run[run.index("--") + 1 :]
    start = ["./python", "-m", "espnet_star", "star_train"]
    assert words[: len(start) + len(COMMON)] == [*start, *COMMON]


def test_several_students(recipe, tmp_path):
    """Fails if one student takes another's folder, or has no row of its own in the table."""
    sets = ["--sid_sets", "tr va te", "--students", "small tiny_student"]
    systems = ["--systems", "teacher student undistilled"]
    for name in ("small", "tiny_student"):
        (tmp_path / "exp" / name).mkdir()
        (tmp_path / "exp" / name / "config.yaml").touch()
    calls = recipe("--stage", "4", "--stop_stage", "6", *sets, *systems)
    assert [words[0] for words in calls] == [
        *["star_plan"] * 2,
        *["star_run"] * 2,
        *["star_export"] * 4,
    ]
    for words, name in zip(calls[2:4], ("small", "tiny_student"), strict=True):
        assert words[words.index("--config") + 1] == f"conf/{name}.yaml"
        assert words[words.index("--output_dir") + 1] == f"exp/{name}"
    calls = recipe("--stage", "14", "--stop_stage", "16", *sets, *systems)
    added = {
        words[words.index("--system") + 1]: words[words.index("--upstream") + 1]
        for words in calls
        if words[:2] == ["star_score", "add"]
    }
    assert added == {
        "teacher": "c",
        "small": "exp/small/student",
        "tiny_student": "exp/tiny_student/student",
        "small_undistilled": "exp/small/undistilled",
        "tiny_student_undistilled": "exp/tiny_student/undistilled",
    }
    (report,) = [words for words in calls if words[0] == "star_report"]
    assert report[1:4] == ["--expdir", "exp/small", "exp/tiny_student"]
    packs = [
        words[words.index("--output") + 1]
        for words in calls
        if words[:2] == ["star_export", "pack"]
    ]
    assert packs == ["exp/packs/small.zip", "exp/packs/tiny_student.zip"]


def test_shards_instead_of_lists(recipe):
    """Fails if shards are made and not read, or read and not made."""
    shards = ["--train_shards", "dump/shards/a"]
    made = recipe("--stage", "2", "--stop_stage", "3", *shards)
    sharded = [
        "star_data",
        "shards",
        "--data_dir",
        "dump/raw/a",
        "--output_dir",
        "dump/shards/a",
        "--nj",
        "2",
    ]
    assert sharded in made
    assert ["star_data", "check", "--histogram", "false", "--data_dir", "dump/shards/a"] in made
    words = distillation(recipe, *shards)
    assert words[words.index("--train_shards") + 1] == "dump/shards/a"
    assert "--train_shape_file" not in words and "--valid_shape_file" in words


def test_shards_from_elsewhere(recipe):
    words = distillation(recipe, "--train_set", "", "--train_shards", "s3://b/one s3://b/two")
    at = words.index("--train_shards")
    assert words[at + 1 : at + 3] == ["s3://b/one", "s3://b/two"]


def test_check_starts_nothing(recipe):
    """Fails if a check trains, or forgets the limits of the preparation."""
    limits = ["--prepare_args", "--max_duration 20 --max_hours a=3"]
    (words,) = recipe("--stage", "2", "--stop_stage", "check", "--ngpu", "4", *limits)
    assert words[:4] == ["star_plan", "--train", "data/a", "dump/raw/a"]
    before, after = words[: words.index("--")], words[words.index("--") + 1 :]
    assert before[before.index("--ranks") + 1] == "4"
    assert before[before.index("--max_duration") + 1] == "20"
    assert before[before.index("--max_hours") + 1] == "a=3"
    assert after[:2] == ["--ngpu", "4"] and after[2 : 2 + len(COMMON)] == COMMON


def test_one_test_set_keeps_its_names(recipe, tmp_path):
    """Fails if the demo's score files, and with them its table, get other names."""
    (tmp_path / "exp" / "asr_student" / "score.json").touch()
    sets = ["--asr_sets", "tr va te", "--systems", "student"]
    calls = recipe("--stage", "9", "--stop_stage", "14", *sets)
    path = "exp/asr_student/score.json"
    assert ["--output", path] == calls[1][-2:] and calls[1][:2] == ["star_score", "asr"]
    add = next(words for words in calls if words[:2] == ["star_score", "add"])
    assert path in add[add.index("--scores") + 1 :]
