"""Students: architectures behind one interface, chosen by name."""

from espnet_star.registry import Registry
from espnet_star.students.armhubert import ArmHubert
from espnet_star.students.base import Student
from espnet_star.students.config import PRESETS, student_config
from espnet_star.students.distilhubert import DistilHubert
from espnet_star.students.fast_hubert import FastHubert
from espnet_star.students.fithubert import FitHubert
from espnet_star.students.star_encoder import StarEncoder

# One line an architecture; its presets are its own.
STUDENTS: Registry[Student] = Registry(
    "encoder",
    Student,  # type: ignore[type-abstract]
    {
        "star": StarEncoder,
        "distilhubert": DistilHubert,
        "fithubert": FitHubert,
        "arm": ArmHubert,
        "fast_hubert": FastHubert,
    },
)

__all__ = [
    "PRESETS",
    "STUDENTS",
    "ArmHubert",
    "DistilHubert",
    "FastHubert",
    "FitHubert",
    "StarEncoder",
    "Student",
    "student_config",
]
