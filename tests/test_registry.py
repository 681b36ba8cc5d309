import pytest
from espnet2.train.class_choices import ClassChoices
from outside import Hidden

from espnet_star.losses import LOSSES, TemporalGramLoss
from espnet_star.registry import outside_names, register


class Base:
    pass


class Ours(Base):
    pass


class Theirs(Base):
    pass


@pytest.fixture
def choices():
    return ClassChoices("part", classes={"theirs": Theirs}, type_check=Base)


def test_registering_twice_is_registering_once(choices):
    for _ in range(2):
        register(choices, "ours", Ours)
    assert choices.get_class("ours") is Ours
    assert set(choices.classes) == {"theirs", "ours"}


def test_a_foreign_name_is_never_replaced(choices):
    """Fails if installing the plugin could change what a stock recipe trains."""
    with pytest.raises(ValueError, match=r"--part theirs already means .*Theirs; refusing"):
        register(choices, "theirs", Ours)
    assert choices.get_class("theirs") is Theirs


def test_classes_of_another_kind_are_refused(choices):
    with pytest.raises(ValueError, match="--part ours: int must be a Base"):
        register(choices, "ours", int)


@pytest.mark.parametrize("name", ["Ours", "none", "nil", "null"])
def test_names_that_espnet_cannot_look_up_are_refused(choices, name):
    with pytest.raises(ValueError, match=f"lower case and not reserved, got '{name}'"):
        register(choices, name, Ours)


def test_names_of_outside_classes_are_found_at_any_depth():
    """Fails if a pack could hide one, or a path or an address were taken for one."""
    config = {
        "encoder": "a.b:C",
        "losses": [{"name": "temporal_gram"}, {"name": "d:E"}],
        "frontend_conf": {"kind": "f:G", "upstream": "s3prl:hubert", "student": "star"},
        "init_param": ["exp/a.pth:encoder"],
    }
    assert outside_names(config) == {"a.b:C", "d:E", "f:G"}


def test_a_class_is_written_as_it_is_found():
    assert LOSSES.name_of(TemporalGramLoss) == "temporal_gram"
    assert LOSSES.name_of(Hidden) == "outside:Hidden"
    assert LOSSES.find("outside:Hidden") is Hidden
