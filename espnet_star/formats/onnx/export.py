"""The student as ONNX files in several precisions, each proved against the student in torch."""

from __future__ import annotations

import importlib
import json
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from espnet_star import __version__
from espnet_star.errors import StarError, unknown_name
from espnet_star.files.staging import staged
from espnet_star.formats.onnx.plain_graph import PlainStudent
from espnet_star.outputs import SAMPLE_RATE, valid_mask
from espnet_star.students import StarEncoder
from espnet_star.students.onnx_student import FORMAT, METADATA_KEY, open_session

# Largest difference from the student in torch, relative to its state's norm over the valid
# frames of a padded batch, in any layer.
TOLERANCES = {"float32": 1e-4, "float16": 1e-2, "int8": 0.05}
FILES = {"float32": "model.onnx", "float16": "model.float16.onnx", "int8": "model.int8.onnx"}
PROGRAM = "model.pt2"
LAYERS = ("all", "last")
# The first with a GELU node, which runtimes have a kernel for.
OPSET = 20
_PACKAGES = ("onnx", "onnxruntime", "onnxscript")


def export_onnx(
    student: StarEncoder,
    directory: str | Path,
    precisions: Sequence[str] = ("float32",),
    layers: str = "all",
    program: bool = False,
    force: bool = False,
) -> dict[str, float]:
    """Write the student as ONNX; files appear only after all of them have passed.

    Inputs ``speech (B, T)`` float32 and ``lengths (B,)`` int64; outputs ``hidden_states
    (L + 1, B, N, D)`` or ``last (B, N, D)``, float32, and ``frames (B,)``. Batch and time are
    free. Every file's metadata holds sampling rate, hop, layers and version as JSON.

    Args:
        student: In eval mode.
        directory: Created if missing.
        precisions: Keys of :data:`FILES`.
        layers: ``"all"``, or ``"last"`` for what the encoder hands on.
        program: Also write ``model.pt2``, float32, which ``torch.export.load`` reads; its
            batches need two frames (720 samples of most students) or more.
        force: Replace files that are there.

    Returns:
        The largest relative difference of each file from the student in torch.

    Raises:
        StarError: If a package or an option is wrong, a file is there already, or a file
            misses its tolerance; nothing is written then.
    """
    directory = Path(directory)
    if getattr(student.config, "heads", 0):
        raise StarError(
            f"{student.label} gives what its prediction heads make of its states, and ONNX files "
            "hold states; import it again without heads (star_import authors --heads none)"
        )
    for precision in precisions:
        if precision not in FILES:
            raise unknown_name("precision", precision, FILES)
    if layers not in LAYERS:
        raise unknown_name("layers", layers, LAYERS)
    names = {precision: FILES[precision] for precision in dict.fromkeys(precisions)}
    targets = [*names.values(), *([PROGRAM] if program else [])]
    found = [name for name in targets if (directory / name).exists()]
    if found and not force:
        raise StarError(f"{directory} already holds {found[0]}; give --force true to replace it")
    need_packages(_PACKAGES)
    directory.mkdir(parents=True, exist_ok=True)
    with staged(directory) as scratch, _quiet():
        return _write(student, scratch, names, layers, program)


def need_packages(packages: Sequence[str]) -> None:
    """Check optional packages.

    Raises:
        StarError: Naming the package that is missing and the extra that brings it.
    """
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise StarError(
                f"ONNX files need the package {package} ({error}); run "
                "pip install 'espnet_star[onnx]'"
            ) from error


def _write(
    student: StarEncoder, directory: Path, names: dict[str, str], layers: str, program: bool
) -> dict[str, float]:
    import onnx

    from espnet_star.formats.onnx.precision import convert

    exported = trace(student, layers)
    errors = {}
    if program:
        torch.export.save(exported, directory / PROGRAM)
        run = torch.export.load(directory / PROGRAM).module()
        errors[PROGRAM] = _check(student, run, layers, PROGRAM, TOLERANCES["float32"])
    output = "hidden_states" if layers == "all" else "last"
    model = torch.onnx.export(
        exported,
        (),
        dynamo=True,
        input_names=["speech", "lengths"],
        output_names=[output, "frames"],
        opset_version=OPSET,
        external_data=False,
        verbose=False,
    ).model_proto
    _name_sizes(model)
    for precision, name in names.items():
        converted = convert(model, precision)
        entry = converted.metadata_props.add()
        entry.key, entry.value = METADATA_KEY, json.dumps(_facts(student, layers, precision))
        onnx.save(converted, directory / name)
        run = _runner(directory / name)
        errors[name] = _check(student, run, layers, name, TOLERANCES[precision])
    return errors


