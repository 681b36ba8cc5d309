"""Speaker stages of the recipes: a bug here asks ESPnet for something else, days later."""

import os
import subprocess
from pathlib import Path

import pytest

TEMPLATE = Path(__file__).resolve().parents[2] / "egs2" / "TEMPLATE" / "star1"
RECIPE = TEMPLATE.parents[1] / "voxceleb" / "star1"
LINKS = ("star.sh", "path.sh", "parse_options.sh")


def call(*options, cwd, script="./run.sh"):
    env = {key: value for key, value in os.environ.items() if not key.startswith("VOXCELEB1")}
    command = [script, *map(str, options)]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def recipe(tmp_path):
    """The recipe with prepared sets and a Python that writes down what it is asked to do."""
    for name in (*LINKS, "conf", "run.sh"):
        (tmp_path / name).symlink_to(RECIPE / name)
    for name in ("sv_train", "sv_valid", "sv_test", "sid_train"):
        (tmp_path / "dump" / "raw" / name).mkdir(parents=True)
    (tmp_path / "dump" / "raw" / "sv_train" / "spk2utt").write_text("a u1\nb u2\nc u3\n")
    (tmp_path / "python").write_text(
        "#!/bin/sh\n"
        'printf "%s|" "$@" >> calls; echo >> calls\n'
        'case "$*" in *--jobs*) cat "$5" >> jobs ;; esac\n'
    )
    (tmp_path / "python").chmod(0o755)
    (tmp_path / "local").mkdir()
    data = tmp_path / "local" / "data.sh"
    data.write_text('#!/bin/sh\necho "$VOXCELEB1|$VOXCELEB1_LISTS|$*" > data_call\n')
    data.chmod(0o755)

    def run(*options, code=0):
        for name in ("calls", "jobs"):
            (tmp_path / name).unlink(missing_ok=True)
        done = call("--student", "ready", "--python", "./python", *options, cwd=tmp_path)
        assert done.returncode == code, done.stderr
        if code:
            return done.stderr
        read = {
            name: (tmp_path / name).read_text().splitlines() if (tmp_path / name).exists() else []
            for name in ("calls", "jobs")
        }
        jobs = [line.split("\t")[-1].split() for line in read["jobs"]]
        return [line.split("|")[2:-1] for line in read["calls"]], jobs

    run.folder = tmp_path
    return run


def values(words, option):
    return [words[place + 1] for place, word in enumerate(words) if word == option]


def test_the_recipe_links_to_the_template():
    for name in LINKS:
        assert (RECIPE / name).resolve() == TEMPLATE / name
    assert os.access(RECIPE / "run.sh", os.X_OK)
    assert os.access(RECIPE / "local" / "data.sh", os.X_OK)
    assert "speaker verification" in call("--help", cwd=RECIPE).stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--student DIR_OR_HUB_NAME is required"),
        (["--student", "x", "--distill", "true"], "not both"),
        (["--distill", "maybe"], "--distill must be true or false"),
        (["--student"], "--student needs a value"),
    ],
)
def test_wrong_calls(options, message):
    done = call(*options, cwd=RECIPE)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_data_gets_paths_with_spaces(recipe):
    recipe("--stop_stage", "1", "--voxceleb1", "/my corpora/v", "--lists", "/my lists")
    assert (recipe.folder / "data_call").read_text() == "/my corpora/v|/my lists|\n"
    recipe("--stop_stage", "1", "--data_opts", "--valid_speakers 40")
    assert (recipe.folder / "data_call").read_text() == "||--valid_speakers 40\n"


def test_a_ready_student_is_not_distilled(recipe):
    """Fails if audio is prepared for a distillation, or the student is trained all the same."""
    calls, _ = recipe("--stop_stage", "6")
    (prepared,) = [words for words in calls if words[:2] == ["star_data", "prepare"]]
    sid, sv = ([f"{task}_{part}" for part in ("train", "valid", "test")] for task in ("sid", "sv"))
    assert prepared[prepared.index("--sets") + 1 :] == [*sid, *sv]
    assert values(prepared, "--max_duration") == ["150"]
    assert values(prepared, "--whole") == ["sid_test"]
    exports = [words for words in calls if words[:2] == ["star_export", "transformers"]]
    assert [values(words, "--upstream") for words in exports] == [["ready"]]
    assert values(exports[0], "--random_init") == ["true"]
    assert not any("star_train" in words for words in calls)


def test_checks_before_hours_are_spent(recipe):
    """Fails if dropped test utterances or absent trials are found after the training."""
    calls, _ = recipe("--stage", "3", "--stop_stage", "3")
    checked = [
        values(words, "--data_dir") for words in calls if words[:2] == ["star_data", "check"]
    ]
    names = ("sid_train", "sid_valid", "sid_test", "sv_train")
    assert checked == [[f"dump/raw/{name}"] for name in names]
    trials = [words for words in calls if words[:2] == ["star_data", "trials"]]
    assert [values(words, "--trials")[0] for words in trials] == [
        "data/sv_valid/trials",
        "data/sv_test/vox1_o_cleaned",
        "data/sv_test/vox1_o",
    ]
    assert [values(words, "--dry_run") for words in trials] == [[], ["true"], ["true"]]


