"""An utterance in a padded batch gets what it gets alone: features, losses, gradients."""

import pytest
import torch
import transformers
from small_checkpoints import FAMILIES, SMALL, WHISPER, save, shake

from espnet_star.distillation import StarDistillation
from espnet_star.outputs import frame_count
from espnet_star.students import StarEncoder
from espnet_star.teachers import build_teacher

NO_DROPOUT = dict(
    feat_proj_dropout=0.0, hidden_dropout=0.0, attention_dropout=0.0, activation_dropout=0.0
)
# One sample on either side of where a frame begins, and all places within a hop.
LENGTHS = [400, 719, 720, 721, 1039, 1040, 3600, *range(2000, 2320, 45), 4000]


@pytest.fixture(params=[*FAMILIES, "whisper"])
def teacher(request, tmp_path):
    if request.param == "whisper":
        model = transformers.WhisperModel(transformers.WhisperConfig(**WHISPER))
    else:
        prefix, options = FAMILIES[request.param]
        config = getattr(transformers, f"{prefix}Config")(**SMALL, **options)
        model = getattr(transformers, f"{prefix}Model")(config)
    return build_teacher(str(save(shake(model), tmp_path, do_normalize=True)))


def noise(lengths, extra=0):
    """Loud and quiet waveforms with an offset, and rubbish past their ends."""
    speech = torch.randn(len(lengths), max(lengths) + extra)
    return speech * torch.logspace(-3, 1, len(lengths))[:, None] + 0.1, torch.tensor(lengths)


def worst_gap(encode, speech, lengths):
    """Largest difference between an utterance in a batch and alone, over all states.

    Relative to the largest value of its state: residual streams of pre-norm layers
    have no scale of their own.
    """
    together, worst = encode(speech, lengths), 0.0
    assert together.lengths.tolist() == frame_count(lengths).tolist()
    for row, size in enumerate(lengths.tolist()):
        alone = encode(speech[row : row + 1, :size], lengths[row : row + 1])
        frames = int(alone.lengths)
        for one, many in zip(alone.hidden_states, together.hidden_states, strict=True):
            assert one.shape[1] >= frames
            scale = max(1.0, float(one[0, :frames].abs().max()))
            gap = (many[row, :frames] - one[0, :frames]).abs().max()
            worst = max(worst, float(gap) / scale)
    return worst


@pytest.mark.parametrize("extra", [0, 977])
def test_teachers_of_every_family_at_every_length(teacher, extra):
    """Fails if a frame at an utterance's edge sees padding, whatever the batch's own length."""
    teacher.train()  # must change nothing
    assert worst_gap(teacher.encode, *noise(LENGTHS, extra)) < 1e-4


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_students_at_every_length(tiny_options, norm, pre_norm, mode):
    """Fails if a frame at an utterance's edge sees padding, whatever the batch's own length."""
    layout = dict(feat_extract_norm=norm, do_stable_layer_norm=pre_norm)
    student = shake(StarEncoder(**(tiny_options | NO_DROPOUT | layout))).train(mode == "train")
    for extra in (0, 977):
        with torch.no_grad():
            assert worst_gap(student.encode, *noise(LENGTHS, extra)) < 1e-4


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_a_student_of_the_published_size(norm):
    """Fails if rounding at full width and depth is no longer rounding."""
    student = StarEncoder("starhubert", feat_extract_norm=norm, **NO_DROPOUT).train()
    with torch.no_grad():
        assert worst_gap(student.encode, *noise([9000, 4321, 400])) < 1e-4


def test_the_gradient_of_a_batch_is_the_mean_of_its_utterances(tiny_options, tmp_path, tiny_hubert):
    """Fails if padding reaches the weights backwards, or an utterance's share depends on it."""
    tiny_hubert().save_pretrained(tmp_path)
    losses = [{"name": "temporal_gram"}, {"name": "attention_map", "weight": 5.0}]
    model = StarDistillation(
        shake(StarEncoder(**(tiny_options | NO_DROPOUT))).train(),
        build_teacher(str(tmp_path)),
        losses,
    )
    speech, sizes = 0.3 * torch.randn(4, 4400), torch.tensor([4000, 2345, 720, 400])

    def gradients(rows):
        loss, _, weight = model(speech[rows], sizes[rows])
        assert int(weight) == len(rows)
        return loss.detach(), torch.autograd.grad(loss, list(model.parameters()))

    together, whole = gradients([0, 1, 2, 3])
    singles = [gradients([row]) for row in range(4)]
    torch.testing.assert_close(together, torch.stack([loss for loss, _ in singles]).mean(0))
    parts = zip(*(grads for _, grads in singles), strict=True)
    for (name, _), joint, rows in zip(model.named_parameters(), whole, parts, strict=True):
        mean = torch.stack(rows).mean(0)
        # Softmax ignores what shifts all scores of a query: these gradients are rounding.
        if not name.endswith("k_proj.bias"):
            assert (joint - mean).norm() < 1e-4 * mean.norm(), name
