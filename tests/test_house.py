"""The picture in CONTRIBUTING.md: rooms, and arrows that point one way."""

import ast
import re
from pathlib import Path

import espnet_star

PACKAGE = Path(espnet_star.__file__).parent
CONTRIBUTING = PACKAGE.parent / "CONTRIBUTING.md"


def rooms() -> list[str]:
    """In the order of the picture: each may import those above it."""
    picture = CONTRIBUTING.read_text().split("espnet_star/\n", 1)[1].split("\nbenchmarks/", 1)[0]
    return re.findall(r"^  (\w+)(?:/|\.py) ", picture, flags=re.MULTILINE)


def imports(path: Path) -> set[str]:
    """Rooms that a module imports, wherever in its code."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "espnet_star":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.removeprefix("espnet_star.").split(".")[0])
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("espnet_star.")]
            found |= {name.split(".")[1] for name in names}
    return found & set(rooms())


def test_the_picture_names_every_room():
    """Fails if a room is added, moved or deleted and CONTRIBUTING.md still shows the old house."""
    entries = {path.stem for path in PACKAGE.iterdir() if not path.name.startswith("__pycache__")}
    assert entries - {"__init__"} == set(rooms())


def test_arrows_point_one_way():
    """Fails if a module imports from a room that stands below its own, or in a circle with it."""
    order = {room: at for at, room in enumerate(rooms())}
    uphill = [
        f"{path.relative_to(PACKAGE)} imports {other}"
        for path in PACKAGE.rglob("*.py")
        if path.stem != "__init__" or path.parent != PACKAGE
        for own in [path.relative_to(PACKAGE).parts[0].removesuffix(".py")]
        for other in imports(path)
        if order[other] > order[own]
    ]
    assert uphill == []
