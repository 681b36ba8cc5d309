"""Write the pages that are read from the code, into a folder that git ignores."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
from pathlib import Path

from commands import commands_page, heading, own_parsers, star_train_page
from reference import ARCHITECTURE, Key, Section, espnet_sections, star_train_sections

from espnet_star.students.config import PRESETS
from espnet_star.teachers import TEACHERS

HERE = Path(__file__).resolve().parent
TARGET = HERE / "generated"
RECIPE = HERE.parent / "egs2" / "TEMPLATE" / "star1"
# Prefix of a key where a registry name would only repeat the option's.
PLAIN = ("", "star", "architecture")

INTRODUCTIONS = {
    "model_conf": "How the distillation runs.",
    "teacher_conf": "Which adapter reads ``--teacher``, and how. Keys of the adapter stand beside "
    "``kind``: ``teacher_conf: {kind: whisper, dtype: bfloat16}``.",
    "losses": "A list; the loss is the weighted sum: ``losses: [{name: temporal_gram, weight: "
    "1.0, conf: {scope: utterance}}]``. ``weight`` is 1 and ``conf`` empty where left out. "
    ":doc:`../method` has the equations.",
    "view_conf": "Options of ``view``: what is fed to whom.",
    "encoder_conf": "The student. Any key of the architecture may stand beside ``preset`` or "
    "``upstream``, whose value it replaces.",
}

# Pages of the API: packages with all their modules, and modules of the top.
API = {
    "Inference": ["espnet_star.inference"],
    "Students": ["espnet_star.students"],
    "Teachers": ["espnet_star.teachers"],
    "Objectives": ["espnet_star.losses"],
    "Views": ["espnet_star.views"],
    "Distillation": [
        "espnet_star.distillation",
        "espnet_star.tasks.star",
        "espnet_star.training.trainer",
    ],
    "ESPnet's tasks": [
        "espnet_star.downstream.frontend",
        "espnet_star.downstream.heads",
        "espnet_star.tasks.plugin",
    ],
    "Outputs and errors": ["espnet_star.outputs", "espnet_star.errors", "espnet_star.encoders"],
    "Formats": ["espnet_star.formats"],
    "Data": ["espnet_star.data"],
    "Evaluation": ["espnet_star.evaluate", "espnet_star.jobs"],
}


def configuration_page() -> str:
    """Every key of ``star_train``, then those of the student in ESPnet's tasks."""
    lines = heading("Configuration", "=")
    lines += [
        "Keys of YAML files and of the options of the same names, read from the signatures and",
        "docstrings of the code. Everything else is ESPnet's: :doc:`star_train`.",
    ]
    lines += heading("star_train", "-")
    shown = ""
    for section in star_train_sections():
        if section.where != shown:
            shown = section.where
            lines += [*heading(shown, "^"), INTRODUCTIONS[shown], ""]
        lines += section_lines(section)
    lines += preset_table()
    lines += heading("The student in ESPnet's tasks", "-")
    for section in espnet_sections():
        lines += heading(f"{section.where} of {section.name}", "^")
        lines += [f"Tasks: {', '.join(section.tasks)}.", ""]
        if (section.where, section.name) == ("encoder_conf", "star"):
            lines += ["The keys are those of ``encoder_conf`` above.", ""]
        else:
            lines += section_lines(section)
    return "\n".join(lines) + "\n"


def section_lines(section: Section) -> list[str]:
    """What takes the keys, and the keys."""
    lines = []
    if section.name:
        first = (inspect.getdoc(section.target) or "").split("\n\n")[0]
        lines += [f"**{section.name}**: {' '.join(first.split())}", ""]
    prefix = section.where if section.name in PLAIN else section.name
    for key in section.keys:
        lines += key_lines(prefix, key)
    return lines


def key_lines(prefix: str, key: Key) -> list[str]:
    """One key."""
    lines = [f".. confval:: {prefix}.{key.name}"]
    if key.type:
        lines.append(f"   :type: ``{key.type}``")
    lines.append(
        f"   :default: {'given by ESPnet' if key.default is None else f'``{key.default}``'}"
    )
    return [*lines, "", *(f"   {line}".rstrip() for line in key.meaning.splitlines()), ""]


def preset_table() -> list[str]:
    """Where presets differ."""
    names = [name for name in ARCHITECTURE if len({str(p[name]) for p in presets()}) > 1]
    lines = ["", "**Presets**: where they differ. The rest is as above.", ""]
    lines += [".. list-table::", "   :header-rows: 1", ""]
    rows = [["key", *PRESETS]] + [[name, *(str(p[name]) for p in presets())] for name in names]
    for row in rows:
        lines += [f"   {'*' if index == 0 else ' '} - {cell}" for index, cell in enumerate(row)]
    return [*lines, ""]


def presets() -> list[dict[str, object]]:
    """Architecture of each preset in full."""
    return [ARCHITECTURE | preset for preset in PRESETS.values()]


def api_page(title: str, names: list[str]) -> str:
    """Reference of some modules; a package brings all of its own."""
    lines = heading(title, "=")
    for name in names:
        module = importlib.import_module(name)
        inner = pkgutil.iter_modules(getattr(module, "__path__", []))
        for full in [name, *(f"{name}.{found.name}" for found in inner)]:
            lines += [*heading(full, "-"), f".. automodule:: {full}", ""]
            # What a package hands on is described with the package, where users import it.
            handed_on = sorted(getattr(module, "__all__", [])) if full != name else []
            if handed_on:
                lines.insert(-1, f"   :exclude-members: {', '.join(handed_on)}")
    return "\n".join(lines) + "\n"


def api_pages() -> dict[str, str]:
    """File name and text of each page of the API, and of the list of them."""
    pages = {f"api_{names[0].split('.')[-1]}.rst": api_page(t, names) for t, names in API.items()}
    index = [*heading("API", "="), ".. toctree::", "   :maxdepth: 2", ""]
    index += [f"   {Path(name).stem}" for name in pages]
    return pages | {"api.rst": "\n".join(index) + "\n"}


def teacher_table() -> str:
    """What a teacher may be, by its ``config.json`` or its files, and the kind that reads it."""
    lines = ["| Teacher | `kind` |", "| --- | --- |"]
    for kind, adapter in TEACHERS.items():
        names = ", ".join(f"`{model_type}`" for model_type in adapter.model_types)
        what = f"`config.json` with `model_type` {names}" if names else adapter.reads
        lines.append(f"| {what} | `{kind}` |")
    return "\n".join(lines) + "\n"


def recipe_help() -> str:
    """What ``star.sh --help`` prints."""
    done = subprocess.run(
        ["./star.sh", "--help"], cwd=RECIPE, capture_output=True, text=True, check=True
    )
    return done.stdout


def write_pages(target: Path = TARGET) -> None:
    """Write every generated page; unchanged ones keep their time, so Sphinx skips them."""
    target.mkdir(exist_ok=True)
    pages = {
        "configuration.rst": configuration_page(),
        "commands.rst": commands_page(own_parsers()),
        "star_train.rst": star_train_page(),
        "teacher_types.md": teacher_table(),
        "star_sh.txt": recipe_help(),
        **api_pages(),
    }
    for name, text in pages.items():
        path = target / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_pages()
