"""Put classes of this package into the registries of a stock ESPnet."""

from __future__ import annotations

from espnet2.train.class_choices import ClassChoices


def register(choices: ClassChoices, name: str, cls: type) -> None:
    """Add a class to one of ESPnet's module-level registries.

    Writing to ``ClassChoices.classes`` skips the checks of its constructor, so they
    are repeated here. Registering the same class twice does nothing.

    Args:
        choices: A registry such as ``espnet2.tasks.asr.frontend_choices``.
        name: Name in YAML and on the command line; lower case, since ESPnet compares
            lower-case names but looks them up as they are.
        cls: The class.

    Raises:
        ValueError: If the name is not lower case or is reserved, if the class is not
            of the registry's base type, or if the name already means another class.
    """
    if name != name.lower() or name in {"none", "nil", "null"}:
        raise ValueError(f"registry name must be lower case and not reserved, got {name!r}")
    if choices.base_type is not None and not issubclass(cls, choices.base_type):
        raise ValueError(
            f"--{choices.name} {name}: {cls.__name__} must be a {choices.base_type.__name__}"
        )
    found = choices.classes.get(name)
    if found is not None and found is not cls:
        raise ValueError(
            f"--{choices.name} {name} already means {found.__module__}.{found.__name__}; "
            f"refusing to replace it by {cls.__module__}.{cls.__name__}"
        )
    choices.classes[name] = cls
