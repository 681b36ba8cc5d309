"""A bug here calls a GPU's wrong results right, or loses what was measured before something broke.

All on the CPU, with tiny models: there is no GPU here.
"""

import dataclasses
import json
import math
import re
import subprocess
import sys
import time
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import collect_wheels
import gpu
import gpu_correct
import gpu_step
import pytest
import torch
from gpu_card import GPUS, known_gpu
from gpu_run import NOT_COMPILED, Run, attempt

from espnet_star.kernels import gram_forms
from espnet_star.kernels.predicate import FORMS, NOWHERE
from espnet_star.students import front
from espnet_star.teachers.transformers_encoder import TransformersTeacher

BENCHMARKS = Path(gpu.__file__).parent
# However busy the machine is.
SMALL = ["--device", "cpu", "--small", "--no_compile", "--minutes", "60"]


@pytest.fixture
def run():
    return Run("cpu", small=True, end=time.monotonic() + 600)


def needs(distribution):
    """What a distribution requires at least."""
    lines = [line for line in requires(distribution) or [] if "extra ==" not in line]
    return {re.split(r"[ ;<>=!~\[(]", line)[0].lower() for line in lines}


def not_collected():
    """Modules of ESPnet's requirements that neither torch's images have nor collect_wheels.py."""
    brought = {name.lower() for name in (*collect_wheels.ALONE, *collect_wheels.FULL)}
    there = {"torch", "numpy", *brought, *needs("torch"), *needs("transformers")}
    absent = needs("espnet") - there
    modules = packages_distributions().items()
    return [module for module, of in modules if {name.lower() for name in of} & absent]


