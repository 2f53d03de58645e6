"""The compose file at work: compose.py COMPOSE-COMMAND…

Starts it on each store whose image can be had, sends a marked request twice, and expects the first to
be written and the second to be read; with Prometheus, that it has scraped both programs. Ends it all.
"""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILE = ROOT / "envoy/docker-compose.yaml"
PATIENCE_S = 60


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(url, body=None, token="key"):
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode() if body else None, headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def poll(look):
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            found = look()
        except OSError:
            found = None
        if found or time.monotonic() > end:
            return found
        time.sleep(0.2)


def have(image):
    return any(
        subprocess.run(["docker", *words, image], capture_output=True).returncode == 0
        for words in (["image", "inspect"], ["pull", "--quiet"])
    )


def written_then_read(url):
    text = "".join(f"Fact {n} of the compose file.\n" for n in range(400))
    part = {"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}
    body = {"model": "demo", "messages": [{"role": "user", "content": [part]}]}

    def usage():
        return get(f"{url}/v1/chat/completions", body)["usage"]

    def field(name):
        return lambda: usage().get(name)

    # Until the filter has heard of the models, requests pass uncached.
    written = poll(field("cache_creation_input_tokens"))
    read = poll(field("cache_read_input_tokens"))
    assert written and written == read, (written, read)
    return read


def prometheus_sees(url):
    def up():
        found = get(f"{url}/api/v1/query?query=promptcache_requests_total%20or%20prompt_cache_index_entries")
        return {r["metric"]["__name__"] for r in found["data"]["result"]}

    names = poll(lambda: len(up()) == 2 and up())
    assert names, up()
    rules = get(f"{url}/api/v1/rules")["data"]["groups"]
    return sum(len(group["rules"]) for group in rules)


def try_one(compose, store, monitored):
    ports = {name: str(free_port()) for name in ("ENVOY_PORT", "ENVOY_ADMIN_PORT", "INDEX_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT")}
    environment = os.environ | ports | {"STORE": store, "COMPOSE_PROJECT_NAME": f"prompt-cache-e2e-{os.getpid()}"}
    services = ["envoy", "index", "llm"] + ([store] if store != "embedded" else []) + (["prometheus"] if monitored else [])
    profiles = [f"--profile={p}" for p in (store, "monitoring")]
    base = [*compose, "--file", str(FILE), *profiles]
    try:
        # The images are there already: e2e-docker has built them.
        subprocess.run([*base, "up", "--no-build", "--detach", "--quiet-pull", *services], env=environment, check=True, capture_output=True, text=True)
        read = written_then_read(f"http://127.0.0.1:{ports['ENVOY_PORT']}")
        line = f"compose on {store}: {read} tokens written, then read"
        if monitored:
            line += f"; Prometheus scrapes both and has {prometheus_sees('http://127.0.0.1:' + ports['PROMETHEUS_PORT'])} rules"
        print(line)
    except subprocess.CalledProcessError as error:
        sys.exit(f"compose on {store}: {error.stderr}")
    except AssertionError:
        subprocess.run([*base, "logs", "--tail", "30"], env=environment)
        raise
    finally:
        subprocess.run([*base, "down", "--volumes", "--timeout", "5"], env=environment, capture_output=True)


def main():
    monitored = have("prom/prometheus:v3.5.0")
    if not monitored:
        print("compose: no image of Prometheus, not started")
    for store, image in [("embedded", None), ("postgres", "postgres:15"), ("redis", "redis:7")]:
        if image and not have(image):
            print(f"compose on {store}: skipped, {image} cannot be had")
            continue
        try_one(sys.argv[1:], store, monitored and store == "embedded")


main()
