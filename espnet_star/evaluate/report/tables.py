"""The report's tables, as plain texts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from espnet_star.encoders import NoTeacher
from espnet_star.errors import StarError
from espnet_star.evaluate import table
from espnet_star.evaluate.cost.profile import COUNTED, LIBRISPEECH_LENGTHS, profile, seconds
from espnet_star.evaluate.cost.subjects import find_subject, student_subject
from espnet_star.evaluate.cost.table import COUNTS
from espnet_star.evaluate.report.experiment import Experiment
from espnet_star.evaluate.report.heads import HeadWeights
from espnet_star.evaluate.report.similarity import followed

_SETTINGS = {
    "Optimizer": ("optim", "optim_conf"),
    "Schedule": ("scheduler", "scheduler_conf"),
    "Batches": ("batch_type", "batch_size", "batch_bins", "accum_grad"),
    "Length": ("max_epoch", "num_iters_per_epoch"),
    "Precision": ("use_amp", "train_dtype", "model_conf"),
    "Seed": ("seed",),
}


@dataclass(frozen=True)
class Table:
    """Texts of a table.

    Attributes:
        title: What it holds.
        header: One text a column.
        rows: As many texts each; the first names the row.
        note: Below it.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def overview(experiments: Sequence[Experiment]) -> Table:
    """One row an experiment: what was distilled into what, how far, how well."""
    header = ["experiment", "teacher", "student (M)", "layers x width", "epochs", "valid loss"]
    compared = any(e.comparison for e in experiments)
    if compared:
        header += ["CKA, student", "CKA, undistilled"]
    rows = []
    for found in experiments:
        losses = found.curves.valid.get("loss")
        row = [
            found.label,
            found.teacher,
            f"{params(found.student) / 1e6:.2f}",
            f"{found.student.shape.layers} x {found.student.shape.width}",
            f"{found.epochs} of {found.config['max_epoch']}",
            f"{min(losses.values):.4g}" if losses else "-",
        ]
        if compared:
            row += [_followed(found, system) for system in ("student", "undistilled")]
        rows.append(row)
    note = "valid loss: the lowest of any epoch."
    if compared:
        note += (
            " CKA: mean linear CKA of each student layer with the teacher layer that it follows; "
            "undistilled is the same architecture with random weights."
        )
    return Table("Experiments", header, rows, note)


def params(model: torch.nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def _followed(experiment: Experiment, system: str) -> str:
    found = experiment.comparison
    if found is None or system not in found.similarity:
        return "-"
    return f"{followed(found.similarity[system], found.layer_map):.3f}"


def similarities(experiment: Experiment, system: str) -> Table:
    """Linear CKA in numbers."""
    assert experiment.comparison is not None
    values = experiment.comparison.similarity[system]
    header = ["teacher layer", *(f"student {s}" for s in range(values.shape[1]))]
    rows = [[str(t), *(f"{value:.3f}" for value in row)] for t, row in enumerate(values.tolist())]
    return Table(f"Linear CKA, {system}", header, rows)


def layer_weights(task: str, heads: Sequence[HeadWeights]) -> Table:
    """A task's layer weights in numbers."""
    depth = max(len(head.weights) for head in heads)
    rows = [
        [head.system, *(f"{w:.3f}" for w in head.weights), *["-"] * (depth - len(head.weights))]
        for head in heads
    ]
    return Table(f"Layer weights, {task}", ["system", *map(str, range(depth))], rows)


def results(merged: Mapping[str, Any], source: str) -> Table:
    """Scores of the downstream systems."""
    header, *rows = table.cells(dict(merged))
    facts = merged.get("machine", {})
    known = [str(facts[key]) for key in ("date", "cpu") if key in facts]
    known += [f"{key} {facts[key]}" for key in ("torch", "espnet", "transformers") if key in facts]
    return Table("Results", header, rows, f"{source}: {', '.join(known)}." if known else source)


def costs(experiments: Sequence[Experiment]) -> Table:
    """Size and cost of every student and teacher."""
    rows: dict[str, dict[str, Any]] = {}
    for found in experiments:
        student = student_subject(found.label, found.student)
        rows[found.label] = profile(student, LIBRISPEECH_LENGTHS)
        if found.teacher not in {*rows, NoTeacher.name}:
            rows[found.teacher] = _teacher_cost(found)
    shown = [column for column in COUNTS if any(column.fills(row) for row in rows.values())]
    texts = [[name, *(column.cell(row) for column in shown)] for name, row in rows.items()]
    note = (
        f"MACs: {COUNTED}. Sum over {len(LIBRISPEECH_LENGTHS)} utterances of LibriSpeech "
        f"test-clean, {seconds(LIBRISPEECH_LENGTHS):.2f} s in all, one at a time. A dash: unknown "
        "here."
    )
    return Table("Cost", ["model", *(column.header for column in shown)], texts, note)


def _teacher_cost(experiment: Experiment) -> dict[str, Any]:
    try:
        return profile(find_subject(experiment.teacher), LIBRISPEECH_LENGTHS)
    except StarError:  # gone, or of a family whose MACs are not counted
        found = experiment.comparison
        return {"params": found.teacher_params if found else None}


def settings(experiment: Experiment) -> Table:
    """The configuration at a glance; all of it stands below."""
    config = experiment.config
    student = experiment.student
    shape, architecture = student.shape, config.get("encoder_conf") or {}
    inner = architecture.get("intermediate_size")
    rows = [
        ["Teacher", " ".join([experiment.teacher, _pairs(config.get("teacher_conf"))]).strip()],
        [
            "Student",
            f"{shape.layers} layers of width {shape.width}"
            + (f", {shape.heads} heads" if shape.heads else "")
            + (f", feed-forward {inner}" if inner else ""),
        ],
    ]
    for entry in config["losses"]:
        text = f"{entry.get('weight', 1.0):g} x {entry['name']} {_pairs(entry.get('conf'))}"
        rows.append(["Objective", text.strip()])
    for title, keys in _SETTINGS.items():
        parts = [_setting(key, config.get(key)) for key in keys]
        rows.append([title, ", ".join(part for part in parts if part)])
    return Table("Configuration", ["setting", "value"], [row for row in rows if row[1]])


def _setting(key: str, value: Any) -> str:
    if value is None or value == {}:
        return ""
    if isinstance(value, dict):
        return _pairs(value)
    return str(value) if key in {"optim", "scheduler", "batch_type", "seed"} else f"{key} {value}"


def _pairs(conf: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{key} {json.dumps(value)}" for key, value in (conf or {}).items())


def versions(experiments: Sequence[Experiment], facts: Mapping[str, Any]) -> Table:
    """What trained each experiment, and what made this page."""
    rows = []
    for found in experiments:
        rows.append([f"{found.label}: ESPnet", str(found.config.get("version", "not recorded"))])
        for key, title in (("torch", "torch"), ("command", "command")):
            rows.append([f"{found.label}: {title}", found.facts.get(key, "not recorded")])
    gpus = f", {', '.join(facts['gpus'])}" if facts["gpus"] else ""
    rows.append(["this page: machine", f"{facts['cpu']}, {facts['cores']} cores{gpus}"])
    for key in ("python", "torch", "espnet", "transformers", "espnet_star", "command"):
        rows.append([f"this page: {key}", str(facts[key])])
    return Table("Versions", ["what", "value"], rows)
