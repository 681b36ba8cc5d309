"""gpu.py: a step of every method of conf/methods, beside STaR's, on the same audio."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gpu_models as models
import torch
from gpu_card import GIB
from gpu_run import Row, Run, Section, attempt, free, peak, timed

from espnet_star.distillation import StarDistillation
from espnet_star.encoders import Encoder
from espnet_star.encoders.absent import NoTeacher
from espnet_star.evaluate.cost.memory import rise
from espnet_star.outputs import SAMPLE_RATE, frame_count
from espnet_star.students import STUDENTS
from espnet_star.training.layered_config import read_layers

CONF = Path(__file__).resolve().parents[1] / "conf" / "methods"
STAR = "starhubert"
# Each view, each kind of student or teacher once: enough for a test.
FEW = (STAR, "armhubert", "dicehubert", "score")
# Audio of a batch on a GPU and on a CPU, in seconds.
SECONDS = {"cuda": 180, "cpu": 12}


def names() -> list[str]:
    """STaR first, by which the others are measured."""
    found = sorted(path.stem for path in CONF.glob("*.yaml") if path.stem != "schedule_linear")
    return [STAR, *(name for name in found if name != STAR)]


def student_of(values: dict[str, Any], small: bool) -> Any:
    """As published, with fresh weights; tiny in a test."""
    options = dict(values.get("encoder_conf") or {})
    options.pop("init_from", None)
    options.pop("upstream", None)
    if small:
        known = STUDENTS.find(values.get("encoder", "star"))
        preset = known.presets[options.get("preset", STAR)]
        options |= {"hidden_size": 24, "intermediate_size": 32, "num_attention_heads": 2}
        options |= {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
        if "conv_dim" in preset:
            options["conv_dim"] = [8] * (len(preset["conv_dim"]) - 1) + [24]
    return STUDENTS.build(values.get("encoder", "star"), options)


def build(run: Run, name: str) -> tuple[StarDistillation, dict[str, Any]]:
    """Model of a method, on the device, and its configuration."""
    torch.manual_seed(0)
    values = read_layers(CONF / f"{name}.yaml")
    student = student_of(values, run.small)
    teacher: Encoder
    if name == "score":
        teacher = copy.deepcopy(student)
    elif values.get("teacher") == "none":
        teacher = NoTeacher(student.shape)
    else:
        deep = {"values": models.TINY_TEACHER | {"num_hidden_layers": 12}} if run.small else {}
        teacher = models.random_teacher(dtype="bfloat16" if run.cuda else "float32", **deep)
    losses = values["losses"]
    if run.small:
        narrow = {"channels": 24}
        losses = [
            {**e, "conf": (e.get("conf") or {}) | (narrow if e["name"] == "enhancement" else {})}
            for e in losses
        ]
    view = values.get("view", "plain"), values.get("view_conf")
    model = StarDistillation(student, teacher, losses, *view).train().to(run.device)
    frozen = tuple(f"{part}." for part in values.get("freeze_param", ()))
    for key, parameter in model.named_parameters():
        if frozen and key.startswith(frozen):
            parameter.requires_grad_(False)
    return model, values


def row_of(run: Run, name: str) -> Row:
    """Time and memory of a method's updates."""
    model, values = build(run, name)
    speech, lengths = models.training_batch(run, 2 if run.small else SECONDS[run.device])
    given: dict[str, torch.Tensor] = {}
    if values.get("view") == "labelled":
        frames = frame_count(lengths)
        clusters = values["losses"][0]["conf"]["clusters"]
        labels = torch.randint(clusters, (len(frames), int(frames.max())))
        given = {"labels": labels.to(run.device), "labels_lengths": frames}
    amp = run.amp_dtype() if run.cuda else None
    update = models.updating(run, model, lambda: model(speech, lengths, **given)[0], amp)
    update()
    row = peak(run, update) if run.cuda else {"peak_gib": rise(update) / GIB}
    step = statistics.median(timed(run, {"step": update})["step"])
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    audio = float(lengths.sum()) / SAMPLE_RATE
    return row | {"step_ms": step * 1e3, "audio_rate": audio / step, "trained": trained / 1e6}


def rows(run: Run) -> Iterator[Row]:
    """A row a method; the first is STaR's."""
    star: Row = {}
    for name in FEW if run.small else names():
        row = attempt(run, lambda name=name: row_of(run, name))
        free(run)
        star = star or row
        for key, mine in (("audio_rate", "of_star"), ("peak_gib", "memory_of_star")):
            if key in row and key in star:
                row[mine] = row[key] / star[key]
        yield {"method": name, "outcome": "ok"} | row


METHODS = Section(
    "methods",
    "A step of every method",
    {
        "method": ("conf/methods", ""),
        "trained": ("trained (M)", ".1f"),
        "step_ms": ("step (ms)", ".1f"),
        "audio_rate": ("audio seconds a second", ".1f"),
        "of_star": ("of STaR's", ".2f"),
        "peak_gib": ("peak memory (GiB)", ".2f"),
        "memory_of_star": ("of STaR's", ".2f"),
        "outcome": ("", ""),
    },
    rows,
    least=40.0,
    notes=(
        "Students as published, random weights, heads included; teacher HuBERT Base, in bfloat16 "
        "on GPUs. The same noise for all; views that draw (noise, takes) do so in the step. "
        "Memory: of tensors on a GPU, on a CPU what a step takes beyond weights and optimizer.",
    ),
)
