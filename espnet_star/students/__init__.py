"""The student encoder and its architectures."""

from espnet_star.students.config import PRESETS, student_config
from espnet_star.students.star_encoder import StarEncoder

__all__ = ["PRESETS", "StarEncoder", "student_config"]
