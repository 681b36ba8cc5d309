"""ESPnet's inference with an ONNX file for the student; a bug would score another encoder."""

import shutil

import pytest
import torch
import yaml
from star_runs import pairs, training

from espnet_star.bin import cls_inference, cls_train, star_onnx_swap


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


def swap(directory, out, onnx="model.onnx", config="exp/config.yaml", model="exp/1epoch.pth"):
    options = ["--config", f"{directory / config}", "--model_file", f"{directory / model}"]
    star_onnx_swap.main([*options, "--onnx", f"{directory / onnx}", "--outdir", str(out)])


def scores(data, config, model, out):
    options = ["--output_dir", str(out), "--ngpu", "0", "--num_workers", "0"]
    options += ["--classification_train_config", str(config), "--output_all_probabilities", "true"]
    options += ["--data_path_and_name_and_type", f"{data}/wav.scp,speech,sound"]
    cls_inference.main([*options, "--classification_model_file", str(model)])
    return (out / "prediction" / "score").read_text().splitlines()


def test_the_same_head_hears_the_file(trained, data_directory, tmp_path):
    """Fails if head or layer weights are lost, or the file is not what is heard."""
    swap(trained, tmp_path / "swapped")
    state = torch.load(tmp_path / "swapped" / "model.pth", weights_only=True)
    before = torch.load(trained / "exp" / "1epoch.pth", weights_only=True)
    assert set(before) - set(state) == {k for k in before if k.startswith("frontend.upstream.")}
    assert set(before) > set(state)
    plain = scores(
        data_directory, trained / "exp/config.yaml", trained / "exp/1epoch.pth", tmp_path / "a"
    )
    swapped = tmp_path / "swapped"
    found = scores(data_directory, swapped / "config.yaml", swapped / "model.pth", tmp_path / "b")
    assert len(plain) == len(found) == 8
    for one, other in zip(plain, found, strict=True):
        assert one.split()[0] == other.split()[0]
        a, b = (torch.tensor([float(x) for x in line.split()[1:]]) for line in (one, other))
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"onnx": "absent.onnx"}, "absent.onnx is not a file"),
        ({"config": "absent.yaml"}, "absent.yaml cannot be read"),
        ({"config": "other.yaml"}, "must come from a training with --frontend star"),
        ({"config": "teacher.yaml"}, "has no student_conf"),
        ({"config": "wide.yaml"}, "width 99, but"),
        ({"model": "cut.pth"}, "cut.pth is not a complete model file"),
    ],
)
def test_what_does_not_fit_together(trained, tmp_path, capsys, options, message):
    """Fails if a mismatch is written down and found out at decoding, or never."""
    config = yaml.safe_load((trained / "exp" / "config.yaml").read_text())
    (trained / "other.yaml").write_text("frontend: default\n")
    teacher = config | {"frontend_conf": {"upstream": "teacher", "kind": "auto"}}
    (trained / "teacher.yaml").write_text(yaml.safe_dump(teacher))
    config["frontend_conf"]["student_conf"]["hidden_size"] = 99
    (trained / "wide.yaml").write_text(yaml.safe_dump(config))
    (trained / "cut.pth").write_bytes((trained / "exp" / "1epoch.pth").read_bytes()[:999])
    with pytest.raises(SystemExit) as stop:
        swap(trained, tmp_path / "out", **options)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten_unasked(trained, tmp_path, capsys):
    swap(trained, tmp_path)
    with pytest.raises(SystemExit):
        swap(trained, tmp_path, onnx="model.int8.onnx")
    assert "already holds config.yaml; give --force true" in capsys.readouterr().err
    assert "int8" not in (tmp_path / "config.yaml").read_text()
