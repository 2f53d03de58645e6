"""A stack for as long as clients talk to it, and what it counts."""

import collections
import contextlib
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request

DEADLINE_S = 10
LOG_LINES = 200


class Stack:
    """Addresses of Envoy and of its admin interface, `http://…`."""

    def __init__(self, envoy, admin):
        self.envoy = envoy
        self.admin = admin

    def counted(self, name, **labels):
        """A counter of the filter's, summed over the labels that are not given."""
        with urllib.request.urlopen(f"{self.admin}/stats/prometheus") as stats:
            lines = stats.read().decode().splitlines()
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        found = [line for line in lines if re.match(rf"promptcache_{name}[{{ ]", line)]
        return sum(
            int(line.rsplit(" ", 1)[1]) for line in found if all(part in line for part in wanted)
        )


@contextlib.contextmanager
def running(binary):
    """Runs `BINARY up` on free ports; shows the end of its log where what uses it fails."""
    env = dict(os.environ, ENVOY_PORT="0", ENVOY_ADMIN_PORT="0", INDEX_PORT="0")
    env.pop("UPSTREAM", None)
    env["STAND_IN_DELAY_MS"] = "1"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([binary, "up"], env=env, **pipes) as stack:
        log = collections.deque(maxlen=LOG_LINES)
        try:
            assert stack.stdout.readline() == "ready\n", stack.stderr.read()
            addresses = [address(stack, what) for what in ("Envoy", "its admin interface")]
            # Nobody may have to wait for a full pipe.
            threading.Thread(target=log.extend, args=[stack.stderr], daemon=True).start()
            yield Stack(*addresses)
        except BaseException:
            # Not the access log.
            sys.stderr.writelines(line for line in log if '"method"' not in line)
            raise
        finally:
            stack.terminate()
            stack.wait()


def address(stack, what):
    line = next(line for line in stack.stderr if line.startswith(f"stack: {what} on "))
    return re.search(r"http://\S+", line).group()


def until(what, ask):
    """Repeats `ask` until what it gives is true, which it gives back."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if found := ask():
            return found
    raise AssertionError(f"{what}: not within {DEADLINE_S} s")
