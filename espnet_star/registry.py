"""Classes by name: ours, those of others by module, and ours in ESPnet's own registries."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from espnet_star.errors import StarError, first_line, unknown_name

if TYPE_CHECKING:
    # Objectives and encoders work without ESPnet's tasks and all that these import.
    from espnet2.train.class_choices import ClassChoices

T = TypeVar("T")
# Keys of configurations whose values name classes, and what names one outside this package.
_NAMING = ("encoder", "student", "kind", "view", "name")
_OUTSIDE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class Registry(dict[str, type[T]], Generic[T]):
    """Classes of one kind; a name is one of ours or ``package.module:Class``.

    Args:
        what: What messages call the kind, e.g. ``"loss"``.
        base: What every class must be a subclass of.
        classes: Ours by name.
    """

    def __init__(self, what: str, base: type[T], classes: Mapping[str, type[T]]):
        super().__init__(classes)
        self.what, self.base = what, base

    def find(self, name: str) -> type[T]:
        """Class of a name.

        Raises:
            StarError: If there is none, or it is not of this kind.
        """
        if name in self:
            return self[name]
        if ":" not in name:
            raise unknown_name(self.what, name, self)
        return self._outside(name)

    def _outside(self, name: str) -> type[T]:
        """A class that is no part of this package, found from the working directory too."""
        expected = f"expected package.module:Class, a subclass of {self.base.__qualname__}"
        module_name, _, class_name = name.partition(":")
        if not module_name or not class_name:
            raise StarError(f"{self.what} {name!r}: {expected}")
        if str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))
        try:
            module = importlib.import_module(module_name)
        except Exception as error:  # whatever stands in somebody else's file
            raise StarError(
                f"{self.what} {name!r}: {module_name} cannot be imported from {Path.cwd()} "
                f"({type(error).__name__}: {first_line(error)}); {expected}"
            ) from error
        place = getattr(module, "__file__", None) or module_name
        found = getattr(module, class_name, None)
        if found is None:
            raise StarError(f"{self.what} {name!r}: {place} has no {class_name}; {expected}")
        if not (isinstance(found, type) and issubclass(found, self.base)):
            raise StarError(f"{self.what} {name!r}: {class_name} in {place} is none; {expected}")
        return found

    def name_of(self, cls: type) -> str:
        """What to write into a configuration to find the class again."""
        for name, known in self.items():
            if known is cls:
                return name
        return f"{cls.__module__}:{cls.__qualname__}"

    def build(self, name: str, conf: Any, *given: Any) -> T:
        """An object of a class.

        Args:
            name: See :meth:`find`.
            conf: Its options, None for none.
            *given: Arguments that code gives, in front of them.

        Raises:
            StarError: If there is no such class or option, or one that it needs is missing.
        """
        cls = self.find(name)
        conf = {} if conf is None else conf
        if not isinstance(conf, Mapping):
            raise StarError(f"conf of {self.what} {name} must be a mapping, got {conf!r}")
        signature = inspect.signature(cls)
        kinds = [parameter.kind for parameter in signature.parameters.values()]
        options = list(signature.parameters)[len(given) :]
        for key in conf:
            if key not in options and inspect.Parameter.VAR_KEYWORD not in kinds:
                raise unknown_name(f"option of {self.what} {name}", str(key), options)
        try:
            signature.bind(*given, **conf)
        except TypeError as error:
            place = inspect.getsourcefile(cls) or cls.__module__
            raise StarError(
                f"{self.what} {name}: {cls.__name__}{signature} in {place} cannot be built from "
                f"{len(given)} arguments and conf {dict(conf)} ({error})"
            ) from error
        return cls(*given, **conf)


def outside_names(value: Any) -> set[str]:
    """Classes outside this package that a configuration would have imported, at any depth."""
    if isinstance(value, Mapping):
        named = {str(value[key]) for key in _NAMING if isinstance(value.get(key), str)}
        own = {name for name in named if _OUTSIDE.fullmatch(name)}
        return own.union(*map(outside_names, value.values()))
    if isinstance(value, (list, tuple)):
        return set().union(*map(outside_names, value))
    return set()


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
