"""Runs core's own tests with coverage and writes a table of it: `run.py DOCS_FILE`.

The page by line goes to target/llvm-cov/html.
"""

import json
import os
import pathlib
import subprocess
import sys

TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target"))
PACKAGE = ["--package", "prompt-cache-core"]
KINDS = ["functions", "lines", "regions"]
HEAD = """# Coverage of core

Written by `./just coverage`: what core's own tests reach of it. Unit tests are in its files, so they are
counted as well. What is reached is not yet checked: [reliability.md](reliability.md#mutation-testing) tells
which changes the tests notice.

| | functions | lines | regions |
|---|--:|--:|--:|
"""


def report(*arguments):
    command = ["cargo", "llvm-cov", "report", *PACKAGE, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def row(name, summary):
    cells = []
    for kind in KINDS:
        covered, count = summary[kind]["covered"], summary[kind]["count"]
        share = 100 * covered / count if count else 100
        cells.append(f"{share:.1f} % of {count:,}")
    return f"| {name} | " + " | ".join(cells) + " |\n"


def main():
    core = pathlib.Path("core/src").resolve()
    # Not the costs of hostile input, which notice times alone.
    tests = ["--lib", "--test", "re*", "--test", "w*"]
    test = ["cargo", "llvm-cov", "test", "--locked", *PACKAGE, *tests, "--no-report"]
    subprocess.run(test, check=True)
    report("--html", "--output-dir", str(TARGET / "llvm-cov"))
    [data] = json.loads(report("--json", "--summary-only"))["data"]
    rows = []
    totals = {kind: {"covered": 0, "count": 0} for kind in KINDS}
    for file in sorted(data["files"], key=lambda file: file["filename"]):
        path = pathlib.Path(file["filename"]).resolve()
        if not path.is_relative_to(core):
            continue
        rows.append(row(f"`{path.relative_to(core)}`", file["summary"]))
        for kind in KINDS:
            for member in ("covered", "count"):
                totals[kind][member] += file["summary"][kind][member]
    table = row("**all**", totals) + "".join(rows)
    pathlib.Path(sys.argv[1]).write_text(HEAD + table)
    print(row("core", totals), end="")


main()
