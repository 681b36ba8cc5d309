"""The reference of commands; a bug here leaves out a command or an option, or misprints it."""

import re

import pytest

pytest.importorskip("griffe", reason="pip install espnet_star[docs]")

import commands

from espnet_star.bin import our_tools
from espnet_star.tasks.star import StarTask

PARSERS = commands.own_parsers()


def all_parsers():
    for tool, parser in PARSERS.items():
        yield tool, parser
        for name, sub in commands.subcommands(parser).items():
            yield f"{tool} {name}", sub


def test_every_command_is_on_a_page():
    assert set(our_tools()) <= {*PARSERS, *commands.espnet_tools(), "star_train"}
    page = commands.commands_page(PARSERS)
    for tool in our_tools():
        assert tool in page


@pytest.mark.parametrize(
    ("tool", "parser"), all_parsers(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_option_of_ours_says_what_it_does(tool, parser):
    page = commands.commands_page(PARSERS)
    section = page.split(f".. program:: {tool}\n", 1)[1].split(".. program::", 1)[0]
    for action in commands.options(parser):
        assert action.help, (tool, action.option_strings)
        for name in action.option_strings:
            assert re.search(rf"^\.\. option:: .*{re.escape(name)}\b", section, re.M), name


def test_star_train_shows_every_option_with_ours_first():
    page = commands.star_train_page()
    names = {n for action in StarTask.get_parser()._actions for n in action.option_strings}
    shown = set(re.findall(r"(--?\w+)", "".join(re.findall(r"^\.\. option:: (.*)$", page, re.M))))
    assert names - shown == {"-h", "--help"}
    assert page.index("option:: --teacher ") < page.index("option:: --max_epoch ")


def test_marks_of_restructured_text_are_shown_as_they_are():
    from docutils.core import publish_string

    text = r"a *b* `c` |d| e_ <f_> \g"
    shown = publish_string(commands.escape(text), writer="pseudoxml").decode()
    assert text in shown
