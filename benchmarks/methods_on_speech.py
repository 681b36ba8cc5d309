"""Every configuration of conf/methods once on real speech, small: does its loss fall?

python benchmarks/methods_on_speech.py --raw dump/raw --teacher DIR --student DIR --output_dir exp

Reads the demo's prepared sets (`make demo`; `asr_train` and `valid`), its teacher, and for LASER
and SCORE its student. Students are the demo's size, half as deep as published, and layers of a
teacher of six stand for those of twelve. Trainings are `star_train`, 300 updates each of 5 s of
speech with a constant learning rate; `star_report` draws their curves. Labels are those of
`star_clusters`, made here. A teacher without a vector for masked frames (Whisper) cannot be
masked: then the student alone is, and all its frames follow the teacher's. It has no projection
either: state 0 stands for it. What is finished is not
run again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from harness import publish

from espnet_star.evaluate.report.curves import read_curves
from espnet_star.students import STUDENTS
from espnet_star.training.layered_config import read_layers

CONF = Path(__file__).resolve().parents[1] / "conf" / "methods"
STAR = [sys.executable, "-m", "espnet_star"]
CLUSTERS = 100
DEPTH, PUBLISHED = 6, 12
SIZES = {"hidden_size": 240, "intermediate_size": 640, "num_attention_heads": 4}
DROPOUTS = ("feat_proj_dropout", "hidden_dropout", "attention_dropout", "activation_dropout")


def small(values: dict[str, Any]) -> dict[str, Any]:
    """Options of the student, in the demo's size."""
    given = dict(values.get("encoder_conf") or {})
    given.pop("init_from", None)  # widths are not the teacher's
    known = STUDENTS.find(values.get("encoder", "star"))
    preset = known.presets[given.setdefault("preset", "starhubert")]
    options = given | SIZES | dict.fromkeys(DROPOUTS, 0.0)
    if preset["num_hidden_layers"] == PUBLISHED:
        options["num_hidden_layers"] = DEPTH
    if preset.get("reuse"):
        options["reuse"] = preset["reuse"][:DEPTH]
    if "conv_dim" in preset:
        same = preset["conv_dim"][-1] == preset["hidden_size"]
        inner = [128] * (len(preset["conv_dim"]) - 2)
        options["conv_dim"] = [64, *inner, 240 if same else 256]
        if len(preset["conv_dim"]) == 9:
            options["conv_dim"][6:] = [options["conv_dim"][-1]] * 3
    return options


