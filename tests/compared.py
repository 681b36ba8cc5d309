"""An objective between two outputs, built from what they look like."""

from espnet_star.encoders import Shape


def compare(objective, student, teacher, *args, **conf):
    """What the objective gives for them."""
    return objective(Shape.of(student), Shape.of(teacher), *args, **conf)(student, teacher)
