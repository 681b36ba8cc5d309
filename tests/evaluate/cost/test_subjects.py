"""A bug here measures another model than the one that was named."""

import json

import pytest
import torch
import transformers
from hand_count import by_hand, whisper_by_hand, whisper_parameters
from small_checkpoints import WHISPER, save, shake

from espnet_star.encoders import Shape
from espnet_star.errors import StarError
from espnet_star.evaluate.cost.profile import profile
from espnet_star.evaluate.cost.subjects import SHAPES, find_subject, find_subjects, run
from espnet_star.kernels import prepared
from espnet_star.outputs import LayerOutputs
from espnet_star.students import StarEncoder
from espnet_star.teachers import TEACHERS
from espnet_star.teachers.base import Teacher
from espnet_star.teachers.whisper import WhisperTeacher


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    """A full model, whose decoder is no part of the encoder, and its directory."""
    model = shake(transformers.WhisperModel(transformers.WhisperConfig(**WHISPER)))
    return model, save(model, tmp_path_factory.mktemp("whisper"))


def test_a_student_directory(tiny_student, tmp_path):
    """Fails if the identity matrix that only transformers needs is counted."""
    tiny_student.save_pretrained(tmp_path)
    row = profile(find_subject(str(tmp_path)), [16000])
    assert row["params"] == sum(p.numel() for p in tiny_student.parameters())
    assert row["macs_by_kind"] == by_hand(tiny_student.config, 16000)
    assert row["bytes"] == (tmp_path / "model.safetensors").stat().st_size


def test_a_plain_hubert_directory(tiny_hubert, tmp_path):
    """Fails if a checkpoint in fp16 cannot be measured, or its .bin has no size."""
    hubert = tiny_hubert().half()
    hubert.save_pretrained(tmp_path)
    row = profile(find_subject(str(tmp_path)), [16000])
    assert row["params"] == sum(p.numel() for p in hubert.parameters())
    assert row["macs_by_kind"] == by_hand(hubert.config, 16000)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    assert find_subject(str(tmp_path)).bytes == row["bytes"] > 0


def test_a_distillation_experiment(tiny_student, tiny_options, tmp_path):
    """Fails if an experiment's folder is not measured like the student it gives."""
    config = {"encoder": "star", "encoder_conf": tiny_options, "losses": []}
    (tmp_path / "config.yaml").write_text(str(config))
    state = {f"encoder.{key}": value for key, value in tiny_student.state_dict().items()}
    torch.save(state, tmp_path / "valid.loss.best.pth")
    row = profile(find_subject(str(tmp_path)), [16000])
    assert row["macs_by_kind"] == by_hand(tiny_student.config, 16000)


def test_names_that_are_nothing(tmp_path):
    with pytest.raises(StarError, match=r"unknown model .*Did you mean 'hubert_base'"):
        find_subject("hubert_bas")
    with pytest.raises(StarError, match=r"has no config\.json"):
        find_subject(str(tmp_path))
    with pytest.raises(StarError, match="neither a directory here nor a hub model"):
        find_subject(str(tmp_path / "absent"))


def test_a_model_of_another_kind(tmp_path):
    transformers.BertConfig().save_pretrained(tmp_path)
    with pytest.raises(
        StarError, match=r"has model_type 'bert' .*, supported: data2vec-audio, .*whisper"
    ):
        find_subject(str(tmp_path))


def test_every_shape_can_be_run():
    """Fails if a shape cannot be built with weights, as a measurement of time needs."""
    model = find_subject("distilhubert_transformers").build()
    assert not model.training
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    assert set(SHAPES) >= {"hubert_base", "wav2vec2_base", "distilhubert_transformers"}


@pytest.mark.parametrize("samples", [480, 16000, 47311, 480000])
def test_whisper_is_counted_at_its_own_length(whisper, samples):
    """Fails if the decoder, the padding to 30 s or the spectrogram is counted."""
    model, directory = whisper
    row = profile(find_subject(str(directory)), [samples])
    assert row["macs_by_kind"] == whisper_by_hand(model.config, samples)
    assert row["params"] == whisper_parameters(model.config)
    assert row["params"] == sum(p.numel() for p in model.encoder.parameters())
    assert row["bytes"] == (directory / "model.safetensors").stat().st_size


