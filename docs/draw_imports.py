"""Write the picture of ARCHITECTURE.md from the imports of the source: `python docs/draw_imports.py [--check]`.

A box is a package or module directly below `isinglass`. An arrow means that the upper one imports the lower one. Arrows that
follow from others are left out, and so are the modules that all may use.
"""

import argparse
import sys
from pathlib import Path

import grimp

DOCUMENT = Path(__file__).parents[1] / "ARCHITECTURE.md"
BEGIN, END = "<!-- imports -->", "<!-- end of imports -->"
PACKAGE = "isinglass"
USED_BY_ALL = {"errors", "names", "storage"}
ENTRANCES = {"__main__"}


def direct_imports() -> dict[str, set[str]]:
    """Return room -> the rooms that it imports directly."""
    graph = grimp.build_graph(PACKAGE)
    rooms = {module.rpartition(".")[2] for module in graph.find_children(PACKAGE)} - USED_BY_ALL - ENTRANCES
    return {
        room: {
            other
            for other in rooms - {room}
            if graph.direct_import_exists(importer=f"{PACKAGE}.{room}", imported=f"{PACKAGE}.{other}", as_packages=True)
        }
        for room in rooms
    }


def reachable(imports: dict[str, set[str]], room: str) -> set[str]:
    """Return all rooms that a room imports, directly or through others."""
    found: set[str] = set()
    pending = [*imports[room]]
    while pending:
        other = pending.pop()
        if other not in found:
            found.add(other)
            pending.extend(imports[other])
    return found


def mermaid(imports: dict[str, set[str]]) -> str:
    """Return a Mermaid flowchart of the arrows that do not follow from others."""
    lines = ["```mermaid", "flowchart TD"]
    for room in sorted(imports):
        implied = set().union(*(reachable(imports, other) for other in imports[room]))
        lines += [f"    {room} --> {other}" for other in sorted(imports[room] - implied)]
    return "\n".join([*lines, "```"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, and fail if the picture is not up to date")
    options = parser.parse_args()
    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    drawn = f"{before}{BEGIN}\n{mermaid(direct_imports())}\n{END}{after}"
    if options.check and drawn != text:
        sys.exit(f"The picture in {DOCUMENT.name} is not that of the imports: run `make docs`.")
    if not options.check:
        DOCUMENT.write_text(drawn, encoding="utf-8")


if __name__ == "__main__":
    main()
