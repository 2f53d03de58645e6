"""The table in docs/clients.md."""

import os
import pathlib
import sys

import columns

DOCS = pathlib.Path(__file__).parents[2] / "docs/clients.md"
BEGIN = "<!-- written by ./just test-clients with UPDATE_DOCS=1 -->\n"
END = "<!-- end -->\n"


def of(cells, versions):
    """The table as Markdown; reasons are notes below it."""
    notes = []

    def shown(cell):
        if cell is None:
            return "**failed**"
        if cell == "✓":
            return cell
        if cell not in notes:
            notes.append(cell)
        return f"— ({notes.index(cell) + 1})"

    head = ["client", "API", "marked by", *columns.COLUMNS]
    lines = [head, ["---"] * len(head)]
    for row, ran in cells.items():
        about = [f"{row.client} {versions[row]}", row.api, row.prompt.dialect.name]
        lines.append(about + [shown(ran[column]) for column in columns.COLUMNS])
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    for number, note in enumerate(notes, 1):
        text += f"\n({number}) {note.removeprefix('— ')}.\n"
    return text


def check(text):
    """Holds the committed table to this run's, or writes it."""
    docs = DOCS.read_text()
    before, rest = docs.split(BEGIN)
    _, after = rest.split(END)
    wanted = f"{before}{BEGIN}\n{text}\n{END}{after}"
    if docs == wanted:
        return
    if not os.environ.get("UPDATE_DOCS"):
        sys.exit(f"{DOCS.name} is not this run's: UPDATE_DOCS=1 ./just test-clients writes it")
    DOCS.write_text(wanted)
