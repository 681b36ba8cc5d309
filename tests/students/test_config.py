import pytest
import torch

from espnet_star.errors import StarError
from espnet_star.students import PRESETS, StarEncoder, student_config
from espnet_star.students.config import config_options


def parameters(preset):
    with torch.device("meta"):
        return sum(p.numel() for p in StarEncoder(preset=preset).parameters())


@pytest.mark.parametrize(
    ("preset", "expected"), [("starhubert", 22_308_592), ("starhubert_l", 26_626_672)]
)
def test_published_students_have_exactly_their_size(preset, expected):
    """Fails if the architecture is not that of the authors' released models."""
    assert parameters(preset) == expected


@pytest.mark.parametrize(
    ("preset", "millions", "slack"),
    [("starhubert_s", 14.1, 0.1), ("starhubert_xs", 9.39, 0.1), ("demo", 4.0, 0.4)],
)
def test_sizes_of_the_other_presets(preset, millions, slack):
    assert parameters(preset) / 1e6 == pytest.approx(millions, abs=slack)


@pytest.mark.parametrize("preset", PRESETS)
def test_options_rebuild_the_same_architecture(preset):
    """Fails if config.yaml would bring back another student."""
    config = student_config(preset, hidden_dropout=0.25)
    options = config_options(config)
    assert config_options(student_config(**options)) == options
    assert options["hidden_dropout"] == 0.25
    assert all(not isinstance(value, tuple) for value in options.values())


def test_projection_exists_only_where_widths_differ():
    assert student_config().identity_projection is True
    assert student_config(hidden_size=240).identity_projection is False
    assert student_config(identity_projection=False).identity_projection is False


SHORT = {"conv_dim": [8] * 7, "conv_kernel": [10, 3, 3, 3, 3, 2, 2]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "starhuber"}, "unknown student preset 'starhuber'. Did you mean 'starhubert'?"),
        ({"hiden_size": 16}, "unknown student option 'hiden_size'. Did you mean 'hidden_size'?"),
        ({"mask_time_prob": 0.1}, "unknown student option 'mask_time_prob'"),
        ({"hidden_act": "relu"}, "hidden_act must be one of ('gelu',), got 'relu'"),
        ({"feat_extract_activation": "relu"}, "feat_extract_activation must be one of"),
        ({"feat_extract_norm": "batch"}, "feat_extract_norm must be one of ('group', 'layer')"),
        ({"feat_proj_layer_norm": "no"}, "feat_proj_layer_norm must be one of (True, False)"),
        ({"feature_grad_mult": 2}, "feature_grad_mult must lie in 0..1, got 2"),
        ({"layerdrop": 0.1}, "layerdrop must be one of (0.0,), got 0.1"),
        ({"conv_dim": [8] * 8}, "one entry a convolution, got 8, 9 and 9"),
        (
            SHORT | {"conv_stride": [5, 2, 2, 2, 2, 2, 1], "identity_projection": False},
            "hop 160 and receptive field",
        ),
        ({"num_attention_heads": 7}, "hidden_size must be a multiple of num_attention_heads"),
        ({"hidden_size": 440}, "multiple of num_conv_pos_embedding_groups, got 440 and 16"),
        (
            {"hidden_size": 400, "identity_projection": True},
            "identity_projection needs the last of conv_dim to equal hidden_size, got 432 and 400",
        ),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"conv_dim": 16}, "conv_dim"),
        ({"hidden_size": "wide"}, "hidden_size"),
    ],
)
def test_impossible_architectures_are_named(options, message):
    """Fails if a mistake is ignored (as transformers does) or ends in a traceback."""
    with pytest.raises(StarError) as error:
        student_config(**options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
