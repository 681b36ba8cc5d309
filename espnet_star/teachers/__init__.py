"""Teachers: frozen encoders behind one interface, chosen by name."""

from __future__ import annotations

import inspect
from typing import Any

from espnet_star.errors import unknown_name
from espnet_star.teachers.abs_teacher import AbsTeacher
from espnet_star.teachers.hugging_face import HuggingFaceTeacher
from espnet_star.teachers.loading import read_model_type, unsupported
from espnet_star.teachers.whisper import WhisperTeacher

__all__ = ["TEACHERS", "AbsTeacher", "build_teacher"]

# One line an adapter. Its class attribute model_types names what config.json may hold.
TEACHERS: dict[str, Any] = {
    "hugging_face": HuggingFaceTeacher,
    "whisper": WhisperTeacher,
}


def build_teacher(name_or_path: str, kind: str = "auto", **conf: Any) -> AbsTeacher:
    """Load a teacher.

    Args:
        name_or_path: Hub name, or directory written by ``save_pretrained``.
        kind: Key of :data:`TEACHERS`, or ``"auto"`` to choose by the model type in
            ``config.json``.
        **conf: Options of the adapter, e.g. ``dtype="bfloat16"``.

    Returns:
        The teacher, frozen and in eval mode.

    Raises:
        StarError: If the kind, the model type or an option is unknown, or the adapter
            cannot use the checkpoint.

    Example:
        >>> teacher = build_teacher("facebook/hubert-base-ls960")  # doctest: +SKIP
        >>> teacher(torch.randn(1, 16000), torch.tensor([16000])).lengths  # doctest: +SKIP
        tensor([49])
    """
    if kind == "auto":
        kind = _kind_of(str(name_or_path))
    elif kind not in TEACHERS:
        raise unknown_name("teacher kind", kind, ["auto", *TEACHERS])
    adapter = TEACHERS[kind]
    options = [key for key in inspect.signature(adapter).parameters if key != "name"]
    for key in conf:
        if key not in options:
            raise unknown_name(f"option of teacher kind {kind}", key, options)
    return adapter(str(name_or_path), **conf)


def _kind_of(name: str) -> str:
    """Adapter that reads the checkpoint's model type."""
    model_type = read_model_type(name)
    for kind, adapter in TEACHERS.items():
        if model_type in adapter.model_types:
            return kind
    known = {t for adapter in TEACHERS.values() for t in adapter.model_types}
    raise unsupported(name, model_type, known)