def test_the_whole_script_on_a_cpu(tmp_path):
    """As users run it; fails too if a step comes to need more of ESPnet than is collected."""
    files = ["--json", str(tmp_path / "new" / "g.json"), "--markdown", str(tmp_path / "g.md")]
    absent = not_collected()
    assert {"soundfile", "sentencepiece"} <= set(absent) and "torch" not in absent
    program = (
        "import sys, json; sys.path.insert(0, sys.argv.pop(1));"
        "sys.modules.update(dict.fromkeys(json.loads(sys.argv.pop(1))));"
        "import gpu; raise SystemExit(gpu.main())"
    )
    command = [sys.executable, "-c", program, str(BENCHMARKS), json.dumps(absent), *SMALL, *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads(Path(files[1]).read_text(encoding="utf-8"))
    found = {section["key"]: section for section in content["sections"]}
    assert list(found) == list(gpu.SECTIONS)
    assert not [section["error"] for section in found.values() if "error" in section]
    assert {row["verdict"] for row in found["correct"]["rows"]} == {"ok"}
    steps = found["step"]["rows"]
    assert len(steps) == 7 and all(row["audio_rate"] > 0 for row in steps)
    for key, bound in (("objective", 1e-2), ("variants", 1e-2), ("near", 0.1)):
        assert all(row["value_error"] < bound for row in found[key]["rows"]), key
    assert all(row["outcome"] == "ok" and row["step_ms"] > 0 for row in found["target"]["rows"])
    assert len(found["inference"]["rows"]) == 4
    assert [row["outcome"] for row in found["compiled"]["rows"]] == ["skipped: not asked for"] * 2
    assert found["memory"]["notes"] == ["Skipped: needs a GPU."]
    assert content["machine"]["card"] == found["step"]["card"]["card"] == "CPU"
    text = Path(files[3]).read_text(encoding="utf-8")
    assert all(f"## {section.title}\n" in text for section in gpu.SECTIONS.values())
    assert "failed" not in text and "OFF" not in text


def doubled(function):
    return lambda *args, **kwargs: function(*args, **kwargs) * 1.01


FAULTS = {
    "value": (gram_forms, "_frame_part", doubled(gram_forms._frame_part), "frames"),
    "gradient": (gram_forms.Term, "intralayer", property(lambda _: 1.01), "gradient"),
    "padding": (
        front,
        "masked_group_norm",
        lambda x, _, *rest: torch.nn.functional.group_norm(x, x.shape[1], *rest),
        "student",
    ),
    "nan": (
        TransformersTeacher,
        "prepare_speech",
        lambda self, speech, lengths, mask: speech.float() * math.nan,
        "teacher",
    ),
}


def test_the_objective_as_a_gpu_computes_it(run, monkeypatch):
    """The batch as a whole, padding zeroed first; fails if rubbish past an end is read."""
    monkeypatch.setitem(FORMS, "gram_pieces", NOWHERE)
    assert {row["verdict"] for row in gpu_correct.objective(run)} == {"ok"}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen(fault, run, monkeypatch):
    """Of one percent, of padding that is heard, or NaN."""
    place, name, wrong, where = FAULTS[fault]
    part = gpu_correct.encoders if fault in ("padding", "nan") else gpu_correct.objective
    monkeypatch.setitem(FORMS, "front", NOWHERE)  # the front of GPUs
    assert {row["verdict"] for row in part(run)} == {"ok"}
    if fault == "gradient":
        monkeypatch.setattr(place, "__init__", _wrong_term)
    else:
        monkeypatch.setattr(place, name, wrong)
    off = [row["what"] for row in part(run) if row["verdict"] == "OFF"]
    assert off and all(where in what for what in off)


def _wrong_term(self, layerwise, intralayer, scale):
    for name, value in (("layerwise", layerwise), ("intralayer", 1.01 * intralayer)):
        object.__setattr__(self, name, value)
    object.__setattr__(self, "scale", scale)


def test_updates_that_go_elsewhere_are_seen(run, monkeypatch):
    """Fails if losses, gradients or weights are compared with themselves."""
    real, turns = gpu_correct.models.student, iter(range(9))

    def student(*args, **kwargs):
        made = real(*args, **kwargs)
        with torch.no_grad():
            made.encoder.layers[0].attention.v_proj.weight.mul_(1 + 20 * next(turns))
        return made

    monkeypatch.setattr(gpu_correct.models, "student", student)
    rows = list(gpu_correct.updates(run))
    off = {row["what"] for row in rows if row["verdict"] == "OFF"}
    assert off >= {"losses of 3 updates", "first gradient", "change of the weights in 3 updates"}


def test_a_section_that_breaks_leaves_the_others(tmp_path, monkeypatch, capsys):
    def breaks(run):
        yield {"what": "before", "rate": 1.0}
        raise RuntimeError("first line\nsecond")

    broken = dataclasses.replace(gpu.SECTIONS["card"], rows=breaks)
    monkeypatch.setitem(gpu.SECTIONS, "card", broken)
    json_file = tmp_path / "g.json"
    command = [*SMALL, "--json", str(json_file), "--sections", "card", "memory"]
    assert gpu.main(command) == 1
    first, second = json.loads(json_file.read_text(encoding="utf-8"))["sections"]
    assert first["rows"] == [{"what": "before", "rate": 1.0}]
    assert first["notes"] == ["Failed: RuntimeError: first line"] and "second" in first["error"]
    assert second["key"] == "memory"
    assert "Failed: RuntimeError: first line" in capsys.readouterr().out


def test_what_no_longer_fits_is_skipped_and_said(capsys):
    assert gpu.main([*SMALL, "--minutes", "0"]) == 0
    out = capsys.readouterr().out
    assert out.count("Skipped: 0 s of the time were left.") == len(gpu.SECTIONS) - 1


def test_out_of_memory_and_a_failed_compilation_are_lines(run, monkeypatch):
    def full():
        raise torch.OutOfMemoryError("CUDA out of memory")

    def no_compiler(_):
        raise RuntimeError("no C compiler")

    assert attempt(run, full) == {"outcome": "out of memory"}
    monkeypatch.setattr(gpu_step, "compile_networks", no_compiler)
    (row,) = gpu_step.rows_of(run, gpu_step.COMPILED[0])
    assert row["outcome"] == NOT_COMPILED + "RuntimeError: no C compiler"


def test_wheels_are_those_of_the_other_machine():
    """Fails if ESPnet's dependencies are fetched, or wheels of this Python."""
    alone, full = collect_wheels.pip_commands("there", "3.12", "x86_64", full=True)
    assert "--no-deps" in alone and "--no-deps" not in full
    assert {"espnet", "humanfriendly"} <= set(alone) and "espnet" not in full
    for line in (alone, full):
        assert line[line.index("--python-version") + 1] == "3.12"
        assert line[line.index("--dest") + 1] == "there" and "--only-binary=:all:" in line
        assert "manylinux_2_28_x86_64" in line and "manylinux2014_x86_64" in line


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("NVIDIA H200", "h200"),
        ("NVIDIA H100 80GB HBM3", "h100-80g"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA A100-SXM4-80GB", "a100-80g"),
        ("NVIDIA A100 80GB PCIe", "a100-80g"),
        ("NVIDIA A100-SXM4-40GB", "a100-40g"),
        ("Tesla V100-SXM2-32GB", "v100-32g"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
    ],
)
def test_a_card_is_known_by_its_driver_name(name, key):
    """Fails if a share of the peak is told of another card's peak."""
    assert known_gpu(name) is GPUS[key]


@pytest.mark.parametrize("name", ["NVIDIA H200 NVL", "NVIDIA A100X", "NVIDIA L40", "AMD EPYC"])
def test_an_unknown_card_has_no_peak(name):
    assert known_gpu(name) is None
