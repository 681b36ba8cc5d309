"""Which layer follows which, and which frame."""

from dataclasses import replace

import pytest
import torch

from espnet_star.encoders import Shape, Want
from espnet_star.errors import StarError
from espnet_star.losses.layers import (
    every_layer,
    frames_together,
    number_of,
    pairs,
    rising,
    spread,
)
from espnet_star.outputs import LayerOutputs


def depths(student, teacher):
    return Shape(student, 4), Shape(teacher, 6)


def follows(*arguments):
    student, teacher, *layer_map = arguments
    return [layer for (layer,) in rising(*depths(student, teacher), *layer_map).teacher]


def test_layers_are_spread_evenly():
    assert follows(12, 12) == list(range(13))
    assert follows(6, 24) == [0, 4, 8, 12, 16, 20, 24]
    assert follows(4, 4, [1, 1, 2, 4]) == [0, 1, 1, 2, 4]
    assert spread(*depths(4, 2)) == [0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((12, 6), "the student has 12 layers and the teacher 6; give layer_map"),
        ((2, 6, [6]), "one teacher layer for each of 2 student layers, got [6]"),
        ((2, 6, [0, 6]), "must rise within 1..6"),
        ((2, 6, [3, 7]), "must rise within 1..6"),
        ((2, 6, [5, 3]), "must rise within 1..6"),
    ],
)
def test_impossible_layer_maps_are_refused(arguments, message):
    with pytest.raises(StarError) as error:
        follows(*arguments)
    assert message in str(error.value)


def test_pairs_and_means_of_groups():
    """Fails if a group is not the mean of its layers, or -1 not the last; L_S > L_T is fine."""
    found = pairs(*depths(6, 3), [[-1, -1], [2, [1, 2]]])
    assert list(found) == [((6,), (3,)), ((2,), (1, 2))]
    assert [want.states for want in found.wants()] == [{2, 6}, {1, 2, 3}]
    states = tuple(torch.full((1, 2, 3), float(layer)) for layer in range(4))
    outputs = LayerOutputs(states, torch.tensor([2])).only({1, 2, 3})
    assert [float(state[0, 0, 0]) for state in found.of_teacher(outputs)] == [3.0, 1.5]


def test_inner_states_are_named_in_yaml():
    """Fails if a name means another state, or is not asked for."""
    layers = [["projection", [0, "projection"]], [-1, {"feed_forward": [1, -1]}]]
    found = pairs(*depths(6, 3), layers)
    assert list(found) == [
        (("projection",), (0, "projection")),
        ((6,), ("feed_forward.1", "feed_forward.3")),
    ]
    student, teacher = found.wants()
    assert (student.states, student.inner) == ({6}, {"projection"})
    assert (teacher.states, teacher.inner) == (
        {0},
        {"projection", "feed_forward.1", "feed_forward.3"},
    )
    assert [number_of(layer) for layer in (2, "projection", "feed_forward.3")] == [2, 0, 3]
    both = Want(frozenset({1}), inner=frozenset({"projection"})) | teacher
    assert both.states == {0, 1} and both.inner == teacher.inner
    inner = {name: torch.full((1, 2, 3), value) for name, value in (("projection", 4.0),)}
    outputs = LayerOutputs((torch.zeros(1, 2, 3),), torch.tensor([2]), layers=(0,), inner=inner)
    assert float(replace(found, teacher=(found.teacher[0],)).of_teacher(outputs)[0].mean()) == 2.0


def test_every_layer_follows_one():
    assert list(every_layer(*depths(3, 6))) == [((1,), (2,)), ((2,), (4,)), ((3,), (6,))]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "layers is empty"),
        ([3], "must be pairs of student and teacher layer, got 3"),
        ([[7, 1]], "the student has states 0 to 6 .* got 7"),
        ([[1, [2, 4]]], "the teacher has states 0 to 3 .* got 4"),
        ([["last", 1]], "got 'last'"),
        ([[1, {"feed_forward": 4}]], r"the teacher has .* {feed_forward: 1 to 3}, got {'feed_f"),
        ([[{"feed_forward": [1, 0]}, 1]], r"the student has .* got {'feed_forward': \[1, 0\]}"),
        ("all", "must be a list of pairs"),
    ],
)
def test_impossible_pairs_are_refused(layers, message):
    with pytest.raises(StarError, match=message):
        pairs(*depths(6, 3), layers)


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        ((320, 400), (640, 720), "50 frames/s and the teacher 25"),
        ((480, 560), (320, 400), "a multiple"),
        ((640, 399), (320, 400), "sees 399 samples, one of the teacher 400"),
    ],
)
def test_frame_rates_that_do_not_go_together(student, teacher, message):
    shapes = [Shape(2, 4, hop=hop, field=field) for hop, field in (student, teacher)]
    with pytest.raises(StarError, match=message):
        frames_together(*shapes)


def test_a_student_frame_never_lacks_the_teachers():
    """Fails if some length would be refused only in the middle of a training."""
    slow, fast = Shape(2, 4, hop=640, field=720), Shape(2, 4)
    assert frames_together(slow, fast) == 2
    samples = torch.arange(720, 9000)
    assert (slow.frames(samples) <= (fast.frames(samples) + 1) // 2).all()
