"""The report from end to end: everything is checked, then computed, drawn and written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from espnet_star.errors import StarError
from espnet_star.evaluate.report import tables
from espnet_star.evaluate.report.experiment import labels, read_experiment
from espnet_star.evaluate.report.figures import need_matplotlib
from espnet_star.evaluate.report.heads import read_heads
from espnet_star.evaluate.report.listen import SpeechOptions, listen
from espnet_star.evaluate.report.page import compose, write
from espnet_star.evaluate.report.speech import choose_layers
from espnet_star.evaluate.table import read_merged


def build_report(
    expdirs: Sequence[str | Path],
    outdir: str | Path,
    options: SpeechOptions,
    heads: Sequence[str] = (),
    results: str | None = None,
    force: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[Path, int]:
    """Write the page of some distillations and its figures.

    Args:
        expdirs: Folders of the distillations.
        outdir: Folder to make.
        options: What speech is fed to student and teacher, and what is drawn of it.
        heads: Folders of downstream trainings whose layer weights are shown.
        results: JSON that ``star_score table`` has written.
        force: Replace a report that is there already.
        say: Is told of each distillation and what is odd about it.

    Returns:
        The page, and the number of figures.

    Raises:
        StarError: If a folder or an option cannot be used, or the report is there already.
    """
    need_matplotlib()
    outdir = Path(outdir)
    if (outdir / "index.html").exists() and not force:
        raise StarError(f"{outdir} already holds a report; give --force true to replace it")
    for name, count in (("utterances", options.panels), ("cka_utterances", options.utterances)):
        if count < 1:
            raise StarError(f"--{name} must be at least 1, got {count}")
    paths = [Path(path) for path in expdirs]
    experiments = [read_experiment(p, n) for p, n in zip(paths, labels(paths), strict=True)]
    for found in experiments:
        choose_layers(options.layers, found.student.shape.layers)
    weights = read_heads(heads)
    table = tables.results(read_merged(results), results) if results else None
    now = datetime.now().astimezone()
    for found in experiments:
        say(f"{found.label}: {found.state(now)}")
        listen(found, options)
        for note in found.notes:
            say(f"{found.label}: {note}")
    return write(compose(experiments, weights, table, now), outdir)
