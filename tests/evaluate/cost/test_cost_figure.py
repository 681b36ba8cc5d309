"""A bug here draws a point where no model is, or names it wrongly."""

import re
import sys
from xml.etree import ElementTree

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from espnet_star.data.errors import DataError
from espnet_star.errors import StarError
from espnet_star.evaluate.cost.figure import (
    COSTS,
    Point,
    _scatter,
    check_drawing,
    cost_axis,
    draw,
    points,
    qualities,
    quality_label,
)

POINTS = [
    Point("teacher", 20.59, 28.7),
    Point("student", 4.17, 71.6),
    Point("undistilled", 4.17, 73.0),
    Point("a name that is rather long", 22.3, 30.1),
    Point("starhubert_l", 26.6, 28.0),
    Point("cost of $5 & <more>", 4.2, 72.2),
]
RESULTS = {
    "systems": [
        {"key": "student", "system": "STaR", "params": 4, "metrics": {"cer": 0.716, "ppl": 7}},
        {"key": "teacher", "system": "teacher", "params": 20, "metrics": {"cer": 0.287}},
        {"key": "logmel", "system": "log-mel", "params": 0, "metrics": {"cer": 0.729}},
    ]
}


def drawn(chosen):
    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    _scatter(figure, chosen, "parameters (M)", "cer (%)")
    return figure


@pytest.mark.parametrize("more", [[], [Point("hubert_base", 94.4, 20.0)]])
def test_every_model_is_told_apart(more):
    """On a linear and on a logarithmic axis; fails if the legend names another model's marker."""
    chosen = POINTS + more
    figure = drawn(chosen)
    (axes,), (legend,) = figure.axes, figure.legends
    assert axes.get_xscale() == ("log" if more else "linear")
    assert [text.get_text() for text in legend.get_texts()] == [p.label for p in chosen]
    places = [tuple(points.get_offsets()[0]) for points in axes.collections]
    assert places == [(p.cost, p.quality) for p in chosen]
    shapes = [points.get_paths()[0].vertices.tolist() for points in axes.collections]
    named = [handle.get_paths()[0].vertices.tolist() for handle in legend.legend_handles]
    assert named == shapes and len({str(shape) for shape in shapes}) == len(chosen)
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    assert not legend.get_window_extent(renderer).overlaps(axes.get_window_extent(renderer))


def test_svg_holds_its_text(tmp_path):
    """Fails if letters are paths, which nobody can search, or special ones break the file."""
    draw(POINTS, "parameters (M)", "cer (%), lower is better", tmp_path / "cost.svg")
    root = ElementTree.parse(tmp_path / "cost.svg").getroot()
    texts = {"".join(node.itertext()) for node in root.iter() if node.tag.endswith("}text")}
    assert texts >= {point.label for point in POINTS}
    assert texts >= {"parameters (M)", "cer (%), lower is better"}
    first = (tmp_path / "cost.svg").read_bytes()
    draw(POINTS, "parameters (M)", "cer (%), lower is better", tmp_path / "cost.svg")
    assert (tmp_path / "cost.svg").read_bytes() == first
    colors = set(re.findall(rb"#[0-9a-f]{6}", first))
    assert colors and all(c[1:3] == c[3:5] == c[5:7] for c in colors)  # gray all of them


@pytest.mark.parametrize(("ending", "magic"), [("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_other_formats(ending, magic, tmp_path):
    path = tmp_path / f"cost.{ending}"
    draw(POINTS[:1], "cost", "quality", path)
    assert path.read_bytes().startswith(magic)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_figure_that_cannot_be_written(tmp_path):
    with pytest.raises(DataError, match=r"cost\.svg: cannot be written \(No such file"):
        draw(POINTS, "cost", "quality", tmp_path / "absent" / "cost.svg")


def test_axes_are_of_the_keys_of_a_row():
    """Fails if the axis of a cost shows another one, or in another unit."""
    row = {"model": "student", "params": 4_170_000, "bytes": 16_700_000, "macs_per_second": 4.5e8}
    row |= {"rtf_5s_2t": 0.02, "rtf_1s_1t": 0.5, "peak_bytes_5s": 2**21, "peak_bytes_1s": 1}
    expected = {"params": 4.17, "bytes": 16.7, "macs": 0.45, "rtf": 0.02, "memory": 2.0}
    for cost in COSTS:
        axis = cost_axis(cost, (5, 1), (2, 1))
        (point,) = points([row, {"model": "b"}], {"student": 0.716}, "cer", axis)
        assert point == Point("student", pytest.approx(expected[cost]), pytest.approx(71.6))
    assert cost_axis("rtf", (5, 1), (2, 1)).label == "real-time factor, 5 s of audio, 2 threads"
    with pytest.raises(StarError, match="--x: b has no size on disk"):
        points([row, {"model": "b"}], {"b": 1.0}, "ppl", cost_axis("bytes"))


def test_qualities_by_key_or_name():
    found = qualities(RESULTS, "cer", ["STaR", "teacher", "hubert_base"], ["logmel"])
    assert found == {"STaR": 0.716, "teacher": 0.287}
    found = qualities(RESULTS, "cer", ["student", "teacher"], ["log-mel", "teacher"])
    assert found == {"student": 0.716}


ALL = ["student", "teacher", "logmel"]


@pytest.mark.parametrize(
    ("metric", "models", "leave_out", "message"),
    [
        ("wer", ALL, [], "--y: no system has wer; there are cer, ppl"),
        ("ppl", ALL, [], "teacher.ppl: teacher has no ppl, only cer"),
        (
            "cer",
            ["student", "teachr"],
            ["logmel"],
            "no model for the system teacher; give --upstream",
        ),
        ("cer", ["student", "teacher"], [], "logmel; give .* or --leave_out logmel"),
        ("cer", ALL, ["logml"], "--leave_out: no system 'logml', only student, teacher, logmel"),
        ("cer", ["hubert_base"], ALL, "no model to draw"),
    ],
)
def test_results_that_do_not_fit(metric, models, leave_out, message):
    with pytest.raises(DataError, match=message):
        qualities(RESULTS, metric, models, leave_out)


def test_labels_of_qualities():
    assert quality_label("sid_acc_channel") == "sid_acc_channel (%), higher is better"
    assert quality_label("cer") == "cer (%), lower is better"
    assert quality_label("ppl") == "ppl"


def test_a_figure_needs_a_format_and_matplotlib(monkeypatch):
    check_drawing("cost.svg")
    for name in ("cost", "cost.jpeg"):
        with pytest.raises(StarError, match=f"{name}: expected a name that ends in .svg"):
            check_drawing(name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(StarError, match=r"pip install espnet_star\[recipes\]"):
        check_drawing("cost.svg")
