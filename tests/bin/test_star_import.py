import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from transformers import HubertModel

import espnet_star
from espnet_star.bin.star_import.authors import main
from espnet_star.formats.fairseq.layout import fairseq_name
from espnet_star.students import StarEncoder, hugging_face

BLOCK = {
    "encoder_layers": 2,
    "encoder_embed_dim": 16,
    "encoder_ffn_embed_dim": 24,
    "encoder_attention_heads": 2,
    "conv_feature_layers": (
        "[(8, 10, 5)] + [(8, 1, 1)] + [(8, 3, 2)] * 4 + [(8, 1, 1)] + [(8, 2, 2)] + [(16, 2, 2)]"
    ),
    "conv_pos": 8,
    "conv_pos_groups": 2,
}


@pytest.fixture
def released(tiny_student, tmp_path):
    """A pair of files as the authors release them, holding the tiny student."""
    state = {
        f"student_model.{fairseq_name(name, 'group')}": value
        for name, value in tiny_student.state_dict().items()
    }
    state["teacher_model.model.mask_emb"] = torch.zeros(4)
    torch.save({"state_dict": state, "epoch": 1}, tmp_path / "last.ckpt")
    (tmp_path / "last.yaml").write_text(yaml.safe_dump({"distiller": BLOCK}))
    return ["--ckpt", str(tmp_path / "last.ckpt"), "--yaml", str(tmp_path / "last.yaml")]


@pytest.fixture
def call(capsys):
    def run(*options):
        status = 0
        try:
            main([str(option) for option in options])
        except SystemExit as stop:
            status = stop.code
        return status, capsys.readouterr()

    return run


def same(student, directory):
    found = StarEncoder.from_pretrained(directory).state_dict()
    return all(torch.equal(found[name], value) for name, value in student.state_dict().items())


def test_the_authors_files_become_a_directory(call, reference, tmp_path):
    """Fails if the written directory gives other features than the authors' model."""
    values = np.load(reference("starhubert_tiny.npz"))
    files = [
        "--ckpt",
        reference("starhubert_tiny.ckpt"),
        "--yaml",
        reference("starhubert_tiny.yaml"),
    ]
    status, captured = call(*files, "--output_dir", tmp_path / "student")
    assert status == 0, captured.err
    assert "3 layers of width 48; transformers.HubertModel agrees to" in captured.out
    plain = HubertModel.from_pretrained(tmp_path / "student").eval()
    with torch.no_grad():
        states = plain(torch.from_numpy(values["wave1"])[None], output_hidden_states=True)
    expected = torch.from_numpy(values["hidden1"])
    torch.testing.assert_close(torch.cat(states.hidden_states), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "heads", "told"),
    [
        ("distilhubert_tiny", "none", "transformers.HubertModel agrees to"),
        ("fithubert_tiny", "last", "espnet_star reads it (prediction heads: no HubertModel)"),
        ("armhubert_tiny", "none", "espnet_star reads it (layers that reuse an attention map"),
        ("maskhubert_tiny", "none", "transformers.HubertModel agrees to"),
    ],
)
def test_other_authors_files(name, heads, told, call, reference, tmp_path):
    """Fails if what is written is read back as another student, or a part is lost unsaid."""
    values = np.load(reference(f"{name}.npz"))
    files = ["--ckpt", reference(f"{name}.ckpt"), "--heads", heads]
    if not name.startswith("distil"):
        files += ["--yaml", reference(f"{name}.yaml")]
    status, captured = call(*files, "--output_dir", tmp_path / "student")
    assert status == 0, captured.err
    assert told in captured.out and "left out: " in captured.out
    features = espnet_star.load(tmp_path / "student")(values["wave1"])
    key = "hidden1" if heads == "none" else "superb_x1"
    expected = torch.from_numpy(values[key])
    found = features.hidden_states[-1] if heads == "last" else torch.cat(features.hidden_states[1:])
    torch.testing.assert_close(found, expected.view(found.shape), atol=1e-5, rtol=0)


def test_weights_arrive_and_the_rest_is_told(call, released, tiny_student, tmp_path):
    out = tmp_path / "deep" / "student"
    status, captured = call(*released, "--output_dir", out)
    assert status == 0, captured.err
    assert same(tiny_student, out)
    assert "left out: teacher_model (1 tensor), not part of the encoder" in captured.out
    names = {path.name for path in out.iterdir()}
    assert names == {"config.json", "model.safetensors", "preprocessor_config.json"}
    modes = {path.stat().st_mode for path in out.iterdir()}
    assert len(modes) == 1, "the weights must be as readable as the rest"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocessor_config.json"])
def test_nothing_is_overwritten_without_force(name, call, released, tiny_student, tmp_path):
    out = tmp_path / "student"
    out.mkdir()
    (out / name).write_text("precious")
    status, captured = call(*released, "--output_dir", out)
    assert status == 2
    assert f"{out} already holds {name}; give --force true to replace it" in captured.err
    assert [path.read_text() for path in out.iterdir()] == ["precious"]
    status, captured = call(*released, "--output_dir", out, "--force", "true")
    assert status == 0, captured.err
    assert same(tiny_student, out)


def test_a_failed_check_leaves_the_old_student(call, released, tiny_student, tmp_path, monkeypatch):
    """Fails if a directory is replaced before what replaces it has been read back."""
    out = tmp_path / "student"
    tiny_student.save_pretrained(out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    monkeypatch.setattr(hugging_face, "TOLERANCE", -1.0)
    status, captured = call(*released, "--output_dir", out, "--force", "true")
    assert status == 2
    assert "gives other features in transformers" in captured.err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_weight_that_comes_back_changed_is_an_error(tiny_student, tmp_path):
    """Fails if the check after saving could pass whatever was written."""
    tiny_student.save_pretrained(tmp_path)
    with torch.no_grad():
        tiny_student.encoder.layer_norm.bias += 1e-3
    with pytest.raises(ValueError, match=r"encoder\.layer_norm\.bias was not read back"):
        hugging_face.check_saved(tiny_student, tmp_path)


def test_targets_that_would_not_work(call, released, tmp_path):
    (tmp_path / "config.yaml").write_text("")
    status, captured = call(*released, "--output_dir", tmp_path)
    assert status == 2
    assert "would be read as a distillation experiment" in captured.err
    status, captured = call(*released, "--output_dir", tmp_path / "last.yaml")
    assert status == 2
    assert "is a file; --output_dir must name a directory" in captured.err
    status, captured = call(*released, "--output_dir", tmp_path / "last.yaml" / "student")
    assert status == 2
    assert "cannot be written" in captured.err


def test_a_mistake_in_the_files_writes_nothing(call, released, tmp_path):
    (tmp_path / "last.yaml").write_text(
        yaml.safe_dump({"distiller": BLOCK | {"encoder_layers": 3}})
    )
    status, captured = call(*released, "--output_dir", tmp_path / "student")
    assert status == 2
    assert "star_import authors: error: " in captured.err
    assert "missing encoder.layers.2.fc1.bias" in captured.err
    assert not (tmp_path / "student").exists()


def test_module_runs_through_the_dispatcher(released, tiny_student, tmp_path):
    command = [sys.executable, "-m", "espnet_star", "star_import", "authors", *released]
    out = tmp_path / "student"
    subprocess.run([*command, "--output_dir", str(out)], check=True, capture_output=True)
    assert same(tiny_student, out)
