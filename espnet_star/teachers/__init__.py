"""Teachers: frozen encoders behind one interface, chosen by name."""

from __future__ import annotations

from typing import Any

from espnet_star.errors import unknown_name
from espnet_star.registry import Registry
from espnet_star.teachers.base import Teacher
from espnet_star.teachers.detect import find_kind
from espnet_star.teachers.espnet_hubert import EspnetHubertTeacher
from espnet_star.teachers.espnet_ssl import EspnetSslTeacher
from espnet_star.teachers.fairseq import FairseqTeacher
from espnet_star.teachers.hugging_face import HuggingFaceTeacher
from espnet_star.teachers.loading import unsupported
from espnet_star.teachers.s3prl_upstream import S3prlTeacher
from espnet_star.teachers.whisper import WhisperTeacher

__all__ = ["TEACHERS", "Teacher", "build_teacher"]

# One line an adapter. Its class attribute model_types names what config.json may hold; those
# without are told by their files in detect.py, or by kind alone.
TEACHERS: Registry[Teacher] = Registry(
    "teacher kind",
    Teacher,  # type: ignore[type-abstract]
    {
        "hugging_face": HuggingFaceTeacher,
        "whisper": WhisperTeacher,
        "espnet_ssl": EspnetSslTeacher,
        "espnet_hubert": EspnetHubertTeacher,
        "fairseq": FairseqTeacher,
        "s3prl": S3prlTeacher,
    },
)


def build_teacher(name_or_path: str, kind: str = "auto", **conf: Any) -> Teacher:
    """Load a teacher.

    Args:
        name_or_path: Hub name or directory written by ``save_pretrained``; ESPnet's SSL or
            HuBERT experiment (folder, ``config.yaml``, ``.pth``, pack or zoo name); ``.pt`` of
            fairseq or WavLM; ``s3prl:NAME``.
        kind: Key of :data:`TEACHERS`, ``package.module:Class``, or ``"auto"`` to choose by the
            files and the model type in ``config.json``.
        **conf: Options of the adapter, e.g. ``dtype="bfloat16"``.

    Returns:
        The teacher, frozen and in eval mode.

    Raises:
        StarError: If the kind, the model type or an option is unknown, or the adapter
            cannot use the checkpoint.

    Example:
        >>> teacher = build_teacher("facebook/hubert-base-ls960")  # doctest: +SKIP
        >>> teacher.encode(torch.randn(1, 16000), torch.tensor([16000])).lengths  # doctest: +SKIP
        tensor([49])
    """
    if kind == "auto":
        kind = kind_of_checkpoint(str(name_or_path))
    elif kind not in TEACHERS and ":" not in kind:
        raise unknown_name("teacher kind", kind, ["auto", *TEACHERS])
    teacher = TEACHERS.build(kind, conf, str(name_or_path))
    teacher.conf = {"kind": kind, **conf, **teacher.chosen()}
    return teacher


def kind_of_checkpoint(name: str) -> str:
    """Adapter that reads what a name stands for.

    Raises:
        StarError: If nothing is found under that name, or nothing reads it.
    """
    kinds = {t: kind for kind, adapter in TEACHERS.items() for t in adapter.model_types}
    kind, model_type = find_kind(name, kinds)
    if kind is None:
        raise unsupported(name, model_type, kinds)
    return kind
