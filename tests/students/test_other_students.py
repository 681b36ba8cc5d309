"""Students of other methods: what each does with batches, masks, files and gradients."""

import json

import pytest
import torch
import yaml
from transformers import HubertModel

import espnet_star
from espnet_star import catalog
from espnet_star.downstream.frontend import StarFrontend
from espnet_star.encoders import Want
from espnet_star.errors import StarError
from espnet_star.formats.export import export_student
from espnet_star.students import STUDENTS, StarEncoder
from espnet_star.students.directory import load_student

RUBBISH = 1e30
THIN = {"num_hidden_layers": 4, "conv_dim": [8] * 9}
FULL = {"conv_dim": [8] * 7}
CASES = {
    "star": {"mask_embedding": True, "feature_grad_mult": 0.5, **THIN},
    "distilhubert": FULL,
    "distilhubert heads": FULL | {"heads": 3, "head_width": 12},
    "fithubert": THIN,
    "fithubert heads": THIN | {"heads": 2, "head_width": 12},
    "arm": THIN | {"reuse": [False, True, True, False]},
    "arm twice": THIN | {"reuse": [False, True, False, True], "second_softmax": True},
    "fast_hubert": {"conv_dim": [8, 12], "num_hidden_layers": 2, "mel_bins": 20},
    "arm heads": THIN | {"reuse": [], "heads": 1, "head_width": 12},
}


@pytest.fixture(params=CASES)
def student(request, tiny_options):
    student = STUDENTS[request.param.split()[0]](**(tiny_options | CASES[request.param])).eval()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return student


@pytest.fixture
def speech(student):
    """Lengths about the borders of frames, odd and even numbers of them, rubbish behind."""
    field, hop = student.shape.field, student.shape.hop
    lengths = torch.tensor([9 * hop + field, 9 * hop + field - 1, 4 * hop + field, field])
    speech = 0.3 * torch.randn(len(lengths), int(lengths.max()))
    for row, samples in enumerate(lengths.tolist()):
        speech[row, samples:] = RUBBISH
    return speech, lengths


def wanted(student, lengths):
    mask = torch.zeros(len(lengths), int(student.shape.frames(lengths).max()), dtype=torch.bool)
    mask[:, ::3] = student.masks
    return Want(attentions=student.shape.heads is not None, mask=mask if student.masks else None)


def test_a_batch_changes_nothing(student, speech):
    """Fails if padding or another utterance reaches a valid frame, masked or not."""
    waves, lengths = speech
    want = wanted(student, lengths)
    together = student.encode(waves, lengths, want)
    assert together.lengths.tolist() == student.shape.frames(lengths).tolist()
    for row, samples in enumerate(lengths.tolist()):
        frames = int(together.lengths[row])
        mask = None if want.mask is None else want.mask[row : row + 1, :frames]
        alone = student.encode(
            waves[row : row + 1, :samples],
            lengths[row : row + 1],
            Want(attentions=want.attentions, mask=mask),
        )
        for one, many in zip(alone.hidden_states, together.hidden_states, strict=True):
            assert one.shape == (1, frames, student.shape.width)
            torch.testing.assert_close(many[row, :frames], one[0], rtol=1e-4, atol=2e-5)
        for one, many in zip(alone.attentions or (), together.attentions or (), strict=True):
            torch.testing.assert_close(many[row, :, :frames, :frames], one[0], rtol=0, atol=2e-5)
    fast = student.encode(waves, lengths, Want(mask=want.mask))
    for one, other in zip(fast.hidden_states, together.hidden_states, strict=True):
        valid = together.mask()
        torch.testing.assert_close(one[valid], other[valid], rtol=1e-4, atol=2e-5)


def test_it_is_saved_and_loaded(student, speech, tmp_path):
    """Fails if a directory is of another student to any reader, or needs the training's folder."""
    student.save_pretrained(tmp_path)
    waves, lengths = speech
    expected = student.encode(waves, lengths)
    assert catalog.kind_of(str(tmp_path)) == "student"
    valid = [wave[:n].clone() for wave, n in zip(waves, lengths.tolist(), strict=True)]
    features = espnet_star.load(tmp_path)(valid)
    for one, other in zip(features.hidden_states, expected.hidden_states, strict=True):
        mask = expected.mask()
        torch.testing.assert_close(one[mask], other[mask], rtol=1e-4, atol=2e-5)
    frontend = StarFrontend(str(tmp_path)).eval()
    again = StarFrontend(**frontend.options()).eval()
    again.load_state_dict(frontend.state_dict())
    out, frames = again(waves, lengths)
    assert frames.tolist() == expected.lengths.tolist()
    torch.testing.assert_close(out, frontend(waves, lengths)[0])
    if not student.beyond_hubert:
        loaded, info = HubertModel.from_pretrained(tmp_path, output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"]
        theirs = loaded.eval()(valid[0][None]).last_hidden_state
        mine = student.encode(waves[:1, : lengths[0]], lengths[:1]).hidden_states[-1]
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=2e-5)
    if type(student) is not StarEncoder:
        twin = type(student)(upstream=str(tmp_path))
        assert twin.options() == student.options()


