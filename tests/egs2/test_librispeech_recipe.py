"""run.sh of the LibriSpeech recipes: what it asks star.sh for, and star.sh the tools."""

import json
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

EGS = Path(__file__).resolve().parents[2] / "egs2"
RECIPES = ("librispeech", "librispeech_100")
# Writes down its words; of a file of jobs the jobs themselves.
PYTHON = """#!/bin/sh
printf '%s|' "$@" >> calls; echo >> calls
while [ $# -gt 0 ]; do [ "$1" = --jobs ] && cat "$2" >> jobs; shift; done
"""


@pytest.fixture
def recipe(tmp_path):
    """Links to both recipes beside one another, and what a run of one of them called."""
    for name in RECIPES:
        (tmp_path / name / "star1").mkdir(parents=True)
        for path in (EGS / name / "star1").iterdir():
            if path.name not in {"data", "dump", "downloads", "exp", "results"}:
                (tmp_path / name / "star1" / path.name).symlink_to(path)
        python = tmp_path / name / "star1" / "python"
        python.write_text(PYTHON)
        python.chmod(0o755)

    def run(*options, name="librispeech", code=0):
        folder = tmp_path / name / "star1"
        command = ["./run.sh", "--python", "./python", *options]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        run.folder, run.output, run.error = folder, done.stdout, done.stderr
        found = []
        for file, split in (("calls", lambda line: line.split("|")[:-1]), ("jobs", job)):
            path = folder / file
            found.append(
                [split(line) for line in path.read_text().splitlines()] if path.exists() else []
            )
            path.unlink(missing_ok=True)
        return found

    return run


def job(line):
    name, log, _, command = line.split("\t")
    return name, Path(log).stem, shlex.split(command)[3:]


def value(words, option):
    assert words.count(option) == 1, (option, words)
    return words[words.index(option) + 1]


def last(words, option):
    """What argparse takes of an option that is given twice."""
    return words[len(words) - words[::-1].index(option)]


def tool(calls, *names):
    return [words[2:] for words in calls if words[2 : 2 + len(names)] == [*names]]


@pytest.mark.parametrize("name", RECIPES)
def test_help_shows_options_of_both_scripts(recipe, name):
    recipe("--help", name=name)
    for text in ("starhubert_l", "librispeech=", "accum_grad=1", "--asr_model", "--lm_args"):
        assert text in recipe.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "starhubret"], "unknown --model starhubret; choose from starhubert "),
        (["--accum_grad", "0"], "--accum_grad must be a positive integer"),
        (["--accum_grad", "two"], "--accum_grad must be a positive integer"),
        (["--model"], "--model needs a value"),
        (["--forec", "true"], "unknown option --forec"),
        (["--force", "maybe"], "--force must be true or false"),
    ],
)
def test_a_wrong_call_is_one_line_and_nothing_is_run(recipe, options, message):
    assert recipe(*options, code=2) == [[], []]
    assert message in recipe.error and len(recipe.error.splitlines()) == 1


@pytest.mark.parametrize("model", ["starhubert", "starhubert_xs", "starwavlm", "starwav2vec2"])
@pytest.mark.parametrize("name", RECIPES)
def test_the_teacher_is_that_of_the_configuration(recipe, name, model):
    """Fails if run.sh and the YAML name different teachers, or two models share a folder."""
    calls, _ = recipe("--model", model, "--stage", "5", "--stop_stage", "5", name=name)
    (words,) = tool(calls, "star_run")
    config = value(words, "--config")
    assert config == f"conf/train_{model}.yaml"
    content = yaml.safe_load((recipe.folder / config).read_text())
    assert value(words, "--teacher") == content["teacher"]
    assert value(words, "--output_dir") == f"exp/{model}/train_{model}"
    assert value(words, "--ngpu") == "4"


@pytest.mark.parametrize(("name", "bins"), zip(RECIPES, (9_440_000, 9_740_000), strict=True))
def test_accumulation_keeps_48_utterances_and_the_updates(recipe, name, bins):
    options = ["--ngpu", "1", "--accum_grad", "4", "--distill_args", "--use_amp true"]
    calls, _ = recipe(*options, "--stage", "5", "--stop_stage", "5", name=name)
    (words,) = tool(calls, "star_run")
    assert value(words, "--accum_grad") == "4"
    assert int(value(words, "--batch_bins")) * 4 == bins
    assert value(words, "--num_iters_per_epoch") == "4000"
    assert value(words, "--use_amp") == "true"


def test_only_what_is_used_is_fetched(recipe):
    calls, _ = recipe("--stop_stage", "1", "--librispeech", "/c/LibriSpeech")
    words = calls[0]
    assert words[0] == "local/prepare_librispeech.py"
    sets = words[words.index("--sets") + 1 : words.index("--lm")]
    asr = ["train_clean_100", "dev_clean", "test_clean", "test_other", "dev_clean", "dev_other"]
    assert sets == ["train_960", "dev", *asr]
    assert value(words, "--librispeech") == "/c/LibriSpeech" and value(words, "--lm") == "false"
    options = ["--skip_asr", "true", "--lm", "true", "--local_data_opts", "--allow_fewer true"]
    calls, _ = recipe("--stop_stage", "1", *options, name="librispeech_100")
    words = ["--sets", "train_100", "dev", "--lm", "true", "--allow_fewer", "true"]
    assert calls[0][1:] == words


