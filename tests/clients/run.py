"""Every client, API and feature against one running stack, and the table of what was seen.

Usage: run.py TOOLS STACK_BINARY [PART-OF-A-ROW'S-NAME…]. TOOLS is what `./just --ensure clients` made.
Exits 0 if every cell is as it must be and the committed table is this run's (with UPDATE_DOCS set it is
written). With names only those rows run, and no table is looked at.
"""

import pathlib
import sys
import time
import traceback

import agents
import columns
import stack
import table


def check(row, column, agent, running):
    """One cell: a tick, or why there is none; `None` when it failed."""
    if reason := row.cannot.get(column):
        return f"— {reason}"
    try:
        columns.COLUMNS[column](columns.Cell(row, column, agent, running))
    except Exception as error:  # noqa: BLE001 the other cells are of interest, too
        where = traceback.extract_tb(error.__traceback__)
        lines = [line.line for line in where if line.filename == columns.__file__]
        print(f"FAILED: {row.name}, {column}: {' / '.join(lines)}\n  {error!r}", flush=True)
        return None
    return "✓"


def run(rows, tools, running):
    """The cells of each row, and the versions of the clients."""
    made = {}
    try:
        for row in rows:
            if row.program not in made:
                made[row.program] = agents.Agent(row.program, tools, running.envoy)
        # An adapter that does not start shows here.
        versions = {row: made[row.program].version(row.api) for row in rows}
        cells = {row: {} for row in rows}
        # Retries first: they count commits, and nothing else may be on its way then.
        for column in sorted(columns.COLUMNS, key=lambda name: name != "retries"):
            started = time.monotonic()
            for row in rows:
                cells[row][column] = check(row, column, made[row.program], running)
            print(f"{column}: {len(rows)} rows in {time.monotonic() - started:.1f} s", flush=True)
        return cells, versions
    finally:
        for agent in made.values():
            agent.stop()


def main():
    tools, binary, *names = sys.argv[1:]
    rows = [row for row in agents.ROWS if not names or any(name in row.name for name in names)]
    with stack.running(binary) as running:
        cells, versions = run(rows, pathlib.Path(tools).absolute(), running)
    text = table.of(cells, versions)
    print(text)
    ran = [cell for row in cells.values() for cell in row.values()]
    passed = ran.count("✓")
    print(f"{passed} passed, {ran.count(None)} failed, {len(ran) - passed - ran.count(None)} skipped")
    if None in ran:
        sys.exit(1)
    if not names:
        table.check(text)


if __name__ == "__main__":
    main()
