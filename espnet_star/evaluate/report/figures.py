"""The report's figures: matplotlib without its global state, once as SVG and once as PNG.

The SVG stands in the page. Its ink is ``currentColor``, so that it follows light, dark and
print; line colors are legible on both grounds.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from espnet_star.errors import StarError
from espnet_star.evaluate.report.curves import Series
from espnet_star.evaluate.report.heads import HeadWeights
from espnet_star.evaluate.report.speech import GramPanel
from espnet_star.outputs import SAMPLE_RATE

# Mid-tones with a contrast of 3:1 or more on white and on the page's dark ground.
COLORS = ("#2f7fd1", "#d0622b", "#1f9a6b", "#b25fb0", "#8f8420", "#7d74d8", "#c2577b", "#708090")
INK = "#1c2126"
WIDTH = 5.6  # inches; with this a phone shows the 11 pt letters at 9 px
_PIXELS = 250  # about what a Gram matrix gets in the PNG
_STYLE: dict[str, Any] = {
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "text.parse_math": False,  # names are no formulas
    **{
        f"{key}": INK
        for key in (
            "text.color",
            "axes.labelcolor",
            "axes.edgecolor",
            "xtick.color",
            "ytick.color",
        )
    },
}


@dataclass(frozen=True)
class Drawing:
    """A figure, ready to be written.

    Attributes:
        name: Of its file, without ending; unlike the others'.
        alt: What it shows, for those who do not see it.
        caption: Below it.
        svg: An ``<svg>`` element without outside references.
        png: The same on white.
    """

    name: str
    alt: str
    caption: str
    svg: str
    png: bytes


def need_matplotlib() -> None:
    """Say which extra is missing before anything is computed.

    Raises:
        StarError: If matplotlib cannot be imported.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise StarError(
            "star_report draws with matplotlib, which is not installed; "
            "pip install espnet_star[recipes]"
        ) from error


def _figure(height: float, width: float = WIDTH) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _style(name: str) -> Any:
    import matplotlib

    settings: Any = _STYLE | {"svg.hashsalt": name}
    return matplotlib.rc_context(settings)


def _finish(figure: Any, name: str, alt: str, caption: str) -> Drawing:
    png, svg = io.BytesIO(), io.StringIO()
    figure.savefig(png, format="png", dpi=160, facecolor="white", metadata={"Software": None})
    figure.savefig(
        svg, format="svg", dpi=130, transparent=True, metadata={"Date": None, "Creator": None}
    )
    return Drawing(name, alt, caption, _inline(svg.getvalue(), name), png.getvalue())


def _inline(svg: str, name: str) -> str:
    """An SVG file as an element among others of a page."""
    svg = svg[svg.index("<svg") :]
    for part in (r"<metadata>.*?</metadata>", r"<defs>\s*<style.*?</style>\s*</defs>"):
        svg = re.sub(part, "", svg, flags=re.DOTALL)
    # Every file counts its parts from 1; in a page, identifiers must be unique.
    svg = re.sub(r'\bid="', f'id="{name}.', svg)
    svg = re.sub(r'(xlink:href="|url\()#', rf"\1#{name}.", svg)
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', _OPEN, svg, count=1)
    svg = re.sub(r"(font: [^;\"]*?px) [^;\"]*", r"\1 system-ui, sans-serif", svg)
    return svg.replace(INK, "currentColor").strip()


_OPEN = (
    r'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
    r'viewBox="\1" aria-hidden="true">'
)