def test_every_parameter_is_trained(student, speech):
    """Fails in distributed training otherwise: unused parameters stop it."""
    waves, lengths = speech
    waves = waves.masked_fill(waves == RUBBISH, 0.0)
    student.train()
    outputs = student.encode(waves, lengths, Want(mask=wanted(student, lengths).mask))
    total = sum(state[outputs.mask()].square().sum() for state in outputs.hidden_states)
    total.backward()
    for name, parameter in student.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    if student.masks:
        student.zero_grad()
        student.encode(waves, lengths).hidden_states[-1].mean().backward()
        assert not student.masked_spec_embed.grad.any()


def test_a_directory_imports_nothing(tiny_options, tmp_path):
    """Fails if a file from elsewhere could have a module imported or another file read."""
    STUDENTS["fithubert"](**(tiny_options | THIN)).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    for change, message in (
        ({"star_student": "os.path:join"}, "star_student must be one of star, "),
        ({"star_student": ["star"]}, "star_student must be one of"),
        ({"options": config["options"] | {"upstream": "x"}}, "unknown student option 'upstream'"),
        ({"options": []}, "options must be a mapping"),
        ({"star_format": 99}, "star_format 99"),
    ):
        path.write_text(json.dumps(config | change))
        with pytest.raises(StarError, match=message) as error:
            load_student(tmp_path)
        assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_export_says_what_a_hubert_lacks(tiny_options, tmp_path):
    """Fails if half a student is exported, or there is no way to export it."""
    student = STUDENTS["fithubert"](**(tiny_options | THIN))
    folder = tmp_path / "exp"
    folder.mkdir()
    conf = {"encoder": "fithubert", "encoder_conf": student.options(), "losses": []}
    (folder / "config.yaml").write_text(yaml.safe_dump(conf))
    state = {f"encoder.{key}": value for key, value in student.state_dict().items()}
    torch.save(state, folder / "latest.pth")
    with pytest.raises(StarError, match=r"FitHubert.*\(a time reduction\).*--own true") as error:
        export_student(folder, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert export_student(folder, tmp_path / "out", own=True).gap is None
    found = load_student(tmp_path / "out").state_dict()
    assert all(torch.equal(found[key], value) for key, value in student.state_dict().items())
    card = (tmp_path / "out" / "README.md").read_text()
    assert "25 frames per second" in card and "from transformers" not in card


def test_distilhubert_starts_from_its_teacher(tiny_hubert, tmp_path):
    """Fails if a part is left random, the encoder's LayerNorm is taken, or sizes are ignored."""
    teacher = tiny_hubert(num_hidden_layers=3)
    teacher.save_pretrained(tmp_path)
    sizes = {
        key: getattr(teacher.config, key)
        for key in (
            "conv_dim", "hidden_size", "intermediate_size", "num_attention_heads",
            "num_conv_pos_embeddings", "num_conv_pos_embedding_groups",
        )
    }  # fmt: skip
    student = STUDENTS["distilhubert"](init_from=str(tmp_path), **sizes)
    theirs = StarEncoder.from_pretrained(tmp_path).state_dict()
    for name, value in student.state_dict().items():
        assert torch.equal(value, theirs[name]) == ("encoder.layer_norm" not in name), name
    assert "init_from" not in student.options()
    student.feature_projection.projection.weight.data.zero_()
    student.reload_pretrained_parameters()
    assert student.feature_projection.projection.weight.any()
    with pytest.raises(StarError, match=r"init_from .* must have shape \(48, 24\).*got \(32, 24\)"):
        STUDENTS["distilhubert"](init_from=str(tmp_path), **(sizes | {"intermediate_size": 48}))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("arm", {"reuse": [True] * 12}, "must begin with false"),
        ("arm", {"reuse": [False]}, "each of the 12 layers, got 1"),
        ("arm", {"reuse": "[False]"}, "a list of true and false"),
        ("arm", {"second_softmax": 1}, "second_softmax must be true or false, got 1"),
        ("arm", {"heads": 13}, "at most its 12 layers, got 13"),
        ("arm", {"heads": -1}, "heads must be 0 or more, got -1"),
        ("arm", {"heads": 1, "head_width": 0}, "head_width must be a positive integer"),
        ("arm", {"preset": "starhubert"}, "unknown student preset 'starhubert'"),
        ("fithubert", {"mask_embedding": True}, "mask_embedding must be false"),
        ("fast_hubert", {"conv_kernel": [4, 5]}, "conv_kernel must be odd numbers, got [4, 5]"),
        ("fast_hubert", {"mel_bins": 0}, "mel_bins must be a positive integer, got 0"),
        ("fast_hubert", {"conv_bias": True}, "conv_bias is not for fast_hubert"),
        ("fast_hubert", {"cmvn": "absent.npz"}, "cmvn absent.npz: expected an .npz with mean"),
        ("star", {"reuse": []}, "unknown student option 'reuse'"),
    ],
)
def test_impossible_architectures_are_named(name, options, message):
    with pytest.raises(StarError) as error:
        STUDENTS[name](**options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_mask_of_other_frames_is_named(tiny_options):
    student = StarEncoder(**tiny_options, mask_embedding=True)
    with pytest.raises(StarError, match=r"shape \(1, 2\) \(utterances, frames\), got \(1, 3\)"):
        student.encode(
            torch.zeros(1, 720), torch.tensor([720]), Want(mask=torch.ones(1, 3, dtype=torch.bool))
        )
