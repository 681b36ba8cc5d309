"""What ESPnet3 leaves is an experiment like ESPnet2's to every tool that reads one."""

import pytest
import torch
from espnet3_runs import weights

import espnet_star
from espnet_star.evaluate.report.experiment import read_experiment
from espnet_star.formats.training_facts import training_facts
from espnet_star.students import StarEncoder
from espnet_star.students.experiment import load_experiment


def test_the_exported_student_is_the_average(plain):
    """Fails if export took the last epoch, or ran before the average was up to date."""
    exported = StarEncoder.from_pretrained(plain / "student").state_dict()
    average = weights(plain / "valid.loss.ave.pth")
    assert {f"encoder.{key}" for key in exported} == set(average)
    for key, value in exported.items():
        torch.testing.assert_close(value, average[f"encoder.{key}"])
    last = load_experiment(plain, "last.ckpt").state_dict()
    assert any(not torch.equal(value, exported[key]) for key, value in last.items())


def test_the_folder_itself_can_be_loaded(plain, make_speech):
    wave = torch.from_numpy(make_speech(1, 8000))
    one, other = (
        espnet_star.load(path)(wave, sampling_rate=16000) for path in (plain, plain / "student")
    )
    torch.testing.assert_close(one.last, other.last)


def test_facts_of_the_training_are_those_of_espnet3(plain, data_directory):
    """Fails if the model card told ESPnet2's defaults, or knew no data."""
    facts = training_facts(plain)
    assert facts.train_sets == (data_directory.name,) and facts.utterances == 8
    assert facts.options["optim"] == "adamw" and facts.options["max_epoch"] == 2
    assert facts.options["scheduler_conf"]["warmup_steps"] == 2
    card = (plain / "student" / "README.md").read_text()
    assert "adamw" in card and "adadelta" not in card


def test_curves_come_from_lightning_events(plain):
    """Fails if steps were shifted, sections mixed, or the stop between the epochs lost."""
    found = read_experiment(plain, "plain")
    assert found.finished and found.epochs == 2
    curves = found.curves
    assert curves.terms() == ["loss", "layerwise", "intralayer"]
    assert curves.train["loss"].steps == [1, 2, 3, 4] and curves.valid["loss"].steps == [2, 4]
    sums = zip(curves.valid["layerwise"].values, curves.valid["intralayer"].values, strict=True)
    assert curves.valid["loss"].values == pytest.approx([sum(pair) for pair in sums])
    rates = curves.rates()
    assert list(rates) == ["optim0_lr0"] and rates["optim0_lr0"].values[2] == pytest.approx(1e-3)