def draw_curves(
    name: str,
    title: str,
    train: Mapping[str, Series],
    valid: Mapping[str, Series] | None = None,
) -> Drawing:
    """A statistic over training, all experiments in one frame.

    Args:
        name: Of the file.
        title: What the statistic is.
        train: By experiment: a line.
        valid: By experiment: a diamond for each epoch.
    """
    with _style(name):
        figure = _figure(3.1)
        axes = figure.add_subplot()
        order = list(dict.fromkeys([*train, *(valid or {})]))
        for number, label in enumerate(order):
            color = COLORS[number % len(COLORS)]
            dashes = ("-", "--", "-.", ":")[(number // len(COLORS)) % 4]
            if label in train:
                line = train[label]
                single = "o" if len(line.steps) == 1 else None
                axes.plot(line.steps, line.values, dashes, color=color, lw=1.6, marker=single)
            if valid and label in valid:
                dots = valid[label]
                axes.plot(dots.steps, dots.values, "D", color=color, ms=6, mec=INK, mew=0.8)
            axes.plot([], [], dashes, color=color, lw=2, label=label)
        every = [s.values for group in (train, valid or {}) for s in group.values()]
        _scale(axes, [value for values in every for value in values])
        axes.set_title(title, loc="left", fontweight="bold")
        axes.set_xlabel("batches")
        if len(order) > 1:
            axes.legend(loc="best", fontsize=10)
        last = "; ".join(f"{k}: {_last(s)}" for k, s in (valid or train).items())
        alt = f"Line chart of {title} over batches. Last value: {last}."
        return _finish(figure, name, alt, "")


def _scale(axes: Any, values: Sequence[float]) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    positive = [value for value in values if value > 0 and np.isfinite(value)]
    if positive and len(positive) == len(values) and max(positive) > 8 * min(positive):
        axes.set_yscale("log")
        # Powers of ten would be formulas, which are not read as such here.
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    elif positive:
        axes.set_ylim(bottom=0)
    axes.grid(axis="y", color="#808080", alpha=0.25, lw=0.8)


def _last(series: Series) -> str:
    return f"{series.values[-1]:.4g}" if series.values else "none"


def draw_gram(name: str, panel: GramPanel, normalized: bool) -> Drawing:
    """Waveform and Gram matrices of one utterance: systems side by side, layers below.

    Each row has one color scale, so that matrices of a row compare.
    """
    from matplotlib.ticker import MaxNLocator

    systems = list(panel.rows[0].matrices)
    seconds = len(panel.utterance.wave) / SAMPLE_RATE
    with _style(name):
        figure = _figure(0.75 + 1.75 * len(panel.rows))
        heights = [0.4, *[1.0] * len(panel.rows)]
        grid = figure.subplots(
            len(heights), len(systems), squeeze=False, gridspec_kw={"height_ratios": heights}
        )
        times = np.arange(len(panel.utterance.wave)) / SAMPLE_RATE
        for axes, system in zip(grid[0], systems, strict=True):
            axes.plot(times, panel.utterance.wave, color=COLORS[0], lw=0.5, rasterized=True)
            axes.set_title(system, fontweight="bold")
            axes.set_xlim(0, seconds)
            axes.set_axis_off()
        for row, line in zip(panel.rows, grid[1:], strict=True):
            values = np.stack([row.matrices[system] for system in systems])
            low, high = np.percentile(values, [0.5, 99.5])
            for axes, matrix in zip(line, values, strict=True):
                image = axes.imshow(
                    matrix,
                    vmin=low,
                    vmax=high,
                    cmap="viridis",
                    extent=(0, seconds, seconds, 0),
                    # Matrices larger than their place are averaged, smaller ones keep their
                    # cells, which also makes smaller files.
                    interpolation="nearest" if len(matrix) < _PIXELS else "antialiased",
                )
                axes.set_xticks([])
                axes.set_yticks([])
            same = row.student_layer == row.teacher_layer
            layer = f"{row.teacher_layer}" if same else f"{row.teacher_layer} / {row.student_layer}"
            line[0].set_ylabel(f"layer {layer}")
            bar = figure.colorbar(image, ax=list(line), fraction=0.04, pad=0.02)
            bar.locator = MaxNLocator(4)
            bar.update_ticks()
            bar.outline.set_visible(False)
        for axes in grid[-1]:
            axes.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10], prune="upper"))
        grid[-1][len(systems) // 2].set_xlabel("seconds")
        kind = "layer-normalized states, divided by the width" if normalized else "raw states"
        gaps = "; ".join(
            f"layer {row.student_layer}: "
            + ", ".join(f"{system} {row.gap(system):.3g}" for system in systems[1:])
            for row in panel.rows
        )
        what = f"Gram matrices over time of utterance {panel.utterance.name} ({seconds:.1f} s)"
        alt = f"{what}, {', '.join(systems)} side by side, waveform above."
        caption = f"{what}; {kind}. Mean squared gap from the teacher: {gaps}."
        return _finish(figure, name, alt, caption)


def draw_similarity(
    name: str, title: str, similarity: np.ndarray, layer_map: Sequence[int], note: str
) -> Drawing:
    """Linear CKA of every teacher layer with every student layer as a heat map.

    Args:
        name: Of the file.
        title: Above it.
        similarity: ``(L_T + 1, L_S + 1)``.
        layer_map: Teacher state that each student state follows; framed.
        note: For the caption.
    """
    from matplotlib.patches import Rectangle

    rows, columns = similarity.shape
    with _style(name):
        figure = _figure(float(np.clip(0.95 + 4.3 * rows / columns, 2.4, 8)))
        axes = figure.add_subplot()
        image = axes.imshow(
            similarity, vmin=0, vmax=1, cmap="viridis", origin="lower", interpolation="none"
        )
        size = float(np.clip(110 / max(columns, 1), 5, 11))
        for (t, s), value in np.ndenumerate(similarity):
            if columns <= 16 and np.isfinite(value):
                ink = "white" if value < 0.6 else "black"
                axes.text(s, t, f"{value:.2f}"[-3:] if value < 1 else "1", color=ink, fontsize=size,
                          ha="center", va="center")  # fmt: skip
        for s, t in enumerate(layer_map):
            frame = Rectangle((s - 0.47, t - 0.47), 0.94, 0.94, fill=False, ec="#ff5a4f", lw=2)
            axes.add_patch(frame)
        axes.set_title(title, loc="left", fontweight="bold")
        axes.set_xlabel("student layer (0: input of the first)")
        axes.set_ylabel("teacher layer")
        axes.set_xticks(range(columns))
        axes.set_yticks(range(0, rows, max(1, rows // 13)))
        axes.spines[:].set_visible(False)
        figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02).outline.set_visible(False)
        alt = (
            f"Heat map, {title}: {rows} teacher layers by {columns} student layers, values from "
            f"{np.nanmin(similarity):.2f} to {np.nanmax(similarity):.2f}; the table below it has "
            "all."
        )
        return _finish(figure, name, alt, note)


def draw_heads(name: str, task: str, heads: Sequence[HeadWeights]) -> Drawing:
    """Layer weights of a task's heads, one line a system."""
    with _style(name):
        figure = _figure(3.1)
        axes = figure.add_subplot()
        for number, head in enumerate(heads):
            marker = "osD^vP*X"[number % 8]
            color = COLORS[number % len(COLORS)]
            axes.plot(head.weights, marker=marker, color=color, lw=1.6, ms=6, label=head.system)
        axes.set_title(f"Layer weights, {task}", loc="left", fontweight="bold")
        axes.set_xlabel("layer (0: input of the first)")
        axes.set_ylim(bottom=0)
        depth = max(len(head.weights) for head in heads)
        axes.set_xticks(range(0, depth, max(1, depth // 13)))
        axes.grid(axis="y", color="#808080", alpha=0.25, lw=0.8)
        axes.legend(loc="best", fontsize=10)
        tops = ", ".join(
            f"{head.system} most from layer {int(np.argmax(head.weights))}" for head in heads
        )
        alt = f"Line chart of the softmax weights over layers learned in {task}: {tops}."
        return _finish(figure, name, alt, "Softmax of the learned weights; they sum to 1.")
