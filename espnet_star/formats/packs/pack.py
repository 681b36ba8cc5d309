"""Pack a student, or a model of ESPnet built on it, so that it runs without its folders."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from espnet2.bin.pack import main as espnet_pack

from espnet_star.errors import StarError, unknown_name
from espnet_star.files.model_file import read_model
from espnet_star.files.yaml_files import read_yaml
from espnet_star.formats.export import student_facts
from espnet_star.formats.model_card import CARD, Card, model_card
from espnet_star.formats.packs.card import packed_student, task_card
from espnet_star.formats.training_facts import training_facts
from espnet_star.students.directory import load_student
from espnet_star.students.experiment import MODEL_FILES, load_experiment

# ESPnet tells the format by the suffix, as we do.
SUFFIXES = (".zip", ".tgz", ".tar")
# Files that a configuration of ESPnet points to, as paths of keys in it.
_REFERENCES = (
    ("bpemodel",),
    ("token_list",),
    ("non_linguistic_symbols",),
    ("normalize_conf", "stats_file"),
)


@dataclass(frozen=True)
class Kind:
    """What ``espnet2.bin.pack`` and ESPnet's inference call the files of a task."""

    config: str
    model: str
    model_files: tuple[str, ...]


# By default what the recipes decode with: ESPnet's of a hybrid model, ours of a CTC model, whose
# training knows no accuracy. The last epoch is packed where there is nothing better.
LATEST = "latest.pth"
KINDS = {
    "ssl": Kind("ssl_train_config", "ssl_model_file", MODEL_FILES),
    "asr": Kind(
        "asr_train_config",
        "asr_model_file",
        ("valid.acc.ave.pth", "valid.loss.best.pth", "valid.loss.ave.pth", LATEST),
    ),
    "cls": Kind(
        "classification_train_config",
        "classification_model_file",
        ("valid.acc.best.pth", "valid.acc.ave.pth", LATEST),
    ),
    "spk": Kind("train_config", "model_file", ("valid.eer.best.pth", "valid.eer.ave.pth", LATEST)),
}


