import pytest
import torch
from transformers import HubertModel

from espnet_star.encoders import Want
from espnet_star.errors import StarError
from espnet_star.outputs import frame_count
from espnet_star.students import StarEncoder

LAYOUTS = {
    "group": {},
    "layer": {"feat_extract_norm": "layer"},
    "pre-norm": {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True},
    "projection": {"conv_dim": [8] * 9},
}
NO_DROPOUT = dict(
    feat_proj_dropout=0.0, hidden_dropout=0.0, attention_dropout=0.0, activation_dropout=0.0
)


@pytest.fixture(params=LAYOUTS)
def options(request, tiny_options):
    return tiny_options | LAYOUTS[request.param]


def shaken(**options):
    student = StarEncoder(**options).eval()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return student


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_a_batch_changes_nothing(options, batch, mode):
    """Fails if padding leaks through GroupNorm, positions or attention."""
    student = shaken(**(options | NO_DROPOUT)).train(mode == "train")
    speech, lengths = batch
    together = student.encode(speech, lengths, Want(attentions=True))
    assert together.lengths.tolist() == frame_count(lengths).tolist() == [18, 18, 9, 2, 1, 1]
    for row, samples in enumerate(lengths.tolist()):
        alone = student.encode(
            speech[row : row + 1, :samples], lengths[row : row + 1], Want(attentions=True)
        )
        frames = int(alone.lengths)
        for one, many in zip(alone.hidden_states, together.hidden_states, strict=True):
            torch.testing.assert_close(many[row, :frames], one[0], rtol=1e-4, atol=2e-5)
        for one, many in zip(alone.attentions, together.attentions, strict=True):
            torch.testing.assert_close(many[row, :, :frames, :frames], one[0], rtol=0, atol=2e-5)
            assert (many[row, :, :frames, frames:] == 0).all()


def test_rubbish_past_the_end_is_ignored(options, batch):
    """Fails if anything past a length, infinite values included, reaches valid frames."""
    student = shaken(**options)
    speech, lengths = batch
    clean = student.encode(speech, lengths)
    for row, samples in enumerate(lengths.tolist()):
        speech[row, samples:] = 1e30
    dirty = student.encode(speech, lengths)
    mask = clean.mask()
    for one, other in zip(clean.hidden_states, dirty.hidden_states, strict=True):
        torch.testing.assert_close(one[mask], other[mask], rtol=1e-4, atol=2e-5)


def test_attention_maps_do_not_change_the_states(options, batch):
    """Fails if the slow kernel that gives maps computes something else."""
    student = shaken(**options)
    fast, slow = (student.encode(*batch, Want(attentions=maps)) for maps in (False, True))
    assert fast.attentions is None
    mask = fast.mask()
    for one, other in zip(fast.hidden_states, slow.hidden_states, strict=True):
        torch.testing.assert_close(one[mask], other[mask], rtol=1e-4, atol=1e-5)
    for maps in slow.attentions:
        sums = maps.sum(dim=-1).transpose(1, 2)[mask]
        torch.testing.assert_close(sums, torch.ones_like(sums))


def transformers_states(model, speech):
    """Residual stream before a final LayerNorm, and the output, whatever the version."""
    states = []
    hooks = [
        layer.register_forward_hook(
            lambda _, __, out: states.append(out[0] if isinstance(out, tuple) else out)
        )
        for layer in model.encoder.layers
    ]
    with torch.no_grad():
        out = model(speech, output_hidden_states=True)
    for hook in hooks:
        hook.remove()
    return [out.hidden_states[0], *states], out.last_hidden_state


def assert_same_as_transformers(student, model):
    speech = 0.3 * torch.randn(2, 7000)
    lengths = torch.tensor([7000, 7000])
    states, last = transformers_states(model, speech)
    with torch.no_grad():
        ours = student.encode(speech, lengths).hidden_states
        output, _, _ = student(speech, lengths)
    for one, other in zip(ours, states, strict=True):
        scale = max(1.0, float(other.abs().max()))
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * scale)
    torch.testing.assert_close(output, last, rtol=0, atol=1e-5)


def test_transformers_reads_our_directory(options, tmp_path):
    """Fails if a saved student means something else to plain HubertModel."""
    student = shaken(**options)
    student.save_pretrained(tmp_path)
    model, info = HubertModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert_same_as_transformers(student, model.eval())


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 24},
        {"hidden_size": 8},
        {"feat_proj_layer_norm": False},
        {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True},
    ],
    ids=["projection", "equal widths, real projection", "distilhubert's port", "large"],
)
def test_we_read_a_hubert_made_by_transformers(tiny_hubert, changes, tmp_path):
    """Fails if only our own directories load, or a real projection is lost."""
    model = tiny_hubert(**changes)
    model.save_pretrained(tmp_path)
    assert_same_as_transformers(StarEncoder.from_pretrained(tmp_path), model)


def test_hubert_options_that_the_student_lacks_are_refused(tiny_hubert, tmp_path):
    """Fails if a HuBERT with a batch-norm positional convolution loads as another model."""
    tiny_hubert(conv_pos_batch_norm=True).save_pretrained(tmp_path)
    with pytest.raises(StarError):
        StarEncoder.from_pretrained(tmp_path)


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_gradient_reaches_every_parameter(tiny_options, batch, norm):
    """Fails in distributed training otherwise: unused parameters stop it."""
    student = StarEncoder(**tiny_options, feat_extract_norm=norm).train()
    out, lengths, _ = student(*batch)
    out[torch.arange(out.shape[1])[None] < lengths[:, None]].square().sum().backward()
    for name, parameter in student.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        # Softmax ignores what shifts all scores of a query.
        assert parameter.grad.abs().sum() > 0 or name.endswith("k_proj.bias"), name


def test_espnet_encoder_interface(tiny_student, batch):
    """Fails if ESPnet's checks of an encoder's output would stop the training."""
    speech, lengths = batch
    out, out_lengths, states = tiny_student(speech[..., None], lengths)
    assert out.shape == (6, int(out_lengths.max()), tiny_student.output_size())
    assert states is None


def test_too_short_and_misshapen_inputs_are_named(tiny_student):
    with pytest.raises(StarError, match=r"student: lengths must lie between 400 .* got 399 to"):
        tiny_student(torch.zeros(2, 800), torch.tensor([800, 399]))
    with pytest.raises(StarError, match=r"shape \(B, T\) and lengths \(B,\), got \(1, 800, 2\)"):
        tiny_student(torch.zeros(1, 800, 2), torch.tensor([800]))
    with pytest.raises(StarError, match="900"):
        tiny_student(torch.zeros(1, 800), torch.tensor([900]))


def test_starting_from_another_student(tiny_student, tmp_path):
    """Fails if upstream's weights or architecture are lost, or --init wipes them."""
    tiny_student.save_pretrained(tmp_path)
    copy = StarEncoder(upstream=str(tmp_path), hidden_dropout=0.3)
    assert copy.config.hidden_dropout == 0.3
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.zero_()
    copy.reload_pretrained_parameters()
    for name, value in tiny_student.state_dict().items():
        torch.testing.assert_close(copy.state_dict()[name], value)
    assert "upstream" not in copy.options()
    with pytest.raises(StarError, match="overrides change the shape of upstream"):
        StarEncoder(upstream=str(tmp_path), intermediate_size=32)
