"""Would break: figures that load something, clash in one page, vanish on a dark ground, or fail
on a name that looks like markup or a formula.
"""

import io
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch
from PIL import Image

from espnet_star.evaluate.report import figures
from espnet_star.evaluate.report.curves import Series
from espnet_star.evaluate.report.heads import HeadWeights
from espnet_star.evaluate.report.speech import GramPanel, GramRow, Utterance

HOSTILE = '<script>alert("$x_1$")</script> & \\frac id="a" url(#b)'


def panel(name="utt", frames=20):
    matrices = {system: np.random.rand(frames, frames) for system in ("teacher", "student")}
    rows = [GramRow(1, 2, matrices), GramRow(2, 4, matrices)]
    return GramPanel(Utterance(name, torch.randn(320 * frames + 80)), rows)


def every_kind(name="x"):
    series = {name: Series([1, 2, 3], [3.0, float("nan"), 1.0])}
    yield figures.draw_curves("curve", "Loss", series, {name: Series([3], [2.0])})
    yield figures.draw_gram("gram", panel(name), normalized=True)
    yield figures.draw_similarity("cka", name, np.random.rand(5, 3), [0, 2, 4], name)
    yield figures.draw_heads("heads", name, [HeadWeights("asr", name, [0.2, 0.8], "f")])


@pytest.mark.parametrize("name", ["x", HOSTILE])
def test_svg_is_whole_and_needs_nothing(name):
    identifiers = []
    for drawing in every_kind(name):
        root = ET.fromstring(drawing.svg)
        assert root.tag.endswith("}svg") and root.get("viewBox")
        # Nothing fixes the size: the page does.
        assert root.get("width") is None
        tags = {element.tag.rpartition("}")[2] for element in root.iter()}
        assert not tags & {"script", "style", "metadata", "foreignObject", "a"}
        own = [value for e in root.iter() if (value := e.get("id")) is not None]
        identifiers += own
        for element in root.iter():
            for key, value in element.attrib.items():
                for target in re.findall(r"url\(#([^)]*)\)", value):
                    assert target in own
                if key.rpartition("}")[2] == "href":
                    assert value.startswith("data:image/png") or value.lstrip("#") in own
        assert "currentColor" in drawing.svg and figures.INK not in drawing.svg
    assert len(set(identifiers)) == len(identifiers)


def test_a_logarithmic_axis_shows_plain_numbers():
    series = {"run": Series([1, 2, 3], [1e-5, 1e-4, 1e-3])}
    text = "".join(ET.fromstring(figures.draw_curves("rate", "Rate", series).svg).itertext())
    assert "0.0001" in text and "$" not in text


def test_names_are_shown_to_the_letter():
    drawings = list(every_kind(HOSTILE))
    texts = ["".join(ET.fromstring(d.svg).itertext()) for d in (drawings[2], drawings[3])]
    assert all("$x_1$" in text and "<script>" in text for text in texts)


def test_png_of_the_same():
    for drawing in every_kind():
        image = Image.open(io.BytesIO(drawing.png)).convert("RGB")
        assert image.width > 800
        assert image.getpixel((1, 1)) == (255, 255, 255)
        assert drawing.alt


def luminance(color):
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("color", figures.COLORS)
@pytest.mark.parametrize("ground", ["#ffffff", "#191f25"])
def test_lines_stand_out_on_both_grounds(color, ground):
    """WCAG asks 3:1 of graphics."""
    dark, light = sorted([luminance(color), luminance(ground)])
    assert (light + 0.05) / (dark + 0.05) >= 3


def test_gap_is_the_mean_squared_difference():
    row = GramRow(1, 1, {"teacher": np.array([[1.0, 2], [2, 1]]), "student": np.ones((2, 2))})
    assert row.gap("student") == 0.5
    drawn = figures.draw_gram("g", GramPanel(Utterance("u", torch.zeros(720)), [row]), False)
    assert "layer 1: student 0.5" in drawn.caption
