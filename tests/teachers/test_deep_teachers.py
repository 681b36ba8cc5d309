"""Teachers of 24 layers, as the large published ones, and students of four layers."""

import pytest
import torch
import transformers
from small_checkpoints import FAMILIES, SMALL, WHISPER, save, shake

from espnet_star.distillation import StarDistillation
from espnet_star.students import StarEncoder
from espnet_star.teachers import build_teacher

LAYERS = 24
LAYER_MAP = [6, 12, 18, 24]
WIDTHS = (20, 28, 40)  # the student's is 16
# What preprocessor_config.json of the published checkpoints says.
PREPARATIONS = {
    "base": {"do_normalize": False, "return_attention_mask": False},
    "large": {"do_normalize": True, "return_attention_mask": True},
}
CASES = [
    (family, list(PREPARATIONS)[number % 2], WIDTHS[number % 3])
    for number, family in enumerate([*FAMILIES, "whisper"])
]


def deep_teacher(family, width, directory, **preparation):
    """Directory of a random model."""
    if family == "whisper":
        sizes = dict(d_model=width, encoder_layers=LAYERS)
        config = transformers.WhisperConfig(**(WHISPER | sizes))
        return save(shake(transformers.WhisperModel(config)), directory)
    prefix, options = FAMILIES[family]
    sizes = dict(hidden_size=width, num_hidden_layers=LAYERS)
    config = getattr(transformers, f"{prefix}Config")(**(SMALL | options | sizes))
    model = shake(getattr(transformers, f"{prefix}Model")(config))
    return save(model, directory, sampling_rate=16000, **preparation)


@pytest.fixture
def few():
    lengths = torch.tensor([6000, 3000, 400])
    return 0.3 * torch.randn(3, 6000) + 0.05, lengths


def assert_batch_is_no_matter(teacher, speech, lengths):
    together = teacher.encode(speech, lengths)
    for row, size in enumerate(lengths.tolist()):
        alone = teacher.encode(speech[row : row + 1, :size], lengths[row : row + 1])
        frames = int(alone.lengths)
        for one, many in zip(alone.hidden_states, together.hidden_states, strict=True):
            torch.testing.assert_close(many[row, :frames], one[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("family", "preparation", "width"), CASES)
def test_a_student_learns_from_24_layers(family, preparation, width, tiny_options, few, tmp_path):
    """Fails if depth, width, layout or preparation of a family cannot be distilled."""
    settings = PREPARATIONS[preparation]
    teacher = build_teacher(str(deep_teacher(family, width, tmp_path, **settings)))
    assert (teacher.shape.layers, teacher.shape.width) == (LAYERS, width)
    if family != "whisper":
        assert teacher.do_normalize is settings["do_normalize"]
    assert_batch_is_no_matter(teacher, *few)
    losses = [{"name": "temporal_gram", "conf": {"layer_map": LAYER_MAP}}]
    student = StarEncoder(**(tiny_options | {"num_hidden_layers": 4}))
    model = StarDistillation(student, teacher, losses)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    values = []
    for _ in range(12):
        loss = model(*few)[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert sum(values[-3:]) < 0.9 * sum(values[:3])
