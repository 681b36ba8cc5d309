"""The reference of configuration keys; a bug here leaves out a key, or tells a wrong default."""

import ast
import importlib
import inspect
import re

import pytest

pytest.importorskip("griffe", reason="pip install espnet_star[docs]")

import generate
import reference

from espnet_star.downstream.heads import BLSTMEncoder
from espnet_star.errors import StarError
from espnet_star.losses import LOSSES, TemporalGramLoss
from espnet_star.students import PRESETS, StarEncoder, student_config
from espnet_star.tasks.plugin import FRONTEND_TASKS, register_in
from espnet_star.tasks.star import MODEL_OPTIONS, encoder_choices
from espnet_star.teachers import TEACHERS


@pytest.fixture(scope="module")
def entries():
    """Meaning of each key of the page."""
    page = generate.configuration_page()
    blocks = re.split(r"^\.\. confval:: ", page, flags=re.M)[1:]
    found = {}
    for block in blocks:
        name, rest = block.split("\n", 1)
        meaning = []
        for line in rest.split("\n\n", 1)[1].splitlines():
            if line and not line.startswith("   "):
                break
            meaning.append(line.strip())
        found[name] = " ".join(meaning).strip()
    return found


def registered():
    """Every class of ours that a configuration can name, and the prefix of its keys."""
    yield from ((name, cls) for name, cls in TEACHERS.items())
    yield from ((name, cls) for name, cls in LOSSES.items())
    for name, cls in encoder_choices.classes.items():
        yield ("encoder_conf" if name == "star" else name), cls
    for task in FRONTEND_TASKS:
        register_in(task)
        module = importlib.import_module(f"espnet2.tasks.{task}")
        for kind in ("frontend", "encoder"):
            choices = getattr(module, f"{kind}_choices", None)
            for name, cls in choices.classes.items() if choices else ():
                if cls is not None and cls.__module__.startswith("espnet_star."):
                    yield (f"{kind}_conf" if name == "star" else name), cls


def test_every_parameter_of_every_registered_class_has_a_meaning(entries):
    seen = 0
    for prefix, cls in registered():
        given = {"self"} | ({"name"} if cls in TEACHERS.values() else set())
        given |= {"student", "teacher"} if cls in LOSSES.values() else set()
        for name, parameter in inspect.signature(cls.__init__).parameters.items():
            variadic = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
            if variadic or name in given:
                continue
            assert entries.get(f"{prefix}.{name}"), f"{prefix}.{name} of {cls.__name__}"
            seen += 1
    assert seen > 20


def test_every_key_that_the_task_accepts_has_a_meaning(entries):
    for name in MODEL_OPTIONS:
        assert entries[f"model_conf.{name}"]
    for name in StarEncoder(**PRESETS["demo"]).options():
        assert entries[f"encoder_conf.{name}"]
    assert entries["teacher_conf.kind"]
    assert any(cls is BLSTMEncoder for _, cls in registered())


def test_defaults_are_those_of_the_student():
    config = student_config()
    for key in reference.architecture():
        if key.name != "identity_projection":
            assert ast.literal_eval(key.default) == getattr(config, key.name), key.name


def test_no_key_is_described_that_is_gone():
    described = reference.meanings(student_config).keys() - {"preset", "overrides"}
    assert described == reference.ARCHITECTURE.keys()
    for _, cls in registered():
        extra = reference.meanings(cls).keys() - inspect.signature(cls).parameters.keys()
        assert not extra, cls


class Undocumented(TemporalGramLoss):
    """An objective whose author forgot a line.

    Args:
        layer_map: Told.
    """

    def __init__(self, layer_map=None, forgotten=1.0):
        super().__init__(layer_map=layer_map)


def test_a_key_without_a_line_in_the_docstring_is_an_error(monkeypatch):
    monkeypatch.setitem(LOSSES, "undocumented", Undocumented)
    with pytest.raises(StarError, match=r"Undocumented: no meaning for forgotten; write"):
        generate.configuration_page()


def test_an_architecture_key_without_a_line_is_an_error(monkeypatch):
    monkeypatch.setitem(reference.ARCHITECTURE, "new_key", 3)
    with pytest.raises(StarError, match="student_config: no meaning for new_key"):
        generate.configuration_page()


def test_presets_are_compared_where_they_differ():
    table = "\n".join(generate.preset_table())
    assert "- hidden_size\n" in table and "- 432\n" in table
    assert "- hidden_act\n" not in table
