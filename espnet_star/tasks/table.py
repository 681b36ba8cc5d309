"""ESPnet's tasks that take the student; needs no import of ESPnet to be read."""

from __future__ import annotations

import importlib.util
import pkgutil
from dataclasses import dataclass


@dataclass(frozen=True)
class EspnetTask:
    """What a task of ESPnet offers the student.

    Attributes:
        name: Class in ``espnet2.tasks.MODULE``.
        encoder: Whether the student may also be the encoder, which reads the waveform itself.
        also: Tasks whose registries it reads, or whose models its tools decode.
        own_trainer: Whether ESPnet's trainer is left as it is, because its steps are not
            those that ours watches.
        raw: Whether its encoders read the waveform themselves, whatever the frontend.
    """

    name: str
    encoder: bool = False
    also: tuple[str, ...] = ()
    own_trainer: bool = False
    raw: bool = False


# Every task with a choice of frontends for waveforms. mt has one for text, gan_svs one behind
# the model; lm, tts, enh and the others have none.
TASKS = {
    "aqa": EspnetTask("AqaTask"),
    "asr": EspnetTask("ASRTask", encoder=True),
    "asr_transducer": EspnetTask("ASRTransducerTask"),
    "asvspoof": EspnetTask("ASVSpoofTask"),
    "cls": EspnetTask("CLSTask", encoder=True),
    "diar": EspnetTask("DiarizationTask"),
    "enh_s2t": EspnetTask("EnhS2TTask", also=("asr", "st", "diar")),
    "hubert": EspnetTask("HubertTask", raw=True),
    "lid": EspnetTask("LIDTask"),
    "s2st": EspnetTask("S2STTask"),
    "s2t": EspnetTask("S2TTask", also=("s2t_ctc",)),
    "s2t_ctc": EspnetTask("S2TTask"),
    "slu": EspnetTask("SLUTask"),
    "spk": EspnetTask("SpeakerTask"),
    "ssl": EspnetTask("SSLTask"),
    "st": EspnetTask("STTask"),
    "uasr": EspnetTask("UASRTask", own_trainer=True),
}
# Tools without a task in their name that build models of these.
BUILDERS = {"lightning_train": ("asr", "cls")}
# Trainings that are not called TASK_train.
_TRAINING = {"s2t_train_ctc": "s2t_ctc"}


def installed_tasks() -> list[str]:
    """Tasks of the installed ESPnet, those of the table or not, without importing them."""
    return sorted(_modules("espnet2.tasks") - {"abs_task"})


def is_espnet_tool(tool: str) -> bool:
    """Whether there is such a module in the installed ``espnet2.bin``."""
    return tool in _modules("espnet2.bin")


def builds_a_model(tool: str) -> bool:
    """Whether a tool belongs to a task, by its name: ``asr_align``, but not ``pack``."""
    return tool in BUILDERS or any(tool.startswith(f"{task}_") for task in installed_tasks())


def trained_task(tool: str) -> str | None:
    """Task of the table that a tool trains, e.g. ``"s2t"`` for ``s2t_train``."""
    task = _TRAINING.get(tool, tool.removesuffix("_train"))
    return task if task in TASKS and task != tool else None


def takes_the_student(tool: str) -> bool:
    """Whether a tool trains or decodes a task of the table: ``asr_train``, ``asr_inference``."""
    task = trained_task(tool) or tool.removesuffix("_inference")
    return task in TASKS and task != tool and is_espnet_tool(tool)


def _modules(package: str) -> set[str]:
    """Names of the modules of a package of ESPnet, whose ``__init__`` files import nothing."""
    found = importlib.util.find_spec(package)
    places = found.submodule_search_locations if found else None
    return {module.name for module in pkgutil.iter_modules(places or [])}
