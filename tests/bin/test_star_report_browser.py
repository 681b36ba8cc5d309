"""Would break: a page that scrolls sideways on a phone, complains in the console, asks the
network for something, or whose figures vanish in dark mode or print. Needs a Chromium.
"""

import shutil

import pytest

from espnet_star.bin.star_report import main

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
FLAGS += ["--disable-component-update", "--disable-sync"]
WIDTHS = {"phone": 390, "desktop": 1280}


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no Chromium here (none of {', '.join(BROWSERS)}); apt-get install chromium")
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def address(run, head, tmp_path_factory):
    """A page with long words in it, which are what widens pages."""
    folder = tmp_path_factory.mktemp("browser")
    long = folder / ("exp_" + "x" * 120)
    shutil.copytree(run, long, symlinks=True)
    options = ["--heads", str(head), "--utterances", "1", "--cka_utterances", "3"]
    main(["--expdir", str(run), str(long), *options, "--output_dir", str(folder / "out")])
    return (folder / "out" / "index.html").as_uri()


@pytest.fixture(params=["light", "dark"])
def page(request, browser, address):
    """The page, everything it asked for and said."""
    context = browser.new_context(color_scheme=request.param)
    page = context.new_page()
    page.said, page.asked = [], []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("request", lambda wish: page.asked.append(wish.url))
    page.goto(address)
    page.ground = request.param
    yield page
    context.close()


def colors(page, selector):
    """Ink of an element and what it stands on, as (r, g, b)."""
    script = "(e, what) => getComputedStyle(e)[what].match(/\\d+/g).slice(0, 3).map(Number)"
    element = page.locator(selector).first
    return element.evaluate(script, "color"), element.evaluate(
        f"e => ({script})(e.closest('figure'), 'backgroundColor')"
    )


def test_phone_and_desktop(page, address):
    for width in WIDTHS.values():
        page.set_viewport_size({"width": width, "height": 844})
        wide = page.evaluate("document.scrollingElement.scrollWidth")
        assert wide <= width, f"{wide} px on a screen of {width}"
        for box in page.locator("figure svg").evaluate_all("l => l.map(e => e.clientWidth)"):
            assert 250 < box < width
    assert page.said == []
    assert [url for url in page.asked if not url.startswith("data:")] == [address]


def test_letters_of_figures_on_a_phone(page):
    page.set_viewport_size({"width": WIDTHS["phone"], "height": 844})
    script = "list => list.map(e => e.getBoundingClientRect().height).filter(h => h > 0)"
    heights = page.locator("figure svg text").evaluate_all(script)
    assert len(heights) > 50 and sorted(heights)[len(heights) // 2] > 8


def test_figures_stand_out(page):
    ink, ground = colors(page, "figure svg")
    gap = sum(ink) - sum(ground)
    assert gap > 400 if page.ground == "dark" else gap < -400


def test_print_is_dark_on_white_and_complete(page):
    page.emulate_media(media="print")
    ink, ground = colors(page, "figure svg")
    assert ground == [255, 255, 255] and sum(ink) < 100
    pdf = page.pdf(prefer_css_page_size=True)
    assert pdf.startswith(b"%PDF") and len(pdf) > 50_000
