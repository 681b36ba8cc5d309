"""The page: figures and tables into one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.resources import files
from pathlib import Path

from espnet_star.errors import StarError
from espnet_star.evaluate.machine import machine_facts
from espnet_star.evaluate.report import figures, tables
from espnet_star.evaluate.report.experiment import Experiment
from espnet_star.evaluate.report.figures import Drawing
from espnet_star.evaluate.report.heads import HeadWeights
from espnet_star.evaluate.report.tables import Table
from espnet_star.losses import term_titles


@dataclass
class Block:
    """Figures and the tables that say the same in numbers."""

    figures: list[Drawing] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    note: str = ""


@dataclass
class Chapter:
    """What an experiment has to itself."""

    label: str
    state: str
    finished: bool
    notes: list[str]
    gram: Block
    similarity: Block
    settings: Table
    config_text: str


@dataclass
class Page:
    """Everything on the page, in its order.

    Attributes:
        title: Of the document.
        made: When.
        overview: One row an experiment.
        curves: Loss terms and learning rates.
        chapters: One an experiment.
        heads: Layer weights by task.
        other_heads: Downstream systems without layers of ours.
        results: Scores, where given.
        costs: Size and operations.
        versions: Of the trainings and of this page.
    """

    title: str
    made: str
    overview: Table
    curves: Block
    chapters: list[Chapter]
    heads: list[Block]
    other_heads: list[str]
    results: Table | None
    costs: Table
    versions: Table

    def drawings(self) -> list[Drawing]:
        """Every figure."""
        blocks = [self.curves, *self.heads]
        for chapter in self.chapters:
            blocks += [chapter.gram, chapter.similarity]
        return [drawing for block in blocks for drawing in block.figures]


def compose(
    experiments: Sequence[Experiment],
    heads: tuple[list[HeadWeights], list[str]],
    results: Table | None,
    now: datetime,
) -> Page:
    """Draw every figure and fill every table.

    Args:
        experiments: Compared with their teachers already.
        heads: Of :func:`read_heads`.
        results: Scores, or None.
        now: Time of the page.
    """
    return Page(
        title="Distillation report: " + ", ".join(found.label for found in experiments),
        made=f"{now:%Y-%m-%d %H:%M %Z}",
        overview=tables.overview(experiments),
        curves=_curves(experiments),
        chapters=[_chapter(number, found, now) for number, found in enumerate(experiments, 1)],
        heads=_heads(heads[0]),
        other_heads=heads[1],
        results=results,
        costs=tables.costs(experiments),
        versions=tables.versions(experiments, machine_facts()),
    )


def _curves(experiments: Sequence[Experiment]) -> Block:
    block = Block()
    terms = dict.fromkeys(term for found in experiments for term in found.curves.terms())
    titles: dict[str, str] = {}
    for found in experiments:
        titles |= term_titles(found.config["losses"])
    for term in terms:
        train, valid = (
            {e.label: side(e)[term] for e in experiments if term in side(e)}
            for side in (lambda e: e.curves.train, lambda e: e.curves.valid)
        )
        name = f"curve_{len(block.figures) + 1}"
        block.figures.append(figures.draw_curves(name, titles.get(term, term), train, valid))
    rates = {}
    for found in experiments:
        groups = found.curves.rates()
        for group, series in groups.items():
            rates[found.label if len(groups) == 1 else f"{found.label}, {group}"] = series
    if rates:
        block.figures.append(figures.draw_curves("learning_rate", "Learning rate", rates))
    sources = ", ".join(found.curves.source for found in experiments if found.curves.source)
    if not sources:
        block.note = "No training log was found."
        return block
    block.note = (
        f"Lines: training, means over the last batches. Diamonds: valid set, at the end of each "
        f"epoch. Read from {sources}."
    )
    return block


def _chapter(number: int, experiment: Experiment, now: datetime) -> Chapter:
    gram, similarity = Block(), Block()
    found = experiment.comparison
    if found is not None:
        for index, panel in enumerate(found.panels, 1):
            name = f"gram_{number}_{index}"
            gram.figures.append(figures.draw_gram(name, panel, found.normalized))
        gram.note = f"Utterances of {found.source}."
        states = " Of layer-normalized states, as in the objective." if found.normalized else ""
        note = (
            f"Over {found.utterances} utterances, {found.frames} frames, of {found.source}. "
            f"Framed: the teacher layer that a student layer follows.{states}"
        )
        for system, values in found.similarity.items():
            title = f"Linear CKA, teacher and {system}"
            similarity.figures.append(
                figures.draw_similarity(
                    f"cka_{number}_{system}", title, values.numpy(), found.layer_map, note
                )
            )
            similarity.tables.append(tables.similarities(experiment, system))
    return Chapter(
        label=experiment.label,
        state=experiment.state(now),
        finished=experiment.finished,
        notes=experiment.notes,
        gram=gram,
        similarity=similarity,
        settings=tables.settings(experiment),
        config_text=experiment.config_text,
    )


def _heads(heads: Sequence[HeadWeights]) -> list[Block]:
    blocks = []
    for number, task in enumerate(dict.fromkeys(head.task for head in heads), 1):
        chosen = [head for head in heads if head.task == task]
        drawing = figures.draw_heads(f"heads_{number}", task, chosen)
        blocks.append(Block([drawing], [tables.layer_weights(task, chosen)]))
    return blocks


def render(page: Page) -> str:
    """The page as HTML; every text is escaped, figures alone are markup.

    Raises:
        StarError: If Jinja is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise StarError(
            "star_report needs jinja2, which is not installed; pip install espnet_star[recipes]"
        ) from error
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["markup"] = Markup
    source = files("espnet_star.evaluate.report").joinpath("page.html").read_text("utf-8")
    return environment.from_string(source).render(page=page)


def write(page: Page, outdir: Path) -> tuple[Path, int]:
    """Write ``index.html`` and ``figures/*.png``, the page last.

    Returns:
        The page's path, and the number of figures.

    Raises:
        StarError: If they cannot be written.
    """
    html = render(page)
    drawings = page.drawings()
    path = outdir / "index.html"
    try:
        (outdir / "figures").mkdir(parents=True, exist_ok=True)
        for old in (outdir / "figures").glob("*.png"):
            old.unlink()
        for drawing in drawings:
            (outdir / "figures" / f"{drawing.name}.png").write_bytes(drawing.png)
        partial = path.with_name("index.html.partial")
        partial.write_text(html, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise StarError(
            f"{error.filename or outdir}: cannot be written ({error.strerror})"
        ) from error
    return path, len(drawings)
