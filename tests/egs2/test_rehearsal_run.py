"""What rehearses a recipe: teachers, the check of what is left, the times."""

import json
import subprocess
import zipfile
from pathlib import Path

import check_outputs
import make_teachers
import pytest
import torch
import yaml
from stage_times import Step, steps, table

from espnet_star.students import StarEncoder
from espnet_star.teachers import build_teacher

REHEARSE = Path(__file__).parents[1] / "recipes" / "rehearse.sh"


@pytest.mark.parametrize("family", make_teachers.FAMILIES)
def test_teachers_load_as_published_ones_do(family, tmp_path):
    """Fails if a miniature teacher is no checkpoint of its family, or gives other frames."""
    folder = make_teachers.make(family, tmp_path)
    assert json.loads((folder / "config.json").read_text())["model_type"] == family
    assert (folder / "preprocessor_config.json").is_file()
    found = build_teacher(str(folder)).encode(torch.randn(2, 8000), torch.tensor([8000, 4000]))
    assert found.lengths.tolist() == [24, 12]
    assert len(found.hidden_states) == 3 and found.hidden_states[0].shape == (2, 24, 48)
    again = make_teachers.make(family, tmp_path / "again")
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


@pytest.fixture
def finished(tmp_path):
    """What a finished recipe leaves."""
    exp, results = tmp_path / "exp" / "m", tmp_path / "results"
    small = {"hidden_size": 48, "intermediate_size": 8, "num_hidden_layers": 1}
    student = StarEncoder(preset="demo", conv_dim=[8] * 6 + [48] * 3, **small)
    (exp / "train_star").mkdir(parents=True)
    student.save_pretrained(exp / "train_star" / "student")
    for name in ("train.log", ".train.done"):
        (exp / "train_star" / name).touch()
    (results / "report").mkdir(parents=True)
    page = f"<html>{'x' * check_outputs.PAGE_BYTES}</html>"
    (results / "report" / "index.html").write_text(page)
    (results / "RESULTS.md").write_text("| system |\n")
    system = {"key": "student", "system": "student", "params": 1, "metrics": {"wer": 1.0}}
    merged = {"machine": {"date": "x"}, "systems": [system]}
    (results / "results.json").write_text(json.dumps(merged))
    (exp / "packs").mkdir()
    with zipfile.ZipFile(exp / "packs" / "student.zip", "w") as pack:
        pack.writestr("meta.yaml", yaml.safe_dump({"yaml_files": {"c": "c.yaml"}, "files": {}}))
        pack.writestr("c.yaml", "a: 1\n")
    return tmp_path


def check(folder, *options):
    command = ["--expdir", str(folder / "exp"), "--results", str(folder / "results")]
    return check_outputs.main([*command, "--expect", "student.wer", *options])


def test_a_finished_recipe_is_in_order(finished, capsys):
    assert check(finished) == 0, capsys.readouterr().out


def _nan_student(folder):
    from safetensors.torch import load_file, save_file

    path = folder / "exp" / "m" / "train_star" / "student" / "model.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if name.endswith("output_dense.bias"))
    weights[name] = torch.full_like(weights[name], torch.nan)
    save_file(weights, path, metadata={"format": "pt"})


def _infinite_score(folder):
    (folder / "exp" / "m" / "score.json").write_text('{"wer": Infinity}')


SPOILED = {
    "has no eer": lambda f: None,
    "no table": lambda f: (f / "results" / "RESULTS.md").unlink(),
    "cannot be read": lambda f: (f / "results" / "results.json").unlink(),
    "no report": lambda f: (f / "results" / "report" / "index.html").unlink(),
    "no whole page": lambda f: (f / "results" / "report" / "index.html").write_text("<html>"),
    "no pack student.zip": lambda f: (f / "exp" / "m" / "packs" / "student.zip").unlink(),
    "File is not a zip file": lambda f: (f / "exp" / "m" / "packs" / "student.zip").write_text(
        "PK"
    ),
    "not finite": _nan_student,
    "has not ended": lambda f: (f / "exp" / "m" / "train_star" / ".train.done").unlink(),
    "score.json: wer is inf": _infinite_score,
}


@pytest.mark.parametrize("message", SPOILED)
def test_what_is_missing_is_said(finished, message, capsys):
    """Fails if a rehearsal that has left half of its outputs passes."""
    SPOILED[message](finished)
    assert check(finished, *(["student.eer"] if message == "has no eer" else [])) == 1
    assert message in capsys.readouterr().out


def test_times_of_stages():
    """Fails if a stage that was stopped, or the time between two calls, is counted."""
    log = """=== --stop_stage 5
23:59:50 Stage 4: teacher
23:59:58 Stage 5: distillation
distillation: epoch 1/4
=== --stage 5
00:00:58 Stage 5: distillation
00:01:03 Finished in 5 s: results""".splitlines()
    found = steps(log)
    assert found == [
        Step("Stage 4: teacher", 8, "--stop_stage 5"),
        Step("Stage 5: distillation", 5, "--stage 5"),
    ]
    assert [line.split()[0] for line in table(found).splitlines()] == [
        *("--stop_stage", "8", "--stage", "5", "13")
    ]


@pytest.mark.parametrize("recipe", ["librispeech", "librispeech_100", "voxceleb"])
def test_recipes_can_be_rehearsed(recipe):
    """Fails if a recipe lacks what rehearse.sh looks for."""
    told = (REHEARSE.with_name(f"{recipe}.sh")).read_text()
    assert "make_corpus()" in told and "options=(" in told and "expect" in told


@pytest.mark.parametrize("given", [[], ["nobody"], ["--ngpu", "2"]])
def test_what_cannot_be_rehearsed_is_told_so(given):
    done = subprocess.run([REHEARSE, *given], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "is no recipe with a rehearsal" in done.stderr
