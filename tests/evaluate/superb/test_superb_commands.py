"""Commands and configurations for s3prl; a bug here trains the wrong thing for days."""

import ast
import shlex
from pathlib import Path

import pytest
import torch
import transformers

from espnet_star.evaluate.superb.tasks import TASKS

PROBLEMS = {name for name, task in TASKS.items() if task.problem}


def options(run):
    """Options of s3prl.main, read as s3prl/util/override.py does: pairs, values evaluated."""
    python, module, problem = run.command[0], run.command[1:3], run.command[3]
    assert (python, module) == ("/envs/s3prl/bin/python", ("-m", "s3prl.main"))
    rest = run.command[4:]
    return problem, {key[2:]: value for key, value in zip(rest[::2], rest[1::2], strict=True)}


@pytest.mark.parametrize("task", sorted(PROBLEMS))
def test_every_task_is_s3prls_class_on_its_corpora(task, make, superb_world):
    builder = make()
    run = builder.runs(task)[0]
    problem, given = options(run)
    assert problem == TASKS[task].problem
    assert given["config"] == str(run.folder / "s3prl.yaml")
    assert given["target_dir"] == str(run.folder) and run.folder.parent == builder.outdir / task
    data = {key: str(superb_world[2][corpus]) for key, corpus in TASKS[task].data.items()}
    fold = {"test_fold": 0} if task == "er" else {}
    assert run.config["prepare_data"] == data | fold
    assert run.config["build_upstream"] == {
        "name": "hf_hubert_custom",
        "path_or_url": str(builder.upstream.directory),
    }
    settings = builder.settings.tasks[task]
    assert run.config["build_optimizer"] == {"conf": {"lr": settings.lr}}
    assert run.config["train"]["total_steps"] == settings.steps
    assert run.config["device"] == "cpu"


@pytest.mark.parametrize("task", sorted(PROBLEMS))
def test_s3prl_knows_every_key_that_is_set(task, make):
    """Fails if s3prl renames a class or a key of its configuration, which it would not report."""
    problem = pytest.importorskip("s3prl.problem", reason="pip install espnet_star[s3prl]")
    known = getattr(problem, TASKS[task].problem)().default_config()
    run = make().runs(task)[0]
    # Arguments of run() that the default configuration leaves out.
    added = {"device", "num_workers", "cache_dir"}
    assert set(run.config) - added <= set(known)
    assert set(TASKS[task].data) <= set(known["prepare_data"])
    assert known["build_optimizer"]["conf"]["lr"] in (
        run.config["build_optimizer"]["conf"]["lr"],
        1e-4,
    )
    assert known["train"]["total_steps"] == run.config["train"]["total_steps"]


def test_the_schedule_is_s3prls_linear_one_with_warmup(make):
    """Fails if the rate differs from transformers' schedule, which s3prl's first runner uses."""
    settings = {"lr": 1e-3, "steps": 50, "warmup_steps": 7}
    run = make(tasks={"sid": settings}).runs("sid")[0]
    _, given = options(run)
    # In the file it is null, so that the command line makes it anew.
    assert run.config["build_scheduler"] is None and run.config["train"]["use_scheduler"]
    schedule = ast.literal_eval(given["build_scheduler"])

    def rates(build):
        optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
        scheduler, found = build(optimizer), []
        for _ in range(50):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return found

    ours = rates(
        lambda o: getattr(torch.optim.lr_scheduler, schedule["name"])(o, **schedule["conf"])
    )
    theirs = rates(lambda o: transformers.get_linear_schedule_with_warmup(o, 7, 50))
    assert ours == pytest.approx(theirs, abs=1e-11)
    assert max(ours) == pytest.approx(1e-3)


def test_a_constant_rate_leaves_the_scheduler_alone(make):
    run = make().runs("sd")[0]
    assert "build_scheduler" not in options(run)[1]
    assert "use_scheduler" not in run.config["train"] and "build_scheduler" not in run.config


def test_overrides_win_and_stay_in_their_task(make):
    over = {"train": {"eval_step": 3, "seed": 9}, "device": "cuda:5", "eval_batch": 2}
    builder = make(tasks={"sid": {"overrides": over}})
    config = builder.runs("sid")[0].config
    assert config["train"] == {
        "total_steps": 200000,
        "seed": 9,
        "use_scheduler": True,
        "eval_step": 3,
    }
    assert config["device"] == "cuda:5" and config["eval_batch"] == 2
    assert "eval_batch" not in builder.runs("asr")[0].config


def test_seeds_and_folds_are_runs_of_their_own(make):
    builder = make(seeds=[3, 4], tasks={"er": {"folds": [1, 2]}})
    runs = builder.runs("er")
    assert [run.facts for run in runs] == [
        {"seed": seed, "fold": fold} for seed in (3, 4) for fold in (1, 2)
    ]
    assert len({run.folder for run in runs}) == len({run.digest() for run in runs}) == 4
    for run in runs:
        assert run.config["train"]["seed"] == run.facts["seed"]
        assert run.config["prepare_data"]["test_fold"] == run.facts["fold"]


def test_the_digest_follows_settings_and_not_places(make, tmp_path):
    """Fails if moving the corpora would ask for a new training, or a new rate would not."""
    digest = make().runs("sid")[0].digest()
    moved = make(source={"voxceleb1": str(tmp_path)}, num_workers=1, outdir=Path("/elsewhere"))
    assert moved.runs("sid")[0].digest() == digest
    assert make(tasks={"sid": {"lr": 2e-3}}).runs("sid")[0].digest() != digest
    other = make(tasks={"sid": {"overrides": {"train": {"eval_step": 1}}}})
    assert other.runs("sid")[0].digest() != digest
    assert make(seeds=[1]).runs("sid")[0].digest() != digest
    assert make(tasks={"sid": {"warmup_steps": None}}).runs("sid")[0].digest() != digest


def test_query_by_example_goes_over_all_layers(make, superb_world):
    builder = make()
    runs = builder.runs("qbe")
    # The first layer's input and the output of both layers.
    assert [run.facts for run in runs] == [{"layer": i, "split": "dev"} for i in range(3)]
    shell, flag, text = runs[2].command
    extract, move, score = [shlex.split(part) for part in text.split(" && ")]
    assert (shell, flag) == ("bash", "-ec")
    given = dict(zip(extract[3::2], extract[4::2], strict=True))
    assert extract[1:3] == ["-m", "s3prl.run_downstream"]
    assert given["-m"] == "evaluate" and given["-t"] == "dev" and given["-l"] == "2"
    assert given["-u"] == "hf_hubert_custom" and given["-k"] == str(builder.upstream.directory)
    assert given["-d"] == "quesst14_dtw" and given["--device"] == "cpu"
    assert given["-c"] == str(runs[2].folder / "s3prl.yaml")
    assert move == ["cd", str(superb_world[2]["quesst14"] / "scoring")]
    folder = str(runs[2].folder)
    assert score == ["./score-TWV-Cnxe.sh", folder, "groundtruth_quesst14_dev", "-10"]
    expert = runs[2].config["downstream_expert"]
    assert expert["dtwrc"]["dist_method"] == "cosine_exp" and expert["feature_normalization"]
    assert "groundtruth_quesst14_eval" in builder.query_run("qbe", 1, "test").command[2]


def test_query_by_example_takes_layers_and_distances(make):
    builder = make(tasks={"qbe": {"layers": [2], "dist_method": "cosine_neg_log"}})
    (run,) = builder.runs("qbe")
    expert = run.config["downstream_expert"]
    # s3prl's expert refuses normalized features with this distance.
    assert run.facts["layer"] == 2 and not expert["feature_normalization"]