def test_whisper_reads_no_more_than_it_was_made_for(whisper):
    with pytest.raises(StarError, match=r"reads at most 30 s, got an utterance of 30\.02 s"):
        profile(find_subject(str(whisper[1])), [16000, 480320])


def test_whisper_at_work_has_its_weights(whisper):
    model, directory = whisper
    teacher = find_subject(str(directory)).at_work()
    assert isinstance(teacher, WhisperTeacher)
    for key, value in model.encoder.state_dict().items():
        assert torch.equal(value, teacher.encoder.state_dict()[key])
    speech = torch.randn(1, 16000)
    expected = teacher.encode(speech, torch.tensor([16000])).hidden_states[-1]
    assert torch.equal(run(teacher, speech), expected)


def test_a_relative_of_hubert_at_work_is_plain_transformers(teacher_directory):
    model = find_subject(str(teacher_directory)).at_work()
    assert type(model) is transformers.HubertModel and not model.training
    plain = transformers.HubertModel.from_pretrained(teacher_directory)
    for key, value in plain.state_dict().items():
        assert torch.equal(value, model.state_dict()[key])


@pytest.mark.parametrize("width", [16, 8])
def test_a_student_at_work_is_prepared(width, tiny_options, tmp_path):
    """Fails if a student with a projection (8 channels, 16 wide) is taken for a teacher."""
    student = StarEncoder(**(tiny_options | {"conv_dim": [8] * 8 + [width]})).eval()
    student.save_pretrained(tmp_path)
    found = find_subject(str(tmp_path)).at_work()
    assert isinstance(found, StarEncoder) and not found.training
    for key, value in student.state_dict().items():
        assert torch.equal(value, found.state_dict()[key])
    assert prepared.available() is any(module in prepared._PREPARED for module in found.modules())


class Linear(Teacher):
    """A frame for each 320 samples through one linear map."""

    model_types = ("bert",)

    def __init__(self, name):
        super().__init__()
        self.name, self.shape = name, Shape(layers=1, width=3)
        self.map = torch.nn.Linear(320, 3)
        self.freeze()

    def extract(self, speech, lengths, sizes, want):
        frames = (speech.shape[1] - 80) // 320
        state = self.map(speech[:, : 320 * frames].view(1, frames, 320))
        assert state.isfinite().all()  # fails where there are no numbers
        return LayerOutputs((state, state), self.shape.frames(lengths))


def test_an_adapter_that_is_added_can_be_measured(monkeypatch, tmp_path):
    """Fails if the one line in TEACHERS that CONTRIBUTING speaks of is not enough."""
    monkeypatch.setitem(TEACHERS, "linear", Linear)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    subject = find_subject(str(tmp_path))
    row = profile(subject, [16000])
    assert (row["params"], row["macs_by_kind"]) == (963, {"linear": 49 * 320 * 3})
    assert isinstance(subject.at_work(), Linear)


def test_labels(tiny_student, monkeypatch, tmp_path):
    tiny_student.save_pretrained(tmp_path / "a=b")
    monkeypatch.chdir(tmp_path)
    subjects = find_subjects(["demo", "mine=demo", "a=b", "other=a=b"])
    assert [(s.name, s.source) for s in subjects] == [
        ("demo", "demo"),
        ("mine", "demo"),
        ("a=b", "a=b"),
        ("other", "a=b"),
    ]
    assert profile(subjects[3], [16000])["params"] == profile(subjects[2], [16000])["params"]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["demo", "demo"], "two models are called 'demo'; give one of them another label"),
        (["a=demo", "a=starhubert"], "two models are called 'a'"),
        (["=demo"], "model '=demo': expected a model, or LABEL=MODEL with both given"),
        (["demo="], "model 'demo=': expected"),
        (["a=dmo"], "unknown model .*Did you mean 'demo'"),
    ],
)
def test_labels_that_cannot_be(texts, message):
    with pytest.raises(StarError, match=message):
        find_subjects(texts)
