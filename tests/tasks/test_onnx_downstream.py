"""ESPnet's inference with an ONNX file for the student; a bug would score another encoder."""

import shutil

import pytest
import torch
import yaml
from espnet_tools import cls_inference, cls_train
from star_runs import pairs, training


@pytest.fixture(scope="module")
def trained(onnx_files, data_directory, tmp_path_factory):
    """A speaker classifier on a student, the student's ONNX files, and no student any more."""
    directory = tmp_path_factory.mktemp("sid")
    shutil.copytree(onnx_files / "student", directory / "student")
    for name in ("model.onnx", "model.int8.onnx"):
        shutil.copy(onnx_files / "files" / name, directory / name)
    options = training(data_directory, directory / "exp", "--max_epoch", "1")
    options += ["--token_list", f"{data_directory}/labels", "--optim_conf", "lr=0.05"]
    for part in ("train", "valid"):
        options += [f"--{part}_data_path_and_name_and_type", f"{data_directory}/label,label,text"]
    options += ["--frontend", "star", "--frontend_conf", f"upstream={directory}/student"]
    options += ["--encoder", "linear", *pairs("--encoder_conf", ["output_size=8"])]
    cls_train.main([*options, "--frontend_conf", "normalize=true"])
    shutil.rmtree(directory / "student")
    return directory


def with_onnx(directory, onnx="model.onnx"):
    """``config.yaml`` of the training, changed as the manual says."""
    config = yaml.safe_load((directory / "exp" / "config.yaml").read_text())
    config["frontend_conf"] |= {"upstream": str(directory / onnx), "freeze_updates": None}
    path = directory / f"{onnx}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def scores(data, config, model, out):
    options = ["--output_dir", str(out), "--ngpu", "0", "--num_workers", "0"]
    options += ["--classification_train_config", str(config), "--output_all_probabilities", "true"]
    options += ["--data_path_and_name_and_type", f"{data}/wav.scp,speech,sound"]
    cls_inference.main([*options, "--classification_model_file", str(model)])
    return (out / "prediction" / "score").read_text().splitlines()


def test_the_same_head_hears_the_file(trained, data_directory, tmp_path):
    """Fails if the file named is not what is heard, or head or layer weights are lost."""
    model = trained / "exp" / "1epoch.pth"
    plain = scores(data_directory, trained / "exp" / "config.yaml", model, tmp_path / "a")
    found = scores(data_directory, with_onnx(trained), model, tmp_path / "b")
    rough = scores(data_directory, with_onnx(trained, "model.int8.onnx"), model, tmp_path / "c")
    assert len(plain) == len(found) == 8
    assert found != rough
    for one, other in zip(plain, found, strict=True):
        assert one.split()[0] == other.split()[0]
        a, b = (torch.tensor([float(x) for x in line.split()[1:]]) for line in (one, other))
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_a_file_of_another_student(trained, data_directory, tmp_path, capsys):
    """Fails if a head of other layers is told in a traceback, or not at all."""
    state = torch.load(trained / "exp" / "1epoch.pth", weights_only=True)
    state["frontend.layer_weights"] = torch.zeros(9)
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(SystemExit) as stop:
        scores(data_directory, with_onnx(trained), tmp_path / "other.pth", tmp_path / "out")
    assert stop.value.code == 2
    assert "have other shapes, e.g. frontend.layer_weights [9], not" in capsys.readouterr().err