def trace(student: StarEncoder, layers: str) -> torch.export.ExportedProgram:
    """Graph of the student with free batch and time."""
    batch = torch.export.Dim("batch")
    # Below two frames torch makes a graph for that size alone; ONNX files work there as well.
    samples = torch.export.Dim("samples", min=student.shape.field + student.shape.hop)
    return torch.export.export(
        PlainStudent(student, last=layers == "last"),
        (torch.zeros(2, SAMPLE_RATE), torch.tensor([SAMPLE_RATE, SAMPLE_RATE // 2])),
        dynamic_shapes=({0: batch, 1: samples}, {0: batch}),
        # Torch cannot prove by itself that frames of 320 samples fit into what was padded.
        prefer_deferred_runtime_asserts_over_guards=True,
    )


def _name_sizes(model: Any) -> None:
    """Call the free sizes by their names, where torch has numbered symbols."""
    graph = model.graph
    sizes = [size.dim_param for size in graph.input[0].type.tensor_type.shape.dim]
    names = dict(zip(sizes, ("batch", "samples"), strict=True))
    for value in (*graph.input, *graph.output, *graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = re.sub(
                    r"\w+", lambda match: names.get(match[0], match[0]), size.dim_param
                )


def _facts(student: StarEncoder, layers: str, precision: str) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": __version__,
        "precision": precision,
        "sample_rate": SAMPLE_RATE,
        "hop": student.shape.hop,
        "receptive_field": student.shape.field,
        "layers": layers,
        "num_layers": student.shape.layers,
        "width": student.shape.width,
        "pre_norm": student.shape.pre_norm,
    }


def _runner(path: Path) -> Any:
    session = open_session(path)

    def run(speech: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        states, frames = session.run(None, {"speech": speech.numpy(), "lengths": lengths.numpy()})
        return torch.from_numpy(states), torch.from_numpy(frames)

    return run


@torch.no_grad()
def _check(student: StarEncoder, run: Any, layers: str, name: str, tolerance: float) -> float:
    """Largest relative difference on a padded batch; refuses one above the tolerance."""
    speech, lengths = check_batch()
    ours = student.encode(speech, lengths)
    states: Sequence[torch.Tensor] = ours.hidden_states
    found, frames = run(speech, lengths)
    if layers == "last":
        states, found = [student.output(states[-1])], found[None]
    if not torch.equal(frames, ours.lengths):
        raise StarError(
            f"{name}: {lengths.tolist()} samples must give {ours.lengths.tolist()} frames, "
            f"got {frames.tolist()}; nothing was written"
        )
    mask = valid_mask(ours.lengths, found.shape[2])
    errors = [
        float((a - b)[mask].norm() / a[mask].norm()) for a, b in zip(states, found, strict=True)
    ]
    worst = max(range(len(errors)), key=errors.__getitem__)
    if not errors[worst] <= tolerance:
        raise StarError(
            f"{name} differs from the student by {errors[worst]:.2e} of layer {worst}'s size, "
            f"more than {tolerance:g}; nothing was written. Leave that precision out"
        )
    return errors[worst]


def check_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Padded batch of speech-like waveforms, rubbish past the ends.

    Voiced sounds and pauses 60 dB below them: coarse rounding shows in what is quiet.
    """
    generator = torch.Generator().manual_seed(0)
    # The first fills the batch and ends between two frames.
    lengths = torch.tensor([33199, 21333, 720])
    time = torch.arange(33199) / SAMPLE_RATE
    speech = 1e-4 * torch.randn(len(lengths), len(time), generator=generator)
    for row, pitch in enumerate((110.0, 180.0, 240.0)):
        phase = 2 * torch.pi * pitch * time + torch.sin(7 * time)
        voice = sum(torch.sin(harmonic * phase) / harmonic for harmonic in range(1, 12))
        speech[row] += 0.1 * torch.sin(2 * torch.pi * 3 * time).clamp(min=0) * voice
    return speech, lengths


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to ourselves what the exporters say about their own parts."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
