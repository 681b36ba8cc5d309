"""Fails if `espnet_star.load` gives other features than the student, or mixes utterances up."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
import yaml

import espnet_star
from espnet_star.errors import StarError
from espnet_star.inference import Speech2Features
from espnet_star.students import StarEncoder
from espnet_star.teachers import build_teacher

LENGTHS = [3000, 8000, 400, 5520, 16000]


@pytest.fixture
def directory(tiny_student, tmp_path):
    tiny_student.save_pretrained(tmp_path / "student")
    return tmp_path / "student"


@pytest.fixture
def encode(directory):
    return espnet_star.load(directory)


@pytest.fixture(scope="module")
def waves(make_speech):
    return [make_speech(index, samples) for index, samples in enumerate(LENGTHS)]


@pytest.fixture
def files(waves, tmp_path):
    """The same in files of 16 bit, and what a reader finds in them."""
    paths = [tmp_path / f"{index}.wav" for index in range(len(waves))]
    for path, wave in zip(paths, waves, strict=True):
        soundfile.write(path, wave, 16000)
    return paths, [soundfile.read(path, dtype="float32")[0] for path in paths]


@torch.no_grad()
def expected(student, wave):
    """Hidden states ``(N, D)`` of one waveform, from the student itself."""
    speech = torch.as_tensor(wave)[None]
    states = student.encode(speech, torch.tensor([len(wave)])).hidden_states
    return [state[0] for state in states]


def assert_same(features, student, waves):
    assert len(features.lengths) == len(waves)
    for index, wave in enumerate(waves):
        states = expected(student, wave)
        found = features.utterance(index)
        assert len(found) == len(states)
        for one, other in zip(found, states, strict=True):
            torch.testing.assert_close(one, other, atol=2e-5, rtol=0)


def test_one_waveform(encode, tiny_student, waves):
    features = encode(waves[0])
    assert features.lengths.tolist() == [9]
    assert features.last.shape == (1, 9, 16)
    assert features.last is features.hidden_states[-1]
    assert_same(features, tiny_student, waves[:1])
    torch.testing.assert_close(encode(torch.from_numpy(waves[0])).last, features.last)


@pytest.mark.parametrize("batch_seconds", [None, 0.1, 0.7, 1.0])
def test_many_in_any_batches_are_each_as_alone(encode, tiny_student, waves, batch_seconds):
    """Fails if sorting into batches changes the order, or padding reaches a feature."""
    features = encode(waves, batch_seconds=batch_seconds)
    assert features.lengths.tolist() == [9, 24, 1, 17, 49]
    assert_same(features, tiny_student, waves)
    for state in features.hidden_states:
        assert not state[0, 9:].any()


def test_batches_stay_below_the_limit(encode, waves, monkeypatch):
    """Fails if `batch_seconds` does not bound memory."""
    sizes = []
    plain = encode.encoder.encode

    def watch(speech, lengths):
        sizes.append(tuple(speech.shape))
        return plain(speech, lengths)

    monkeypatch.setattr(encode.encoder, "encode", watch)
    encode(waves, batch_seconds=1.0)
    assert sizes == [(1, 16000), (2, 8000), (2, 3000)]
    sizes.clear()
    encode(waves)
    assert sizes == [(5, 16000)]


def test_paths_lists_and_generators(encode, tiny_student, files):
    paths, waves = files
    assert_same(encode(str(paths[1])), tiny_student, waves[1:2])
    assert_same(encode(paths), tiny_student, waves)
    assert_same(encode(path for path in reversed(paths)), tiny_student, waves[::-1])
    assert_same(encode((paths[0], waves[1])), tiny_student, waves[:2])


def test_a_stereo_file_of_another_rate(encode, tiny_student, tmp_path):
    time = np.arange(22050) / 44100
    left, right = np.sin(2 * np.pi * 300 * time), 0.3 * np.sin(2 * np.pi * 500 * time)
    soundfile.write(tmp_path / "a.flac", 0.5 * np.stack([left, right], axis=1), 44100)
    time = np.arange(8000) / 16000
    mono = 0.25 * np.sin(2 * np.pi * 300 * time) + 0.075 * np.sin(2 * np.pi * 500 * time)
    features = encode(tmp_path / "a.flac")
    assert features.lengths.tolist() == [24]
    # Away from the ends, where a resampling filter rings; attention spreads that a little.
    reference = expected(tiny_student, mono.astype(np.float32))[0]
    torch.testing.assert_close(
        features.hidden_states[0][0, 6:18], reference[6:18], atol=0.05, rtol=0
    )


def test_layers(encode, waves):
    every = encode(waves[:2])
    assert len(every.hidden_states) == encode.num_layers + 1 == 3
    for layer, index in ((0, 0), (1, 1), (2, 2), (-1, 2), (-3, 0), ("last", 2)):
        one = encode(waves[:2], layer=layer)
        assert len(one.hidden_states) == 1
        assert torch.equal(one.hidden_states[0], every.hidden_states[index])
        if index == 2:
            assert torch.equal(one.last, every.hidden_states[index])
        else:
            with pytest.raises(StarError, match="the last layer was not asked for"):
                _ = one.last
    for layer in (3, -4, "first", True, 1.0, None):
        with pytest.raises(StarError, match="layer must be 'all', 'last', 0 to 2 or -1"):
            encode(waves[0], layer=layer)


def test_last_of_a_pre_norm_student_is_that_of_transformers(tiny_options, waves, tmp_path):
    """Fails if the residual stream is handed out where a normalized state is expected."""
    from transformers import HubertModel

    options = tiny_options | {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}
    student = StarEncoder(**options).eval()
    with torch.no_grad():
        student.encoder.layer_norm.weight.mul_(2)
    student.save_pretrained(tmp_path / "student")
    features = espnet_star.load(tmp_path / "student")(waves)
    assert_same(features, student, waves)
    assert not torch.allclose(features.last, features.hidden_states[-1])
    plain = HubertModel.from_pretrained(tmp_path / "student").eval()
    for index, wave in enumerate(waves):
        with torch.no_grad():
            theirs = plain(torch.from_numpy(wave)[None]).last_hidden_state[0]
        torch.testing.assert_close(features.last[index, : len(theirs)], theirs, atol=1e-4, rtol=0)
        assert not features.last[index, len(theirs) :].any()


@pytest.mark.parametrize("batch_seconds", [0.1, 0.7, 60.0])
def test_a_corpus_in_constant_memory(encode, waves, batch_seconds):
    """Fails if utterances come in another order or with other features, or all are read first."""
    together = encode(waves)
    read = []

    def corpus():
        for index, wave in enumerate(waves):
            read.append(index)
            yield wave

    for index, one in enumerate(encode.stream(corpus(), batch_seconds=batch_seconds)):
        if batch_seconds == 0.1:
            assert len(read) <= index + 2
        for state, whole in zip(one.hidden_states, together.utterance(index), strict=True):
            torch.testing.assert_close(state[0], whole)
        assert torch.equal(one.last, one.hidden_states[-1])
    assert index == len(waves) - 1
    with pytest.raises(StarError, match="layer must be"):
        encode.stream(corpus(), layer=9)


def test_a_head_can_be_trained_on_features(encode, waves):
    """Fails if features come as inference tensors, which autograd refuses."""
    head = torch.nn.Linear(16, 2)
    head(encode(waves).last).sum().backward()
    assert head.weight.grad is not None


@pytest.mark.parametrize("dtype", ["bfloat16", torch.float16])
def test_narrow_types(directory, tiny_student, waves, dtype, processor, caplog):
    encode = espnet_star.load(directory, dtype=dtype)
    features = encode(waves[:2])
    encode(waves[:2])
    assert caplog.text.count("is wrong on this CPU") == (encode.computed == torch.float32)
    if processor == "faulty processor" and dtype == "bfloat16":
        assert encode.computed == torch.float32
    assert features.last.dtype == encode.dtype != torch.float32
    for one, other in zip(features.utterance(1), expected(tiny_student, waves[1]), strict=True):
        assert torch.nn.functional.cosine_similarity(one.float(), other, dim=-1).min() > 0.99


def test_an_experiment_loads_as_its_export(encode, tiny_student, waves, tmp_path):
    exp = tmp_path / "exp"
    exp.mkdir()
    config = {"encoder": "star", "encoder_conf": tiny_student.options(), "losses": [{"name": "x"}]}
    (exp / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(StarError, match="no epoch has finished yet"):
        espnet_star.load(exp)
    state = {f"encoder.{key}": value for key, value in tiny_student.state_dict().items()}
    torch.save(state, exp / "valid.loss.best.pth")
    assert torch.equal(espnet_star.load(exp)(waves).last, encode(waves).last)


def test_a_teacher_is_loaded_by_its_name(teacher_directory, waves):
    """Fails if load() refused what the frontend takes, or read it as something else."""
    features = espnet_star.load(teacher_directory)(waves[1])
    teacher = build_teacher(str(teacher_directory))
    wave = torch.as_tensor(waves[1], dtype=torch.float32)[None]
    states = teacher.encode(wave, torch.tensor([wave.shape[1]])).hidden_states
    for one, other in zip(features.hidden_states, states, strict=True):
        torch.testing.assert_close(one, other)
    assert not espnet_star.load(teacher_directory).encoder.trainable
    assert espnet_star.load(teacher_directory, kind="student").encoder.trainable


def test_what_cannot_be_loaded(directory, tmp_path):
    with pytest.raises(StarError, match="neither a directory here nor a hub model"):
        espnet_star.load(tmp_path / "absent")
    with pytest.raises(StarError, match=r"student\.onnx (is not a file|needs the package)"):
        espnet_star.load(tmp_path / "student.onnx")
    with pytest.raises(StarError, match="device cuda:99 cannot be used"):
        espnet_star.load(directory, device="cuda:99")
    for dtype in ("int8", torch.int8, "float64"):
        with pytest.raises(StarError, match="dtype must be one of float32, bfloat16, float16"):
            espnet_star.load(directory, dtype=dtype)


def test_what_cannot_be_encoded(encode, waves, files):
    with pytest.raises(StarError, match="waveform 1 has 100 samples"):
        encode([waves[0], waves[1][:100]])
    with pytest.raises(StarError, match="the waveform has NaN"):
        encode(waves[0] * np.nan)
    with pytest.raises(StarError, match=r"absent\.wav: missing file"):
        encode([files[0][0], "absent.wav"])
    with pytest.raises(StarError, match="waveform 0 must be a NumPy array"):
        encode([0.0, 0.1])
    for nothing in ([], iter(())):
        with pytest.raises(StarError, match="no audio was given"):
            encode(nothing)
    for wrong in (3, None, b"RIFF", {"a": waves[0]}):
        with pytest.raises(StarError, match="audio must be a waveform, a path, or several"):
            encode(wrong)
    for limit, message in ((0, "above 0"), (float("nan"), "above 0"), ("20", "must be a number")):
        with pytest.raises(StarError, match=f"batch_seconds .*{message}"):
            encode(waves, batch_seconds=limit)


def test_the_student_is_prepared_on_cpus(tiny_student, monkeypatch):
    """Fails if users of the five lines wait for weights to be laid out at every call."""
    calls = []
    monkeypatch.setattr(StarEncoder, "prepare", lambda self: calls.append(self))
    assert Speech2Features(tiny_student).encoder is tiny_student
    assert calls == [tiny_student]


def test_the_package_itself_imports_nothing_heavy():
    code = (
        "import sys, espnet_star; assert not {'torch', 'numpy', 'espnet2'} & set(sys.modules); "
        "assert 'load' in espnet_star.__all__; assert not hasattr(espnet_star, 'laod')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
