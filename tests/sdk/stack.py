"""A stack for as long as an SDK talks to it."""

import contextlib
import os
import re
import subprocess
import time

PREFIX = "The quick brown fox jumps over the lazy dog. " * 200
DEADLINE_S = 10


@contextlib.contextmanager
def running(binary):
    """Runs `BINARY up` on free ports; yields the address of Envoy, `http://…`."""
    env = dict(os.environ, ENVOY_PORT="0", ENVOY_ADMIN_PORT="0", INDEX_PORT="0")
    env.pop("UPSTREAM", None)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([binary, "up"], env=env, **pipes) as stack:
        try:
            assert stack.stdout.readline() == "ready\n", stack.stderr.read()
            line = next(line for line in stack.stderr if line.startswith("stack: Envoy on "))
            yield re.search(r"http://\S+", line).group()
        finally:
            stack.terminate()
            stack.communicate()


def until_read(ask):
    """Repeats `ask`, which gives tokens read and written, until its prefix is read: a commit lands
    just after its response."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        read, written = ask()
        if read:
            return read, written
    raise AssertionError("the prefix was never read")
