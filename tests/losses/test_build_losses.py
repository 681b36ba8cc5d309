import pytest

from espnet_star.errors import StarError
from espnet_star.losses import AttentionMapLoss, TemporalGramLoss, build_losses


def test_names_weights_and_options():
    built = build_losses(
        [
            {"name": "temporal_gram", "weight": 2, "conf": {"layerwise_weight": 0.5}},
            {"name": "attention_map", "conf": None},
        ]
    )
    assert [entry.weight for entry in built] == [2.0, 1.0]
    assert isinstance(built[0].loss, TemporalGramLoss)
    assert built[0].loss.layerwise_weight == 0.5
    assert isinstance(built[1].loss, AttentionMapLoss)
    assert built[1].loss.needs_attentions
    assert not built[0].loss.needs_attentions


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
    """Fails if a misspelt configuration trains something else in silence, or a traceback."""
    with pytest.raises(StarError) as error:
        build_losses(entries)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
