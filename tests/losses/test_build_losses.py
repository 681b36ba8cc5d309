import pytest
import torch

from espnet_star.encoders import Shape
from espnet_star.errors import StarError
from espnet_star.losses import AttentionMapLoss, TemporalGramLoss, build_losses, term_titles

SHAPE = Shape(layers=2, width=4, heads=2)


def test_names_weights_and_options():
    built = build_losses(
        [
            {"name": "temporal_gram", "weight": 2, "conf": {"layerwise_weight": 0.5}},
            {"name": "attention_map", "conf": None},
        ],
        SHAPE,
        SHAPE,
    )
    assert [entry.weight for entry in built] == [2.0, 1.0]
    assert isinstance(built[0].loss, TemporalGramLoss)
    assert built[0].loss.layerwise_weight == 0.5
    assert isinstance(built[1].loss, AttentionMapLoss)
    assert [any(w.attentions for w in entry.loss.wants()) for entry in built] == [False, True]
    # What the teacher's layers decide goes into config.yaml; nothing else is touched.
    assert built[0].entry["conf"] == {"layerwise_weight": 0.5, "target_norm": "none"}
    assert built[1].entry == {"name": "attention_map", "conf": None}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "losses is empty"),
        (["temporal_gram"], "must be a mapping with a name, got 'temporal_gram'"),
        ([{"weight": 1.0}], "must be a mapping with a name"),
        ([{"name": "temporal_grams"}], "unknown loss 'temporal_grams'. Did you mean 'temporal_g"),
        ([{"name": "temporal_gram", "wieght": 1}], "'wieght'. Did you mean 'weight'?"),
        (
            [{"name": "temporal_gram", "conf": {"target_nrom": "none"}}],
            "unknown option of loss temporal_gram 'target_nrom'. Did you mean 'target_norm'?",
        ),
        ([{"name": "temporal_gram", "weight": "heavy"}], "weight of loss temporal_gram"),
        ([{"name": "temporal_gram", "conf": [1]}], "conf of loss temporal_gram"),
    ],
)
def test_mistakes_are_named(entries, message):
    """Fails if a misspelled configuration trains something else in silence, or a traceback."""
    with pytest.raises(StarError) as error:
        build_losses(entries, SHAPE, SHAPE)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_pre_norm_teacher_gets_layer_normalized_targets():
    teacher = Shape(layers=2, width=4, pre_norm=True)
    for conf, expected in (({}, "layer_norm"), ({"target_norm": "none"}, "none")):
        (built,) = build_losses([{"name": "temporal_gram", "conf": conf}], SHAPE, teacher)
        assert built.loss.target_norm == built.entry["conf"]["target_norm"] == expected


def test_terms_of_two_objectives_are_both_logged():
    """Fails if one objective's term overwrote the other's in silence."""
    entries = [{"name": "temporal_gram"}, {"name": "temporal_gram"}, {"name": "attention_map"}]
    built = build_losses(entries, SHAPE, SHAPE)
    terms = {"layerwise": torch.zeros(()), "intralayer": torch.ones(())}
    logged = [list(entry.logged(terms)) for entry in built[:2]]
    assert logged[0] == ["temporal_gram_layerwise", "temporal_gram_intralayer"]
    assert logged[1] == ["temporal_gram2_layerwise", "temporal_gram2_intralayer"]
    assert list(built[2].logged({"attention": torch.zeros(())})) == ["attention"]
    titles = term_titles(entries)
    assert titles["attention"] == "Attention map term"
    assert titles["temporal_gram_layerwise"] == "Layer-wise term (temporal_gram_layerwise)"
    with pytest.raises(StarError, match="unknown term of loss attention_map 'layerwise'"):
        built[2].logged(terms)
