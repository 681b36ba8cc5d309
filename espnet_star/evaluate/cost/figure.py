"""Figure of quality against cost: a marker a model, named in the legend."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espnet_star.data.errors import DataError, some
from espnet_star.errors import StarError
from espnet_star.evaluate.cost.speed import peak_key, rtf_key
from espnet_star.evaluate.table import is_percent, lookup

FORMATS = ("svg", "png", "pdf")
COSTS = ("params", "bytes", "macs", "rtf", "memory")
# Costs that reach over more than this factor are drawn on a logarithmic axis.
LINEAR_RANGE = 12
# Words of a metric's name that tell which way is better.
LOWER, HIGHER = {"wer", "cer", "per", "eer", "loss"}, {"acc", "accuracy", "f1"}
INCHES = (7.0, 4.0)
DPI = 200
# Of the models, in turn: first filled, then hollow.
MARKERS = "osD^vP<>Xph*d"


@dataclass(frozen=True)
class Axis:
    """What a cost is drawn from.

    Attributes:
        key: Where it stands in a model's row.
        label: With the unit.
        unit: What the number is divided by.
    """

    key: str
    label: str
    unit: float


@dataclass(frozen=True)
class Point:
    """A model in the figure, in the units of the axes."""

    label: str
    cost: float
    quality: float


def cost_axis(cost: str, seconds: Sequence[float] = (), threads: Sequence[int] = ()) -> Axis:
    """Horizontal axis.

    Args:
        cost: One of :data:`COSTS`. Real-time factor and memory are those of the first length
            and the first number of threads.
        seconds: Lengths that were timed.
        threads: Numbers of threads that were timed.
    """
    if cost == "rtf":
        unit = "thread" if threads[0] == 1 else "threads"
        label = f"real-time factor, {seconds[0]:g} s of audio, {threads[0]} {unit}"
        return Axis(rtf_key(seconds[0], threads[0]), label, 1.0)
    if cost == "memory":
        return Axis(peak_key(seconds[0]), f"peak memory of {seconds[0]:g} s of audio (MiB)", 2**20)
    return {
        "params": Axis("params", "parameters (M)", 1e6),
        "bytes": Axis("bytes", "size on disk (MB)", 1e6),
        "macs": Axis("macs_per_second", "multiply-accumulates per second of audio (G)", 1e9),
    }[cost]


def qualities(
    results: Mapping[str, Any], metric: str, models: Sequence[str], leave_out: Collection[str] = ()
) -> dict[str, float]:
    """Quality of every model that has results; the others stand in the table only.

    Args:
        results: Of `table.read_merged`.
        metric: One of its metrics.
        models: Labels of the models, the systems' keys or names.
        leave_out: Keys or names of systems that have no model and are not drawn.

    Raises:
        DataError: If a system has no model and is not left out, there is no such metric or
            system, or no model has results. Names what there is.
    """
    systems = results["systems"]
    metrics = sorted({name for entry in systems for name in entry["metrics"]})
    if metric not in metrics:
        raise DataError(f"--y: no system has {metric}; there are {some(metrics, 20)}")
    names = [{entry["key"], entry["system"]} for entry in systems]
    for name in leave_out:
        if not any(name in pair for pair in names):
            keys = some((entry["key"] for entry in systems), 20)
            raise DataError(f"--leave_out: no system {name!r}, only {keys}")
    drawn = [model for model in models if any(model in pair for pair in names)]
    for entry, pair in zip(systems, names, strict=True):
        if not pair & {*drawn, *leave_out}:
            raise DataError(
                f"--results: no model for the system {entry['key']}; give "
                f"--upstream {entry['key']}=MODEL or --leave_out {entry['key']}"
            )
    found = {model: lookup(dict(results), f"{model}.{metric}") for model in drawn}
    found = {model: value for model, value in found.items() if model not in leave_out}
    if not found:
        raise DataError("no model to draw in the figure; every system was left out")
    return found


def points(
    rows: Sequence[Mapping[str, Any]], found: Mapping[str, float], metric: str, axis: Axis
) -> list[Point]:
    """Points of the figure.

    Args:
        rows: Of the table's report.
        found: What :func:`qualities` returned.
        metric: Its metric.
        axis: What :func:`cost_axis` returned.

    Raises:
        StarError: If a model has no such cost, as a preset has no size on disk.
    """
    scale = 100 if is_percent(metric) else 1
    drawn = []
    for row in rows:
        if row["model"] not in found:
            continue
        if row.get(axis.key) is None:
            raise StarError(f"--x: {row['model']} has no {axis.label}; choose another cost")
        quality = scale * found[row["model"]]
        drawn.append(Point(row["model"], row[axis.key] / axis.unit, quality))
    return drawn


def quality_label(metric: str) -> str:
    """Name of the vertical axis, with its unit and which way is better if known."""
    label = f"{metric} (%)" if is_percent(metric) else metric
    words = set(metric.split("_"))
    if words & LOWER:
        return f"{label}, lower is better"
    return f"{label}, higher is better" if words & HIGHER else label


def check_drawing(path: str | Path) -> None:
    """Whether a figure could be drawn into a file of this name.

    Raises:
        StarError: If its ending is none of :data:`FORMATS`, or matplotlib is missing.
    """
    ending = Path(path).suffix.removeprefix(".")
    if ending not in FORMATS:
        raise StarError(
            f"{path}: expected a name that ends in {', '.join('.' + f for f in FORMATS)}"
        )
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise StarError(
            "a figure needs matplotlib, which is not installed: pip install espnet_star[recipes]"
        ) from None


def draw(drawn: Sequence[Point], cost: str, quality: str, path: str | Path) -> None:
    """Write the figure; black on white, so that it survives any printer.

    Args:
        drawn: The models.
        cost: Label of the horizontal axis.
        quality: Label of the vertical axis.
        path: File, its ending one of :data:`FORMATS`; complete or not at all.

    Raises:
        DataError: If it cannot be written.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path = Path(path)
    ending = path.suffix.removeprefix(".")
    # Text stays text in SVG files, to be found and read aloud; the same input, the same file.
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "star", "text.parse_math": False}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=INCHES, layout="constrained")
        FigureCanvasAgg(figure)
        _scatter(figure, drawn, cost, quality)
        partial = path.with_name(path.name + ".partial")
        metadata = {} if ending == "png" else {"CreationDate" if ending == "pdf" else "Date": None}
        try:
            figure.savefig(partial, format=ending, dpi=DPI, metadata=metadata)
            partial.replace(path)
        except OSError as error:
            raise DataError(f"{path}: cannot be written ({error.strerror})") from error


def _scatter(figure: Any, drawn: Sequence[Point], cost: str, quality: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes = figure.add_subplot()
    costs = [point.cost for point in drawn]
    for index, point in enumerate(drawn):
        turn, marker = divmod(index, len(MARKERS))
        axes.scatter(
            point.cost,
            point.quality,
            s=36,
            marker=MARKERS[marker],
            facecolor="white" if turn % 2 else "black",
            edgecolor="black",
            label=point.label,
            zorder=3,
        )
    axes.set_xlabel(cost)
    axes.set_ylabel(quality)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.88", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.margins(x=0.15, y=0.15)
    if max(costs) > LINEAR_RANGE * min(costs) > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(left=0)  # a length then tells the cost
    figure.legend(loc="outside right upper", frameon=False)
