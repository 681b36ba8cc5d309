"""States inside encoders, against what is recomputed from the states around them."""

import numpy as np
import pytest
import torch
import transformers
from small_checkpoints import FAMILIES, SMALL, WHISPER, save, shake

from espnet_star.encoders import Frozen, Shape, Want
from espnet_star.errors import StarError
from espnet_star.formats.fairseq.layout import fairseq_name
from espnet_star.losses import FrameMatchLoss
from espnet_star.outputs import LayerOutputs
from espnet_star.students import StarEncoder
from espnet_star.teachers import build_teacher
from espnet_star.teachers.transformers_encoder import TransformersTeacher

WANT = Want(inner=frozenset({"projection", "feed_forward.1", "feed_forward.3"}))


def alone_and_together(encoder, want):
    """One utterance of a padded batch, and the same alone."""
    speech, lengths = 0.3 * torch.randn(2, 4000), torch.tensor([4000, 2500])
    batch = encoder.encode(speech, lengths, want)
    single = encoder.encode(speech[1:, :2500], lengths[1:], want)
    frames = int(single.lengths)
    for name in want.inner:
        torch.testing.assert_close(
            batch.state(name)[1, :frames], single.state(name)[0], rtol=1e-4, atol=1e-5
        )
    return single


@pytest.mark.parametrize("family", ["hubert", "wavlm-pre-norm", "data2vec"])
def test_transformers_teachers(family, tmp_path):
    """Fails if a state is caught after the sum or the norm, changes in a batch, or is another's."""
    kind, options = FAMILIES[family]
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**(SMALL | options))
    model = shake(getattr(transformers, f"{kind}Model")(config))
    teacher = build_teacher(str(save(model, tmp_path, do_normalize=False)))
    outputs = alone_and_together(Frozen(teacher), WANT)
    own, pre_norm = teacher.model, teacher.shape.pre_norm
    for number in (1, 3):
        layer, found = own.encoder.layers[number - 1], outputs.state(f"feed_forward.{number}")
        with torch.no_grad():
            if not pre_norm:
                below = outputs.state(number - 1)
                between = layer.layer_norm(below + layer.attention(below)[0])
                again = layer.final_layer_norm(between + found)
                torch.testing.assert_close(again, outputs.state(number), rtol=1e-3, atol=1e-4)
            elif number < teacher.shape.layers:  # the last state has passed one more norm
                between = outputs.state(number) - found
                again = layer.feed_forward(layer.final_layer_norm(between))
                torch.testing.assert_close(again, found, rtol=1e-3, atol=1e-4)
    projected = outputs.state("projection")
    with torch.no_grad():
        summed = projected + own.encoder.pos_conv_embed(projected)
    first = summed if pre_norm else own.encoder.layer_norm(summed)
    torch.testing.assert_close(first, outputs.state(0), rtol=1e-4, atol=1e-5)


def test_whisper(tmp_path):
    """Fails if frames are not cut like the states'."""
    torch.manual_seed(0)
    config = transformers.WhisperConfig(**WHISPER)
    save(shake(transformers.WhisperModel(config)), tmp_path)
    transformers.WhisperFeatureExtractor(feature_size=20).save_pretrained(tmp_path)
    teacher = build_teacher(str(tmp_path))
    outputs = alone_and_together(teacher, Want(inner=frozenset({"feed_forward.1"})))
    layer, found = teacher.encoder.layers[0], outputs.state("feed_forward.1")
    with torch.no_grad():
        between = outputs.state(1) - found
        again = layer.fc2(torch.nn.functional.gelu(layer.fc1(layer.final_layer_norm(between))))
    torch.testing.assert_close(again, found, rtol=1e-3, atol=1e-4)
    with pytest.raises(StarError, match=r"gives no projection .*states 0 to 2, feed_forward\)"):
        teacher.check(WANT)