def test_distilling_here(recipe):
    """Fails if a student of one's own is not trained on the sets without test speakers."""
    done = call(
        *("--distill", "true", "--python", "./python", "--stage", "5", "--stop_stage", "5"),
        cwd=recipe.folder,
    )
    assert done.returncode == 0, done.stderr
    words = (recipe.folder / "calls").read_text().split("|")
    assert "star_train" in words
    assert "dump/raw/distill_train/wav.scp,speech,sound" in words
    assert "dump/raw/distill_valid/wav.scp,speech,sound" in words


def test_verification_is_trained_on_every_system(recipe):
    """Fails if speakers, pairs or states are not those of the recipe."""
    calls, jobs = recipe("--stage", "12", "--stop_stage", "12", "--systems", "student logmel")
    assert values(calls[0], "--trials") == ["data/sv_valid/trials"]
    raw = recipe.folder / "dump" / "raw" / "sv_train"
    assert (raw / "category2utt").read_text() == (raw / "spk2utt").read_text()
    assert [words[3] for words in jobs] == ["spk_train"] * 2
    student, logmel = jobs
    assert values(student, "--output_dir") == ["exp/sv_student"]
    assert values(student, "--config") == ["conf/train_sv.yaml"]
    assert values(student, "--spk_num") == ["3"]
    assert values(student, "--frontend_conf") == ["upstream=ready", "normalize=false"]
    assert values(student, "--train_data_path_and_name_and_type") == [
        "dump/raw/sv_train/wav.scp\\,speech\\,sound",
        "dump/raw/sv_train/utt2spk\\,spk_labels\\,text",
    ]
    assert values(student, "--valid_data_path_and_name_and_type") == [
        "dump/raw/sv_valid/trial_label\\,spk_labels\\,text",
        "dump/raw/sv_valid/trial.scp\\,speech\\,sound",
        "dump/raw/sv_valid/trial2.scp\\,speech2\\,sound",
    ]
    assert values(student, "--valid_shape_file") == ["dump/raw/sv_valid/trial_shape"]
    assert "--init_param" not in student
    assert "--multiprocessing_distributed" not in student
    assert values(logmel, "--frontend") == ["default"]


@pytest.mark.parametrize(
    ("config", "tag"), [("conf/train_sv_ecapa.yaml", "ecapa_"), ("elsewhere/mine.yaml", "mine_")]
)
def test_each_configuration_has_a_folder(recipe, config, tag):
    """Fails if a second configuration overwrites the models of the first."""
    options = ["--stage", "12", "--stop_stage", "12", "--systems", "student", "--ngpu", "2"]
    _, jobs = recipe(*options, "--sv_config", config)
    assert values(jobs[0], "--output_dir") == [f"exp/sv_{tag}student"]
    assert values(jobs[0], "--multiprocessing_distributed") == ["true"]


def test_every_list_is_scored(recipe):
    """Fails if embeddings or scores are of another set, model or list."""
    calls, jobs = recipe("--stage", "13", "--stop_stage", "13", "--systems", "student")
    assert jobs[0][3] == "spk_inference"
    assert values(jobs[0], "--model_file") == ["exp/sv_student/valid.eer.best.pth"]
    assert values(jobs[0], "--output_dir") == ["exp/sv_student/sv_test"]
    assert values(jobs[0], "--ngpu") == ["1"]
    assert calls[1:] == [
        [
            *("star_score", "sv", "--ref", f"data/sv_test/{name}"),
            *("--hyp", "exp/sv_student/sv_test/embed.scp"),
            *("--output", f"exp/sv_student/score{end}.json"),
        ]
        for name, end in (("vox1_o_cleaned", ""), ("vox1_o", "_vox1_o"))
    ]


def test_results_name_the_first_list_plainly(recipe):
    """Fails if the table lacks the error rate, or mixes the lists."""
    exp = recipe.folder / "exp" / "sv_student"
    exp.mkdir(parents=True)
    for name in ("score", "score_vox1_o"):
        (exp / f"{name}.json").touch()
    (recipe.folder / "results").mkdir()
    (recipe.folder / "results" / "RESULTS.md").touch()
    (recipe.folder / "results" / "results.json").touch()
    calls, _ = recipe("--stage", "14", "--stop_stage", "14", "--systems", "student")
    add = next(words for words in calls if words[:2] == ["star_score", "add"])
    scores = [f"exp/sv_student/{name}.json" for name in ("score", "score_vox1_o")]
    assert add[add.index("--scores") + 1 :][-2:] == scores
    assert values(add, "--upstream") == ["ready"]


def test_packs_of_the_heads_on_a_ready_student(recipe):
    """Fails if a student that was not made here is packed, or the speaker model is left out."""
    for name in ("sid_student", "sv_student"):
        (recipe.folder / "exp" / name).mkdir(parents=True)
        (recipe.folder / "exp" / name / "config.yaml").touch()
    calls, _ = recipe("--stage", "16", "--stop_stage", "16")
    assert [(words[2], values(words, "--output")[0]) for words in calls] == [
        ("cls", "exp/packs/sid.zip"),
        ("spk", "exp/packs/sv.zip"),
    ]
    assert values(calls[1], "--model_file") == ["valid.eer.best.pth"]


def test_a_ready_student_beside_its_teacher_needs_the_teacher(recipe):
    options = ["--train_set", "a", "--valid_set", "b"]
    done = call(
        *options, "--student", "ready", "--systems", "student teacher",
        cwd=recipe.folder, script="./star.sh",
    )  # fmt: skip
    assert done.returncode == 2
    assert "--teacher is required to compare with" in done.stderr
