"""Costs of a step against costs counted or measured another way."""

import pytest
import torch

from espnet_star.distillation import StarDistillation
from espnet_star.evaluate.cost.profile import count_macs
from espnet_star.evaluate.cost.subjects import find_subject
from espnet_star.students import StarEncoder
from espnet_star.teachers import build_teacher
from espnet_star.training.training_cost import (
    BYTES_PER_TRAINED,
    Probe,
    checkpoint_bytes,
    memory_of_a_rank,
    probe,
)


@pytest.fixture(scope="module")
def model(teacher_directory, tiny_options):
    torch.manual_seed(0)
    student = StarEncoder(**tiny_options)
    teacher = build_teacher(str(teacher_directory))
    return StarDistillation(student, teacher, [{"name": "temporal_gram"}])


def test_arithmetic_of_a_step(model, teacher_directory):
    """Forward passes of both and a backward pass twice the student's; the objective on top.

    Fails if the backward pass or one of the two networks is not counted.
    """
    seconds = 8.0
    samples = round(seconds * 16000)
    subject = find_subject(str(teacher_directory))
    with torch.device("meta"):
        teacher = sum(count_macs(subject.build(), samples).values())
    student = sum(count_macs(model.encoder.eval(), samples, "cpu").values())
    found = probe(model, seconds).flops * seconds
    expected = 2 * (teacher + 3 * student)
    assert expected * 0.9 < found < expected * 1.6


def test_memory_held_grows_with_the_clip_alone(model):
    """Fails if weights, which do not grow, are counted with each second."""
    short, long = probe(model, 4.0), probe(model, 16.0)
    assert short.held == pytest.approx(long.held, rel=0.15)
    assert short.passing == pytest.approx(long.passing, rel=0.1)
    assert min(short.held, short.passing, short.seconds) > 0


def test_memory_of_a_rank_and_of_the_disk(model, tiny_options):
    trained = sum(p.numel() for p in StarEncoder(**tiny_options).parameters())
    frozen = 4 * sum(p.numel() for p in model.teacher.encoder.parameters())
    found = Probe(flops=0, seconds=0, held=1000, passing=500)
    at_rest = trained * BYTES_PER_TRAINED + frozen
    assert memory_of_a_rank(model, found, 60) == at_rest + 90_000
    assert memory_of_a_rank(model, found, 20, precision_bytes=2) == at_rest + 15_000
    assert checkpoint_bytes(model, kept=5) == 4 * trained * 13