def test_student(tiny_student):
    """Fails if gradient does not reach what stands before the projection."""
    want = Want(frozenset({2}), inner=frozenset({"projection", "feed_forward.2"}))
    outputs = alone_and_together(tiny_student, want)
    outputs.state("projection").sum().backward()
    assert tiny_student.feature_extractor.conv_layers[0].conv.weight.grad.any()
    assert tiny_student.encoder.layers[0].attention.q_proj.weight.grad is None
    with pytest.raises(StarError, match="has layers 1 to 2, asked for was 3"):
        tiny_student.check(Want(inner=frozenset({"feed_forward.3"})))


class Given(torch.nn.Module):
    """Hands out what the reference has in the place of a front."""

    def __init__(self, frames):
        super().__init__()
        self.frames = frames

    def forward(self, _):
        return self.frames


class FromReference(TransformersTeacher):
    do_normalize = False


def test_lighthubert(reference):
    """Fails if fairseq's ``layer_result`` is another tensor than ours; to float32's rounding."""
    data = np.load(reference("lighthubert_target.npz"))
    batch, frames, width = data["encoder_input"].shape
    layers = data["layer_results"].shape[1]
    config = transformers.HubertConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=int(data["n_heads"]),
        intermediate_size=len(data["weight/layers.0.fc1.bias"]),
        num_conv_pos_embeddings=data["weight/pos_conv.0.weight_v"].shape[-1],
        num_conv_pos_embedding_groups=int(data["conv_pos_groups"]),
        conv_dim=(2,) * 7,
    )
    model = transformers.HubertModel(config)
    for name, parameter in model.encoder.named_parameters():
        theirs = fairseq_name(f"encoder.{name}", "group").removeprefix("encoder.")
        parameter.data.copy_(torch.from_numpy(data[f"weight/{theirs}"]))
    teacher = FromReference()
    teacher.use(model.eval(), torch.float32)
    model.feature_projection = Given(torch.from_numpy(data["encoder_input"]).float())
    names = [f"feed_forward.{layer + 1}" for layer in range(layers)]
    speech = torch.zeros(batch, 400 + 320 * (frames - 1))
    lengths = torch.full((batch,), speech.shape[1])
    outputs = teacher.encode(speech, lengths, Want(inner=frozenset({*names, "projection"})))
    for layer, name in enumerate(names):
        for found, key in ((outputs.state(name), "results"), (outputs.state(layer + 1), "outputs")):
            np.testing.assert_allclose(found, data[f"layer_{key}"][:, layer], atol=1e-5)
    state = torch.from_numpy(data["student"]).float()
    student = LayerOutputs((state, state), outputs.lengths)
    loss = FrameMatchLoss(
        Shape(1, width),
        teacher.shape,
        layers=[[-1, {"feed_forward": [*range(-8, 0)]}]],
        head="none",
        l1_weight=1.0,
        l2_weight=0.0,
    )
    (target,) = loss.pairs.of_teacher(outputs)
    np.testing.assert_allclose(target, data["target"], atol=1e-5)
    assert float(loss(student, outputs)[0]) == pytest.approx(float(data["l1"]), rel=1e-5)


def test_a_distillation_that_needs_what_is_not_there_is_refused(tiny_options, teacher_directory):
    """Fails if the first batch, not the building of the model, tells that a state is missing."""
    from espnet_star.distillation import StarDistillation

    teacher = build_teacher(str(teacher_directory))
    losses = [{"name": "frame_match", "conf": {"layers": [["projection", "projection"]]}}]
    model = StarDistillation(StarEncoder(**tiny_options), teacher, losses)
    loss, stats, _ = model(0.3 * torch.randn(2, 3000), torch.tensor([3000, 2000]))
    loss.backward()
    assert float(stats["l2"]) == float(loss.detach()) > 0.0
    teacher.inner = ()
    with pytest.raises(StarError, match=r"gives no projection .* compare one of these"):
        StarDistillation(StarEncoder(**tiny_options), teacher, losses)
