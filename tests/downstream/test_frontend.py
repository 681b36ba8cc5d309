import logging

import pytest
import torch
import yaml

from espnet_star.downstream.frontend import StarFrontend
from espnet_star.errors import StarError
from espnet_star.students import StarEncoder


@pytest.fixture
def student_directory(tiny_student, tmp_path):
    tiny_student.save_pretrained(tmp_path / "student")
    return str(tmp_path / "student")


def weighted_sum(outputs, weights, normalize=False):
    total = 0
    for weight, state in zip(weights.softmax(0), outputs.hidden_states, strict=True):
        if normalize:
            state = torch.nn.functional.layer_norm(state, state.shape[-1:])
        total = total + weight * state
    return total * outputs.mask()[..., None]


@pytest.mark.parametrize("normalize", [False, True])
def test_weighted_sum_of_all_states(student_directory, tiny_student, batch, normalize):
    """Fails if SUPERB's features are another combination, or padding is not zero."""
    frontend = StarFrontend(student_directory, normalize=normalize)
    with torch.no_grad():
        frontend.layer_weights.copy_(torch.tensor([0.5, -1.0, 2.0]))
    features, lengths = frontend(*batch)
    outputs = tiny_student.encode(*batch)
    expected = weighted_sum(outputs, frontend.layer_weights, normalize)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    assert lengths.tolist() == outputs.lengths.tolist()
    assert features.shape[2] == frontend.output_size() == 16


def test_frozen_means_frozen(student_directory, batch):
    """Fails if training the head would move the student, or switch its dropout on."""
    frontend = StarFrontend(student_directory).train()
    assert not frontend.upstream.training
    features, _ = frontend(*batch)
    features.square().sum().backward()
    trained = [name for name, p in frontend.named_parameters() if p.requires_grad]
    assert trained == ["layer_weights"]
    assert frontend.layer_weights.grad.abs().sum() > 0
    assert all(p.grad is None for p in frontend.upstream.parameters())
    torch.testing.assert_close(frontend(*batch)[0], features)


def test_unfreezing_after_some_updates(student_directory, batch):
    """Fails if fine-tuning starts early, never, or validation counts as updates."""
    frontend = StarFrontend(student_directory, freeze_updates=2).train()
    moved = []
    for _ in range(3):
        frontend.zero_grad(set_to_none=True)
        frontend(*batch)[0].sum().backward()
        moved.append(any(p.grad is not None for p in frontend.upstream.parameters()))
        frontend.eval()
        with torch.no_grad():
            frontend(*batch)
        frontend.train()
    assert moved == [False, False, True]
    assert int(frontend.updates) == 3
    assert frontend.upstream.training
    resumed = StarFrontend(student_directory, freeze_updates=2)
    resumed.load_state_dict(frontend.state_dict())
    assert not resumed.is_frozen()


def test_trained_from_the_start(student_directory, batch):
    frontend = StarFrontend(student_directory, freeze_updates=0).train()
    assert frontend.upstream.training
    frontend(*batch)[0].square().sum().backward()
    assert all(p.grad is not None for p in frontend.upstream.parameters())


def test_options_rebuild_it_without_the_directory(student_directory, batch):
    """Fails if a saved downstream model would still need the distillation folder."""
    frontend = StarFrontend(student_directory, normalize=True, freeze_updates=5).eval()
    options = yaml.safe_load(yaml.safe_dump(frontend.options()))
    assert student_directory not in str(options)
    rebuilt = StarFrontend(**options).eval()
    rebuilt.load_state_dict(frontend.state_dict())
    torch.testing.assert_close(rebuilt(*batch)[0], frontend(*batch)[0])
    assert rebuilt.options() == frontend.options()


