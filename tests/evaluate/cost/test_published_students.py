"""Published students by their presets: parameters and MACs to the last digit that is printed."""

import pytest
import torch
from hand_count import student_by_hand

from espnet_star.evaluate.cost.profile import LIBRISPEECH_LENGTHS, count_macs
from espnet_star.evaluate.cost.subjects import PRESETS, find_subject

# Preset, prediction heads, parameters, MACs (G) over the published lengths. What a published count
# leaves out, a mask vector, is added to it; what it holds besides, FitHuBERT's layer of 461,280
# that nothing passes through, is taken off.
PUBLISHED = [
    ("distilhubert", 0, 23_491_200, 785.3),
    ("distilhubert", 2, 23_491_200 + 2_362_368, None),
    ("distilhubert", 3, 23_491_200 + 3_543_552, 825.0),
    ("fithubert", 0, 21_200_096, 315.8),
    ("fithubert", 1, 22_492_064 - 461_280, 322.5),
    ("fithubert", 12, 31_629_632 - 461_280, 396.4),
    ("armhubert", 0, 22_015_552, 452.0),
    ("armhubert", 12, 26_448_448, 501.6),
    ("armhubert_s", 0, 18_403_552, 405.3),
    ("armhubert_s", 12, 22_394_080, 449.9),
    ("maskhubert", 0, 22_202_944, 470.1),
    ("maskhubert", 12, 26_635_840, 519.8),
    ("half_12l", 0, 26_872_960, 857.1),
    ("lighthubert_small", 0, 26_872_960 + 384, 857.1),
    ("dicehubert", 0, 26_872_960 + 384, 857.1),
    ("fast_hubert", 0, 93_204_352, 551.2),
    ("fast_hubert_thin", 0, None, 151),
    ("starhubert", 0, 22_308_592, 463.5),
    ("starhubert_l", 0, 26_626_672, 511.9),
]


@pytest.mark.parametrize(("preset", "heads", "params", "macs"), PUBLISHED)
def test_sizes_and_costs(preset, heads, params, macs):
    """Fails if a layer, a bias or a head is missing, or an operation is counted twice or not."""
    with torch.device("meta"):
        if heads:
            student = PRESETS[preset](preset=preset, heads=heads).eval()
        else:
            student = find_subject(preset).build()
        counted = sum(count_macs(student, 16000).values())
    assert counted == student_by_hand(student, 16000)
    if params is not None:
        assert sum(parameter.numel() for parameter in student.parameters()) == params
    if macs is not None:
        found = sum(student_by_hand(student, samples) for samples in LIBRISPEECH_LENGTHS) / 1e9
        assert round(found, len(str(macs).partition(".")[2])) == macs


def test_the_table_has_every_preset_with_a_publication():
    """Fails if a preset is added that nobody has held against its paper."""
    assert PRESETS.keys() - {row[0] for row in PUBLISHED} == {
        "starhubert_s",
        "starhubert_xs",
        "demo",
    }
