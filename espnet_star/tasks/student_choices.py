"""``--encoder`` of a distillation."""

from __future__ import annotations

from typing import Any

from espnet2.asr.encoder.abs_encoder import AbsEncoder
from espnet2.train.class_choices import ClassChoices
from espnet2.utils.nested_dict_action import NestedDictAction

from espnet_star.students import STUDENTS


class StudentChoices(ClassChoices):
    """``--encoder`` and ``--encoder_conf``: a student of ours, or ``package.module:Class``."""

    def __init__(self) -> None:
        super().__init__("encoder", classes=dict(STUDENTS), type_check=AbsEncoder, default="star")

    def get_class(self, name: str | None) -> type | None:
        """See ESPnet's."""
        return None if name is None else STUDENTS.find(name)

    def add_arguments(self, parser: Any) -> None:
        """ESPnet's would take lower case and its own choices only."""
        parser.add_argument(
            "--encoder",
            default=self.default,
            help=f"The student: {', '.join(STUDENTS)}, or package.module:Class of your own",
        )
        parser.add_argument(
            "--encoder_conf",
            action=NestedDictAction,
            default={},
            help="The keyword arguments for encoder",
        )