def test_a_teacher_is_used_but_not_saved(teacher_directory, batch):
    """Fails if every checkpoint of a comparison would carry the teacher."""
    frontend = StarFrontend(str(teacher_directory)).train()
    assert not frontend.upstream.trainable
    assert set(frontend.state_dict()) == {"layer_weights", "updates"}
    assert frontend.output_size() == 24
    features, _ = frontend(*batch)
    features.sum().backward()
    assert frontend.layer_weights.grad is not None
    rebuilt = StarFrontend(**frontend.options()).eval()
    rebuilt.load_state_dict(frontend.state_dict())
    torch.testing.assert_close(rebuilt(*batch)[0], features.detach())
    frontend.double()
    assert next(frontend.upstream.encoder.parameters()).dtype == torch.float64


def test_the_kind_is_found_out_or_told(student_directory, teacher_directory, tmp_path):
    """Fails if a plain HuBERT directory cannot serve as a student on request."""
    assert StarFrontend(student_directory).upstream.trainable
    assert not StarFrontend(student_directory, kind="hugging_face").upstream.trainable
    assert StarFrontend(str(teacher_directory), kind="student").upstream.trainable
    student = StarEncoder.from_pretrained(student_directory)
    config = {"encoder": "star", "losses": [], "encoder_conf": student.options()}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    state = {f"encoder.{key}": value for key, value in student.state_dict().items()}
    torch.save(state, tmp_path / "latest.pth")
    assert StarFrontend(str(tmp_path)).upstream.trainable


def test_reload_after_init_brings_the_weights_back(student_directory, tiny_student):
    """Fails if ESPnet's --init would throw the distilled weights away."""
    frontend = StarFrontend(student_directory)
    with torch.no_grad():
        for parameter in frontend.parameters():
            parameter.fill_(0.5)
    frontend.reload_pretrained_parameters()
    torch.testing.assert_close(frontend.upstream.state_dict(), tiny_student.state_dict())
    assert (frontend.layer_weights == 0).all()


def test_cached_states_are_the_same(student_directory, batch, tmp_path, monkeypatch):
    """Fails if the second epoch computes the frozen student again, or sees other states."""
    frontend = StarFrontend(student_directory, cache_dir=str(tmp_path / "cache"))
    speech, lengths = batch[0][:, :6000], batch[1]
    first, _ = frontend(speech, lengths)
    plain, _ = StarFrontend(student_directory)(speech, lengths)
    torch.testing.assert_close(first, plain, rtol=1e-3, atol=2e-3)
    monkeypatch.setattr(frontend.upstream, "extract", None)
    frontend.cached.writable = False
    torch.testing.assert_close(frontend(speech, lengths)[0], first)


def test_several_channels_are_averaged(student_directory, batch):
    frontend = StarFrontend(student_directory)
    speech = batch[0][..., None].expand(-1, -1, 2)
    torch.testing.assert_close(frontend(speech, batch[1])[0], frontend(*batch)[0])


@pytest.mark.parametrize("fs", ["16k", "16K", 16000, "16000"])
def test_the_rate_is_written_as_espnet_writes_it(student_directory, fs):
    assert StarFrontend(student_directory, fs=fs).output_size() == 16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "frontend star needs upstream"),
        ({"upstream": "x", "fs": 8000}, "works at 16000 Hz, got fs=8000; resample"),
        ({"upstream": "x", "fs": "8K"}, "works at 16000 Hz, got fs=8K; resample"),
        ({"upstream": "x", "fs": "fast"}, "works at 16000 Hz, got fs=fast; resample"),
        ({"upstream": "x", "kind": "studnet"}, "'studnet'. Did you mean 'student'?"),
        ({"student_conf": {"hiden_size": 3}}, "Did you mean 'hidden_size'?"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(StarError) as error:
        StarFrontend(**options)
    assert message in str(error.value)


def test_a_teacher_cannot_be_unfrozen(teacher_directory):
    with pytest.raises(StarError, match="a teacher stays frozen"):
        StarFrontend(str(teacher_directory), freeze_updates=0)


def test_rebuilding_says_where_weights_come_from(student_directory, caplog):
    options = StarFrontend(student_directory).options()
    with caplog.at_level(logging.INFO):
        StarFrontend(**options)
    assert "weights come from the checkpoint" in caplog.text
