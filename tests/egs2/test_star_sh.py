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
        ([*NAMED, "--ngpu", "two"], "--ngpu must be a number"),
        ([*NAMED, "--stop_stage", "chekc"], "--stop_stage must be a number"),
        ([], "--train_set and --valid_set are required"),
        (["--train-set", "a", "--valid-set", "b"], "--teacher is required"),
        ([*NAMED, "--systems", "student studnet"], "unknown system 'studnet'"),
        ([*NAMED, "--num_nodes", "2"], "--num_nodes 2 needs --train_cmd"),
        ([*NAMED, "--train_shards", "s3://b/one"], "two training sets"),
        ([*NAMED, "--launcher", "mpirun"], "unknown launcher 'mpirun'"),
        ([*NAMED, "--skip_upload", "false"], "--hf_repo is required"),
        ([*NAMED, "--lm_file", "4-gram.arpa"], "give --token_type char"),
        ([*NAMED, "--lm_file", "a", "--token_type", "char"], "--lm_file needs --lexicon"),
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
    for name in ("asr_student", "asr_logmel", "sid_student", "sid_logmel"):
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
    calls = recipe("--stage", "16", "--description", "two words")
    packed = [(words[2], words[words.index("--output") + 1]) for words in calls]
    assert [words[:2] for words in calls] == [["star_export", "pack"]] * 3
    names = [("ssl", "student"), ("asr", "asr"), ("cls", "sid")]
    assert packed == [(task, f"exp/packs/{name}.zip") for task, name in names]
    for words in calls:
        assert words[words.index("--description") + 1] == "two words"
        assert words[words.index("--results") + 1] == "results/results.json"
    assert "--inference_args=--ctc_weight 1.0 --beam_size 1" in calls[1]


@pytest.mark.parametrize("dry", ["true", "false"])
def test_uploads(recipe, dry):
    """Fails if a dry run sends, or models go to one another's repository."""
    skip = ["--upload_dry_run", "true"] if dry == "true" else ["--skip_upload", "false"]
    calls = recipe("--stage", "17", "--hf_repo", "me/m", "--license", "mit", *skip)
    pairs = [("student", "me/m"), ("asr", "me/m_asr"), ("sid", "me/m_sid")]
    assert calls == [
        [
            "star_export",
            "upload",
            "--pack",
            f"exp/packs/{name}.zip",
            "--hf_repo",
            repo,
            "--dry_run",
            dry,
        ]
        for name, repo in pairs
    ]


def test_skipped_stages(recipe):
    assert recipe("--stage", "15", "--skip_report", "true", "--skip_packing", "true") == []


def distillation(recipe, *options):
    """The command of stage 5, after star_run's own options."""
    (words,) = recipe("--stage", "5", "--stop_stage", "5", "--feature_cache", "cache", *options)
    return words[words.index("--") + 1 :]


COMMON = ["--config", "conf/train_star.yaml", "--teacher", "c", "--output_dir", "exp/train_star"]


TORCHRUN = "./python -m torch.distributed.run"
OURS = "-m espnet_star star_train"
OUTSIDE = "--multiprocessing_distributed false"


@pytest.mark.parametrize(
    ("options", "start"),
    [
        ("", f"./python {OURS} --ngpu 0"),
        ("--ngpu 4", f"./python {OURS} --ngpu 4 --multiprocessing_distributed true"),
        (
            "--cpu_ranks 2",
            f"{TORCHRUN} --nnodes 1 --nproc_per_node 2 --standalone "
            f"{OURS} {OUTSIDE} --ngpu 0 --dist_backend gloo",
        ),
        (
            "--ngpu 8 --num_nodes 2 --launcher torchrun --launcher_opts --rdzv_endpoint=n1:29500",
            f"{TORCHRUN} --nnodes 2 --nproc_per_node 8 --rdzv_endpoint=n1:29500 "
            f"{OURS} {OUTSIDE} --ngpu 1",
        ),
        (
            "--ngpu 8 --num_nodes 2 --launcher slurm",
            f"srun --nodes 2 --ntasks-per-node 8 --kill-on-bad-exit=1 ./python {OURS} "
            f"--dist_launcher slurm --dist_master_port 20000 {OUTSIDE} --ngpu 1",
        ),
        (
            "--ngpu 8 --num_nodes 2 --train_cmd slurm.pl",
            "./python -m espnet2.bin.launch --cmd slurm.pl --ngpu 8 --num_nodes 2 "
            "--log exp/train_star/node.log --init_file_prefix exp/train_star/.dist_init_ "
            f"--multiprocessing_distributed true -- ./python {OURS}",
        ),
    ],
)
def test_how_the_processes_are_started(recipe, monkeypatch, options, start):
    """Fails if GPUs stay idle, or a launcher of CPU processes asks for NCCL."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    words, start = distillation(recipe, *options.split()), start.split()
    assert words[: len(start)] == start
    assert words[len(start) : len(start) + len(COMMON)] == COMMON


def test_shards_instead_of_lists(recipe):
    """Fails if shards are made and not read, or read and not made."""
    made = recipe("--stage", "2", "--stop_stage", "3", "--shards", "true")
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
    assert ["star_data", "check", "--data_dir", "dump/shards/a", "--histogram", "false"] in made
    words = distillation(recipe, "--shards", "true")
    assert words[words.index("--train_shards") + 1] == "dump/shards/a"
    assert "--train_shape_file" not in words and "--valid_shape_file" in words


def test_shards_from_elsewhere(recipe):
    words = distillation(recipe, "--train_set", "", "--train_shards", "s3://b/one s3://b/two")
    at = words.index("--train_shards")
    assert words[at + 1 : at + 3] == ["s3://b/one", "s3://b/two"]


def test_check_starts_nothing(recipe):
    """Fails if a check trains, or forgets the limits of the preparation."""
    (words,) = recipe("--stage", "2", "--stop_stage", "check", "--ngpu", "4")
    assert words[:4] == ["star_plan", "--train", "data/a", "dump/raw/a"]
    before, after = words[: words.index("--")], words[words.index("--") + 1 :]
    assert before[before.index("--ranks") + 1] == "4"
    assert before[before.index("--max_duration") + 1] == "30"
    assert after[:2] == ["--ngpu", "4"] and after[2 : 2 + len(COMMON)] == COMMON


def test_one_test_set_keeps_its_names(recipe, tmp_path):
    """Fails if the demo's score files, and with them its table, get other names."""
    (tmp_path / "exp" / "asr_student" / "score.json").touch()
    sets = ["--asr_train", "tr", "--asr_valid", "va", "--asr_test", "te", "--systems", "student"]
    calls = recipe("--stage", "9", "--stop_stage", "14", *sets)
    path = "exp/asr_student/score.json"
    assert ["--output", path] == calls[1][-2:] and calls[1][:2] == ["star_score", "asr"]
    add = next(words for words in calls if words[:2] == ["star_score", "add"])
    assert add[add.index("--metric") + 1 :] == [f"wer={path}#wer", f"cer={path}#cer"]
