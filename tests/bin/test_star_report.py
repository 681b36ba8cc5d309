"""Would break: a report that hides a run still going, overwrites another, dies of a teacher or
a valid set that has been moved, or fails with a traceback.
"""

import json
import shutil
import sys

import pytest
import torch
import yaml
from html_pages import Reader

from espnet_star.bin.star_report import main
from espnet_star.evaluate.report import build


@pytest.fixture
def report(quick_costs, tmp_path, capsys):
    """Run the command; gives its exit code, output, errors and the page."""

    def call(*options, out="out"):
        code = 0
        quick = ["--layers", "2", "--cka_utterances", "3", "--utterances", "1"]
        try:
            main([*quick, "--expdir", *map(str, options), "--output_dir", str(tmp_path / out)])
        except SystemExit as stop:
            code = stop.code
        printed = capsys.readouterr()
        page = tmp_path / out / "index.html"
        text = Reader(page.read_text()).words() if page.exists() else ""
        return code, printed.out, printed.err, text

    return call


def edit(experiment, **changes):
    path = experiment / "config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))


def test_two_experiments_results_and_heads(report, run, experiment, head, tmp_path):
    results = tmp_path / "results.json"
    system = {"key": "student", "system": "student", "params": 4e6, "metrics": {"sid_acc": 0.452}}
    machine = {"date": "2026-01-01", "cpu": "a CPU"}
    results.write_text(json.dumps({"systems": [system], "machine": machine}))
    other = experiment.rename(experiment.parent / "second")
    code, out, err, text = report(run, other, "--results", results, "--heads", head)
    assert code == 0 and "error" not in err
    assert "star: Finished: 2 of 2 epochs; last log entry" in text
    assert "Teacher and student: second" in text and "45.2" in text
    assert "Layer weights, sid" in text
    drawn = {path.name for path in (tmp_path / "out" / "figures").iterdir()}
    assert {"curve_1.png", "gram_1_1.png", "gram_2_1.png", "cka_2_undistilled.png"} <= drawn
    assert f"{len(drawn)} figures" in out


def test_a_run_that_is_still_going(report, experiment):
    edit(experiment, max_epoch=5)
    code, out, _, text = report(experiment)
    assert code == 0
    # The log says that an earlier run of two epochs has come to its end, and two have ended.
    assert "Finished: 2 of 5 epochs, stopped early" in text
    log = experiment / "train.log"
    log.write_text(log.read_text().replace("The training was finished", "Killed"))
    code, out, _, text = report(experiment, out="other")
    assert code == 0
    assert "star: Not finished: 2 of 5 epochs have ended; last log entry 20" in text
    assert "min before this page was made" in text and "Not finished" in out


def test_no_epoch_has_finished(report, experiment):
    for path in experiment.glob("*.pth"):
        path.unlink()
    code, _, err, text = report(experiment)
    assert code == 2 and "no epoch has finished yet" in err and not text


def test_a_moved_teacher_becomes_a_note(report, experiment, teacher_directory, tmp_path):
    edit(experiment, teacher=str(tmp_path / "gone"))
    code, out, _, text = report(experiment)
    assert code == 0
    assert f"not compared: teacher '{tmp_path}/gone'" in text and "--teacher" in text
    assert "Linear CKA, teacher" not in text and "Loss" in text and "not compared" in out
    code, _, _, text = report(experiment, "--teacher", teacher_directory, out="again")
    assert code == 0 and "Linear CKA, teacher" in text
    code, _, err, text = report(experiment, "--teacher", tmp_path / "wrong", out="third")
    assert code == 2 and "wrong" in err and not text


def test_a_moved_valid_set_becomes_a_note(report, experiment, data_directory, tmp_path):
    edit(experiment, valid_data_path_and_name_and_type=[[f"{tmp_path}/wav.scp", "speech", "sound"]])
    code, _, _, text = report(experiment)
    assert code == 0 and f"{tmp_path}/wav.scp is not there" in text
    code, _, _, text = report(experiment, "--data_dir", data_directory, out="again")
    assert code == 0 and f"Utterances of {data_directory}/wav.scp" in text
    code, _, err, text = report(experiment, "--data_dir", tmp_path / "nowhere", out="third")
    assert code == 2 and "nowhere: no such file" in err and not text


def test_audio_that_cannot_be_read(report, run, data_directory, tmp_path):
    data = shutil.copytree(data_directory, tmp_path / "data")
    (data / "bad.wav").write_bytes(b"RIFF")
    lines = (data / "wav.scp").read_text().splitlines()
    lines[0] = f"{lines[0].split()[0]} {data}/bad.wav"
    (data / "wav.scp").write_text("\n".join(lines) + "\n")
    code, _, _, text = report(run, "--data_dir", data, "--cka_utterances", "8")
    assert code == 0 and f"Utterances left out: {lines[0].split()[0]}" in text
    assert "Over 7 utterances" in text
    (data / "wav.scp").write_text(lines[0] + "\n")
    code, _, err, _ = report(run, "--data_dir", data, out="other")
    assert code == 2 and "can be used" in err and lines[0].split()[0] in err


def test_nothing_is_overwritten_unasked(report, run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "index.html").write_text("<p>mine</p>")
    code, _, err, text = report(run)
    assert code == 2 and "--force true" in err and text == "mine"
    code, _, _, text = report(run, "--force", "true")
    assert code == 0 and "Distillation report" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layers", "3"], "--layers 3: the student has layers 1 to 2"),
        (["--results", "none.json"], "none.json: cannot be read"),
        (["--heads", "none"], "--heads none: no config.yaml"),
    ],
)
def test_mistakes_are_found_before_the_work(report, run, monkeypatch, options, message):
    monkeypatch.setattr(build, "listen", lambda *_: pytest.fail("too late"))
    code, _, err, text = report(run, *options)
    assert code == 2 and message in err and err.count("\n") == 1 and not text


def test_results_of_another_form(report, run, tmp_path):
    (tmp_path / "results.json").write_text('{"systems": [{"system": "a"}]}')
    code, _, err, _ = report(run, "--results", tmp_path / "results.json")
    assert code == 2 and "star_score table --output FILE.json" in err


def test_missing_packages_name_the_extra(report, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err, _ = report(run)
    assert code == 2 and "pip install espnet_star[recipes]" in err


def test_a_broken_student(report, experiment):
    for path in experiment.glob("*.pth"):
        if not path.is_symlink() and path.name[0].isdigit():
            state = torch.load(path, weights_only=True)
            key = "encoder.encoder.layer_norm.bias"
            state[key] = torch.full_like(state[key], torch.nan)
            torch.save(state, path)
    code, _, err, text = report(experiment)
    assert code == 2 and "NaN or infinite" in err and not text
