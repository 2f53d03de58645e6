"""Our token counts against the Python libraries that engines use: `./just test-oracle`.

Usage: run.py COUNTER FILES NPM, the first being our side (examples/count_tokens.rs). Every text is
counted whole and at random offsets. Prints a line per tokenizer and one with the totals; fails on
any difference: none is known, and one that is meant would need its reason here.
"""

import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

import conversations
import plain
import rendered
import trained
import vocab

# Texts per call of a reference.
BATCH = 500


def counts_of(counter, case, texts, ends):
    """Our counts for every text at its offsets and at its end."""
    process = subprocess.Popen([counter, *case.arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    lines = "".join(json.dumps({"text": text, "ends": at}) + "\n" for text, at in zip(texts, ends))
    out, _ = process.communicate(lines)
    if process.returncode != 0:
        sys.exit(f"oracle: the counter failed on {case.name}")
    return [json.loads(line) for line in out.splitlines()]


def offsets_of(text, rng):
    """A few character boundaries in bytes, and the end."""
    size = len(text)
    at = sorted(rng.randint(0, size) for _ in range(4))
    return [len(text[:i].encode()) for i in at] + [len(text.encode())]


def expected(reference, at):
    """What the reference says of these offsets: a prefix ends before the first token that ends
    after it. None where it only told how many tokens there are."""
    if isinstance(reference, int):
        return [None] * (len(at) - 1) + [reference]
    counts, seen, token = [], 0, iter(reference)
    end = next(token, None)
    for offset in at:
        while end is not None and end <= offset:
            seen += 1
            end = next(token, None)
        counts.append(seen)
    return counts


def compare(counter, case, requests):
    """Differences of one case."""
    rng = random.Random(7)
    texts = [conversations.flat(request, case.markers) for request in requests]
    ends = [offsets_of(text, rng) for text in texts]
    start = time.monotonic()
    ours = counts_of(counter, case, texts, ends)
    spent = time.monotonic() - start
    different = []
    for at in range(0, len(texts), BATCH):
        for i, reference in enumerate(case.reference(texts[at:at + BATCH]), at):
            want = expected(reference, ends[i])
            if all(w is None or w == got for w, got in zip(want, ours[i])) and len(ours[i]) == len(want):
                continue
            different.append((i, texts[i], ends[i], want, ours[i]))
    state = "equal" if not different else f"{len(different)} DIFFER"
    print(f"oracle: {case.name}: {len(texts)} conversations, {state} ({spent:.1f} s)", flush=True)
    for i, text, at, want, got in different[:3]:
        print(f"  conversation {i}: at {at} expected {want}, counted {got}\n  {text!r}"[:2000])
    return len(different)


def main():
    counter, files, npm = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    # CI has other things to do as well.
    count = int(os.environ.get("ORACLE_CONVERSATIONS", "1200" if os.environ.get("CI") else "10000"))
    only = os.environ.get("ORACLE_ONLY", "")
    requests = conversations.conversations(count)
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        sources = [vocab.builtin(files), vocab.folders(files, npm), vocab.qwen(files, work), vocab.tekken(work), trained.cases(work)]
        results = [compare(counter, case, requests) for cases in sources for case in cases if only in case.name]
        results += plain.compare_all(counter, requests, files, npm, work, only)
        results += rendered.compare_all(counter, requests, files, npm, work, only)
    failed = sum(1 for different in results if different)
    print(f"{len(results) - failed} passed, {failed} failed")
    return 1 if failed or not results else 0


if __name__ == "__main__":
    sys.exit(main())