def test_no_utterance_of_a_test_set_is_dropped(recipe):
    calls, _ = recipe("--stage", "2", "--stop_stage", "3")
    (prepared,) = tool(calls, "star_data", "prepare")
    assert value(prepared, "--max_duration") == "36" and value(prepared, "--max_hours") == "dev=1"
    sets = prepared[prepared.index("--sets") + 1 :]
    assert {"train_960", "dev", "test_clean", "test_other", "dev_other"} <= set(sets)
    checked = [value(words, "--data_dir") for words in tool(calls, "star_data", "check")]
    assert {"dump/raw/test_clean", "dump/raw/test_other", "dump/raw/dev_other"} <= set(checked)


def test_heads_are_trained_as_configured(recipe):
    """Fails if a head gets another's tokens or frontend, or GPUs share it by DataParallel."""
    calls, jobs = recipe("--stage", "7", "--stop_stage", "8")
    tokens = {
        value(words, "--output_dir"): value(words, "--token_type")
        for words in tool(calls, "star_data", "tokens")
    }
    assert tokens == {"exp/starhubert/tokens_char": "char", "exp/starhubert/tokens_bpe": "bpe"}
    assert [name for name, _, _ in jobs] == ["asr_teacher", "asr_student", "asr_finetuned"]
    upstream = "upstream=exp/starhubert/train_starhubert/student"
    for name, log, words in jobs:
        assert words[0] == "asr_train" and log == "train"
        assert value(words, "--output_dir") == f"exp/starhubert/{name}"
        assert value(words, "--multiprocessing_distributed") == "true"
        assert "dump/raw/dev_clean/text,text,text" in words
    frozen, tuned = jobs[1][2], jobs[2][2]
    assert value(frozen, "--config") == "conf/train_asr.yaml"
    assert (
        value(frozen, "--frontend") == "star" and upstream in frozen and "normalize=false" in frozen
    )
    assert "--bpemodel" not in frozen
    assert last(tuned, "--config") == "conf/train_asr_finetune.yaml" and "--frontend" not in tuned
    assert value(tuned, "--encoder_conf") == upstream
    assert last(tuned, "--token_type") == "bpe"
    assert value(tuned, "--bpemodel") == "exp/starhubert/tokens_bpe/bpe.model"


def test_every_set_is_decoded_by_every_head(recipe):
    """Fails if a set is decoded into another's folder, or BPE through words of characters."""
    calls, jobs = recipe("--stage", "10", "--stop_stage", "10", "--lm", "true")
    assert len({log for _, log, _ in jobs}) == 8 and len(jobs) == 20
    by_name = {name: words for name, _, words in jobs}
    plain, search = by_name["asr_student_test_other"], by_name["asr_student_lm_test_other"]
    assert plain[0] == search[0] == "star_lm_decode"
    folder = "exp/starhubert/asr_student"
    assert value(plain, "--asr_model_file") == f"{folder}/valid.cer_ctc.best.pth"
    assert value(plain, "--output_dir") == f"{folder}/test_other" and "--lm_file" not in plain
    assert value(search, "--output_dir") == f"{folder}/test_other_lm"
    assert value(search, "--lm_file") == "downloads/lm/4-gram.arpa.gz"
    assert value(search, "--lexicon") == "downloads/lm/librispeech-vocab.txt"
    tuned = by_name["asr_finetuned_dev_other"]
    assert last(tuned, "--asr_model_file").endswith("asr_finetuned/valid.cer_ctc.ave.pth")
    assert not [name for name in by_name if name.startswith("asr_finetuned_lm")]
    scored = {
        value(words, "--hyp"): value(words, "--output") for words in tool(calls, "star_score")
    }
    assert len(scored) == 20
    hypothesis = f"{folder}/test_other_lm/1best_recog/text"
    assert scored[hypothesis] == f"{folder}/score_lm_test_other.json"


def test_results_and_packs_have_the_fine_tuned_student(recipe):
    recipe("--stage", "18")
    for head in ("train_starhubert", "asr_teacher", "asr_student", "asr_finetuned"):
        folder = recipe.folder / "exp" / "starhubert" / head
        folder.mkdir(parents=True)
        (folder / "config.yaml").touch()
        for name in ("score_test_clean", "score_test_other"):
            (folder / f"{name}.json").write_text(json.dumps({"wer": 0.1, "cer": 0.05}))
    (recipe.folder / "results" / "starhubert").mkdir(parents=True)
    (recipe.folder / "results" / "starhubert" / "RESULTS.md").touch()
    (recipe.folder / "results" / "starhubert" / "results.json").touch()
    calls, _ = recipe("--stage", "14", "--stop_stage", "16")
    added = [words for words in tool(calls, "star_score") if words[1] == "add"]
    assert [value(words, "--system") for words in added] == [
        "teacher",
        "student",
        "student, fine-tuned",
    ]
    scores = added[2][added[2].index("--scores") + 1 :]
    folder = "exp/starhubert/asr_finetuned"
    assert scores[:2] == [f"{folder}/score_test_clean.json", f"{folder}/score_test_other.json"]
    packs = {value(words, "--output"): words for words in tool(calls, "star_export", "pack")}
    assert {Path(path).stem for path in packs} == {"student", "asr", "asr_finetuned"}
    tuned = packs["exp/starhubert/packs/asr_finetuned.zip"]
    assert value(tuned, "--model_file") == "valid.cer_ctc.ave.pth"
    assert value(packs["exp/starhubert/packs/asr.zip"], "--model_file") == "valid.cer_ctc.best.pth"