def pack_model(
    task: str,
    expdir: str | Path,
    outpath: str | Path,
    card: Card,
    model_file: str | None = None,
    student: str | Path | None = None,
    options: Sequence[str | Path] = (),
    force: bool = False,
) -> Path:
    """Pack a trained model with ``espnet2.bin.pack``.

    The files are gathered in a scratch folder under relative names, the paths in the
    configuration rewritten to them, so that nothing of this machine is needed again.

    Args:
        task: ``"ssl"`` for a distilled student, else one of ESPnet's: asr, cls, spk.
        expdir: Folder of the training.
        outpath: The pack, one of ``SUFFIXES``.
        card: What its README says.
        model_file: Model in ``expdir``; the one that the recipe uses by default.
        student: Hugging Face directory of a student, packed along with ``"ssl"``; written
            anew by default.
        options: More files to pack.
        force: Replace ``outpath``.

    Raises:
        StarError: If something is missing, there already, or the model would not run
            without a folder that stays behind, e.g. a teacher's.
    """
    if task not in KINDS:
        raise unknown_name("task", task, KINDS)
    expdir, outpath, kind = Path(expdir), Path(outpath).absolute(), KINDS[task]
    if outpath.suffix not in SUFFIXES:
        raise StarError(f"{outpath} must end in one of {', '.join(SUFFIXES)}")
    if outpath.exists() and not force:
        raise StarError(f"{outpath} exists already; give --force true to replace it")
    if student is not None and task != "ssl":
        raise StarError(f"student belongs to ssl packs; a {task} model holds its own student")
    config = read_config(expdir)
    model = find_model(expdir, kind, model_file)
    extras = check_options(options)
    outpath.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{outpath.stem}.", dir=outpath.parent) as scratch:
        root = Path(scratch)
        home = root / "exp" / expdir.resolve().name
        home.mkdir(parents=True)
        if task == "ssl":
            text = _stage_student(root, expdir, model, student, card)
        else:
            check_stands_alone(config, model)
            text = task_card(task, card, config, home.relative_to(root).as_posix(), model.name)
        (root / CARD).write_text(text, encoding="utf-8")
        _point_to_packed(config, root)
        shutil.copyfile(model, home / model.name)
        (home / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        for path in extras:
            shutil.copyfile(path, root / path.name)
        _run_pack(task, root, home / model.name, outpath)
    return outpath


def read_config(expdir: Path) -> dict[str, Any]:
    """``config.yaml`` of an experiment.

    Raises:
        StarError: If there is none.
    """
    path = expdir / "config.yaml"
    if not path.is_file():
        raise StarError(f"{expdir} has no config.yaml; expected the folder of a training")
    return read_yaml(path, str(path))


def find_model(expdir: Path, kind: Kind, name: str | None = None) -> Path:
    """Model file of an experiment, the first there is of its kind unless named.

    Raises:
        StarError: If there is none.
    """
    names = kind.model_files if name is None else (name,)
    for candidate in names:
        path = expdir / candidate
        if path.is_file():
            return path
    raise StarError(
        f"{expdir} has none of {', '.join(names)}: no epoch has finished yet, or it is called "
        "otherwise (--model_file)"
    )


def check_stands_alone(config: dict[str, Any], model: Path) -> None:
    """Refuse a model that needs more than its configuration and weights.

    Raises:
        StarError: If its frontend is a teacher, whose weights are not in the model, or the
            weights of its student are missing.
    """
    for part in ("frontend", "encoder"):
        if config.get(part) != "star":
            continue
        conf = config.get(f"{part}_conf") or {}
        if part == "frontend" and "student_conf" not in conf:
            raise StarError(
                f"{model.parent}: the frontend is the teacher {conf.get('upstream')!r}, whose "
                "weights are in its own folder and not in the model; pack a model on a student"
            )
        prefix = "frontend.upstream." if part == "frontend" else "encoder."
        if not any(key.startswith(prefix) for key in read_model(model)):
            raise StarError(
                f"{model} holds no weights {prefix}*; it is not the model of its folder"
            )


def check_options(options: Sequence[str | Path]) -> list[Path]:
    """Files to pack besides, which land at the top under their own names.

    Raises:
        StarError: If one is missing or would take another's place.
    """
    paths = [Path(option) for option in options]
    taken = {CARD, "meta.yaml", "config.json", "model.safetensors"}
    for path in paths:
        if not path.is_file():
            raise StarError(f"{path} is no file; nothing was packed")
        if path.name in taken:
            raise StarError(f"{path}: the pack has a {path.name} already; rename it")
        taken.add(path.name)
    return paths


def _stage_student(
    root: Path, expdir: Path, model: Path, directory: str | Path | None, card: Card
) -> str:
    """Put the student's directory at the top; returns the README."""
    student = load_experiment(expdir, model)
    if directory is None:
        student.save_pretrained(root)
    else:
        exported = load_student(directory).state_dict()
        weights = student.state_dict()
        if exported.keys() != weights.keys() or not all(
            torch.equal(exported[key], value) for key, value in weights.items()
        ):
            raise StarError(
                f"{directory} is not the student in {model}; export it again (star_export "
                "transformers), or name the model it came from (--model_file)"
            )
        for path in sorted(Path(directory).iterdir()):
            if path.suffix in {".json", ".safetensors"}:
                shutil.copyfile(path, root / path.name)
    written = None if directory is None else Path(directory) / CARD
    if written is not None and written.is_file():
        return packed_student(written.read_text(encoding="utf-8"), card)
    # A pack is unpacked into a folder; a hub's name can be loaded itself.
    name = "student" if Path(card.name).suffix in SUFFIXES else card.name
    facts = student_facts(student, training_facts(expdir))
    return packed_student(model_card(Card(name, card.license, terms=None), facts), card)


def _point_to_packed(config: dict[str, Any], root: Path) -> None:
    """Copy the files that a configuration points to, and point it to the copies."""
    for *parents, key in _REFERENCES:
        holder: Any = config
        for parent in parents:
            holder = holder.get(parent) or {}
        value = holder.get(key)
        if not isinstance(value, str):
            continue
        path = Path(value)
        if not path.is_file():
            if key in {"token_list", "non_linguistic_symbols"} or os.sep in value:
                raise StarError(
                    f"{value}, the {key} of the configuration, is not here; run this where the "
                    "training ran"
                )
            continue  # a name of its own, e.g. bpemodel: whisper_en
        target = root / "data" / path.name
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)
        holder[key] = target.relative_to(root).as_posix()


def _run_pack(task: str, root: Path, model: Path, outpath: Path) -> None:
    """Let ESPnet write the archive; names in it are relative to where it runs."""
    kind = KINDS[task]
    named = {model, model.parent / "config.yaml"}
    rest = sorted(path for path in root.rglob("*") if path.is_file() and path not in named)
    command = [task, f"--{kind.config}", str(model.parent / "config.yaml")]
    command += [f"--{kind.model}", str(model)]
    for path in rest:
        command += ["--option", str(path)]
    archive = root / f"pack{outpath.suffix}"
    with _inside(root), redirect_stdout(io.StringIO()):
        espnet_pack([*command, "--outpath", str(archive)])
    archive.replace(outpath)


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Work in a folder for a while, as contextlib.chdir does from Python 3.11 on."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