def half(layer: Any) -> Any:
    """A layer of twelve as one of six; within lists and inner states likewise."""
    if isinstance(layer, dict):
        return {key: half(value) for key, value in layer.items()}
    if isinstance(layer, list):
        return sorted({half(each) for each in layer})
    if layer == "projection":  # Whisper has none
        return 0
    return max(1, layer * DEPTH // PUBLISHED) if layer > 1 else layer


def objectives(losses: Sequence[dict[str, Any]], conv_dim: Sequence[int]) -> list[dict[str, Any]]:
    """The objectives for students and teachers of six layers."""
    found = []
    for entry in losses:
        conf = dict(entry.get("conf") or {})
        if len(conf.get("layers", ())) == PUBLISHED:
            conf["layers"] = conf["layers"][:DEPTH]
            conf["pair_weights"] = conf["pair_weights"][-DEPTH:]
        elif entry["name"] == "frame_match" and "layers" in conf:
            conf["layers"] = [[half(layer) for layer in pair] for pair in conf["layers"]]
        else:
            conf |= {key: half(conf[key]) for key in ("layer", "layers") if key in conf}
        for key, value in (("clusters", CLUSTERS), ("channels", conv_dim[-1:])):
            if key in conf:
                conf[key] = value[0] if key == "channels" else value
        name = "frame_match" if entry["name"] == "masked_match" else entry["name"]
        found.append({**entry, "name": name, "conf": conf})
    return found


def data(raw: Path, labels: Path | None) -> list[str]:
    """Options that read the sets."""
    options = []
    for part, name in (("train", "asr_train"), ("valid", "valid")):
        option = f"--{part}_data_path_and_name_and_type"
        options += [option, f"{raw}/{name}/wav.scp,speech,sound"]
        options += [f"--{part}_shape_file", f"{raw}/{name}/utt2num_samples"]
        if labels is not None:
            options += [option, f"{labels}/{name}/labels,labels,text_int"]
    return options


def training(name: str, args: argparse.Namespace, exp: Path) -> list[str]:
    """Command line of a method's training."""
    values = read_layers(CONF / f"{name}.yaml")
    tuned = name in ("laser", "score")
    encoder = {"upstream": str(args.student)} if tuned else small(values)
    frozen = [part for part in values.get("freeze_param", []) if part[-1] not in "456789"]
    teacher = args.student if name == "score" else values.get("teacher") or args.teacher
    changes = {
        "teacher": str(teacher),
        "encoder_conf": encoder,
        "losses": objectives(values["losses"], encoder.get("conv_dim", [0])),
        "batch_type": "numel",
        "batch_bins": 80000,
        "accum_grad": 1,
        "expected_batch": None,
        "expected_updates": None,
        "max_epoch": 3,
        "num_iters_per_epoch": args.updates // 3,
        "optim": "adamw",
        "optim_conf": {"lr": 1.0e-4 if tuned else 1.0e-3},
        "scheduler": "warmuplr",
        "scheduler_conf": {"warmup_steps": 30},
        "freeze_param": frozen,
        "num_workers": 1,
        "keep_nbest_models": 1,
        "use_matplotlib": False,
        "log_interval": 10,
    }
    exp.mkdir(parents=True, exist_ok=True)
    merged = {key: value for key, value in values.items() if key not in changes} | changes
    (exp / "train.yaml").write_text(yaml.safe_dump(merged))
    labels = args.output_dir / "labels" if values.get("view") == "labelled" else None
    options = ["--config", str(exp / "train.yaml"), "--output_dir", str(exp), "--ngpu", "0"]
    return [*STAR, "star_train", *options, "--resume", "true", *data(args.raw, labels)]


def make_labels(args: argparse.Namespace) -> None:
    """Clusters of the teacher's middle layer."""
    out = args.output_dir / "labels"
    how = ["--layer", str(DEPTH // 2), "--clusters", str(CLUSTERS)]
    for name in ("asr_train", "valid"):
        line = [*STAR, "star_clusters", "--upstream", str(args.teacher), *how]
        line += ["--data_dir", f"{args.raw}/{name}", "--output_dir", str(out / name)]
        if not (out / name / "labels").exists():
            subprocess.run(line, check=True)
        how = ["--centroids", f"{out}/asr_train/centroids.safetensors"]


COLUMNS = {
    "method": ("method", ""),
    "first": ("train, first third", ".4g"),
    "last": ("train, last third", ".4g"),
    "valid_first": ("valid, after a third", ".4g"),
    "valid_last": ("valid, at the end", ".4g"),
    "fallen": ("train has fallen by", ".0%"),
    "status": ("", ""),
}


def row(name: str, exp: Path, code: int) -> dict[str, Any]:
    """What became of the loss."""
    if code:
        return {"method": name, "status": f"failed: {exp}/train.log"}
    curves = read_curves(exp)
    train, valid = curves.train["loss"].values, curves.valid["loss"].values
    third = len(train) // 3
    first, last = (sum(part) / third for part in (train[:third], train[-third:]))
    fallen = (first - last) / abs(first)
    values = {"first": first, "last": last, "valid_first": valid[0], "valid_last": valid[-1]}
    return {"method": name, **values, "fallen": fallen, "status": "" if fallen > 0 else "not lower"}


def main() -> None:
    """Train all, print a row each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for option in ("raw", "teacher", "student", "output_dir"):
        parser.add_argument(f"--{option}", type=Path, required=True)
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--methods", nargs="+", help="All by default")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json")
    parser.add_argument("--markdown")
    args = parser.parse_args()
    make_labels(args)
    found = sorted(path.stem for path in CONF.glob("*.yaml") if path.stem != "schedule_linear")
    rows = []
    for name in args.methods or found:
        exp = args.output_dir / name
        line, done = training(name, args, exp), exp / "3epoch.pth"
        code = 0
        if not done.exists():
            with (exp / "train.log").open("w") as log:
                code = subprocess.run(line, stdout=log, stderr=log, check=False).returncode
        rows.append(row(name, exp, code))
        print(rows[-1], file=sys.stderr, flush=True)
    publish("Methods on real speech", COLUMNS, rows, args)


if __name__ == "__main__":
    main()
