"""Checks everything that is deployed without a cluster: `./just test-deploy`.

Every manifest against its schema (and that a misspelt one is refused), the Helm chart rendered with
several values, the service's own check of each configuration, the compose file, the alert rules, and
that versions and names agree. What is not fetched is skipped, in a line that says so.
"""

import copy
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(TOOLS / "python"))

import jsonschema  # noqa: E402
import kubernetes_validate  # noqa: E402
import yaml  # noqa: E402

KUBERNETES = "1.35"
CHART = ROOT / "envoy/helm/prompt-cache-index"
TUTORIAL = ROOT / "docs/tutorial-istio.md"
SERVICE = ROOT / "dist/prompt-cache-index"
HELM = TOOLS / "bin/helm"
COMPOSE = TOOLS / "bin/docker-compose"
# The name that the tutorials install the chart under, and where.
RELEASE, NAMESPACE = "prompt-cache-index", "prompt-cache"
# What the chart must refuse, and what it says.
REFUSED_VALUES = [
    (["replicas=2"], "embedded store belongs to one process"),
    (["store.kind=redis"], "store.urlSecret.name"),
    (["store.kind=mysql"], "'/store/kind'"),
    (["replica=1"], "'replica' not allowed"),
    (["config.auth_token=secret"], "/config/auth_token"),
]

passed, failed = 0, []


def check(what, ok, why=""):
    global passed
    if ok:
        passed += 1
    else:
        failed.append(f"{what}: {why}")
        print(f"FAILED {what}: {why}", file=sys.stderr)


def run(*command, **more):
    command = [str(part) for part in command]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, **more)


def said(output):
    return (output.stdout + output.stderr).strip()[-2000:]


def documents(where, text):
    found = [d for d in yaml.safe_load_all(text) if d]
    return [(f"{where}: {d['kind']} {d['metadata']['name']}", d) for d in found]


def render(*arguments):
    return run(HELM, "template", RELEASE, CHART, "--namespace", NAMESPACE, *arguments)


def misspelt(document):
    """The same with a member that does not exist where it hurts: in the spec, or at the top."""
    wrong = copy.deepcopy(document)
    (wrong["spec"] if "spec" in wrong else wrong)["misspelt"] = 1
    return wrong


def is_core(document):
    group = document["apiVersion"].rpartition("/")[0]
    return "." not in group or group.endswith(".k8s.io")


def against_schemas(manifests):
    core = [(where, d) for where, d in manifests if is_core(d)]
    custom = [(where, d) for where, d in manifests if not is_core(d)]
    for where, document in core:
        for wrong, candidate in [(False, document), (True, misspelt(document))]:
            try:
                kubernetes_validate.validate(candidate, KUBERNETES, strict=True)
                refusal = None
            except kubernetes_validate.ValidationError as error:
                refusal = error.message
            if wrong:
                check(f"{where}, misspelt", refusal, "accepted")
            else:
                check(where, refusal is None, refusal)
    if not shutil.which("node"):
        print(f"test-deploy: {len(custom)} custom resources not checked, there is no Node")
        return
    entries = [{"where": where, "document": d} for where, d in custom]
    entries += [{"where": f"{where}, misspelt", "document": misspelt(d)} for where, d in custom]
    script = ROOT / "tests/deploy/crds.mjs"
    output = subprocess.run(
        ["node", script], input=json.dumps(entries), capture_output=True, text=True, cwd=TOOLS / "npm"
    )
    if output.returncode != 0:
        check("custom resources", False, said(output))
        return
    refusals = {entry["where"]: entry["reason"] for entry in json.loads(output.stdout)}
    for where, _ in custom:
        check(where, where not in refusals, refusals.get(where))
        check(f"{where}, misspelt", f"{where}, misspelt" in refusals, "accepted")


def service_takes(where, text, folder):
    """The service's own check; secrets and the places they are mounted at are those of `folder`."""
    for name in ["auth/token", "auth/admin-token", "store/url", "accounts/accounts.yaml"]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("accounts: []\n" if name.endswith("yaml") else "redis://host")
    if "postgres:" in text:
        (folder / "store/url").write_text("postgresql://user@host/database")
    file = folder / "index.yaml"
    file.write_text(text.replace("/run/prompt-cache", str(folder)))
    environment = os.environ | {"POSTGRES_URL": "postgresql://u@h/d", "REDIS_URL": "redis://h"}
    output = run(SERVICE, "check-config", "--config", file, env=environment)
    check(f"{where}: check-config", output.returncode == 0, said(output))


def chart(folder):
    output = run(HELM, "lint", "--strict", CHART)
    check("helm lint", output.returncode == 0, said(output))
    manifests = []
    tutorial = folder / "the-tutorials-values.yaml"
    tutorial.write_text(re.search(r"```yaml\n(.*?)```", TUTORIAL.read_text(), re.S)[1])
    for values in [None, tutorial, *sorted((CHART / "ci").glob("*.yaml"))]:
        where = f"chart with {values.stem if values else 'its defaults'}"
        output = render(*(["--values", values] if values else []))
        check(where, output.returncode == 0, said(output))
        rendered = documents(where, output.stdout)
        manifests += rendered
        [config] = [d for _, d in rendered if d["kind"] == "ConfigMap"]
        service_takes(where, config["data"]["index.yaml"], folder)
        [pod] = [d["spec"]["template"]["spec"] for _, d in rendered if d["kind"] == "Deployment"]
        [container] = pod["containers"]
        context = container["securityContext"]
        check(
            f"{where}: hardened",
            pod["securityContext"]["runAsNonRoot"]
            and context["readOnlyRootFilesystem"]
            and context["capabilities"]["drop"] == ["ALL"],
        )
    for values, reason in REFUSED_VALUES:
        output = render(*(part for value in values for part in ("--set", value)))
        check(f"chart with {values}", output.returncode != 0 and reason in said(output), said(output))
    return manifests


def compose(folder):
    file = ROOT / "envoy/docker-compose.yaml"
    stores = ["embedded", "postgres", "redis"]
    for store in stores:
        config = ROOT / f"envoy/docker/index-{store}.yaml"
        service_takes(f"compose with {store}", config.read_text(), folder)
    if not COMPOSE.exists():
        print("test-deploy: docker-compose.yaml not checked, docker-compose could not be fetched")
        return
    for store in stores:
        profiles = [] if store == "embedded" else ["--profile", store]
        output = run(
            COMPOSE, "--file", file, *profiles, "--profile", "monitoring", "config", "--format", "json",
            env=os.environ | {"STORE": store},
        )
        check(f"compose with {store}", output.returncode == 0, said(output))
        for name, service in json.loads(output.stdout)["services"].items():
            for volume in service.get("volumes", []):
                if volume["type"] == "bind":
                    path = volume["source"]
                    check(f"compose: {name} mounts", os.path.exists(path), f"no {path}")


def rules():
    promtool = shutil.which("promtool") or TOOLS / "bin/promtool"
    if not os.path.exists(promtool):
        print("test-deploy: alert rules and Prometheus' configuration not checked, there is no promtool")
        return
    output = run(promtool, "check", "rules", "envoy/alerts.yaml")
    check("promtool check rules", output.returncode == 0, said(output))
    output = run(promtool, "check", "config", "--syntax-only", "envoy/docker/prometheus.yaml")
    check("promtool check config", output.returncode == 0, said(output))


def agreement(manifests):
    """Versions and names that stand in several files."""
    version = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    check("chart's version", about["version"] == about["appVersion"] == version, version)
    rust = re.search(r'channel = "(\d+\.\d+)', (ROOT / "rust-toolchain.toml").read_text())[1]
    for image in re.findall(r"rust:(\S+)-bookworm", (ROOT / "envoy/docker/index.Dockerfile").read_text()):
        check("Rust in the image", image == rust, f"{image} is not {rust}")
    envoy = re.search(r"ENVOY_VERSION:-([\d.]+)", (ROOT / "just").read_text())[1]
    check("Envoy in the compose file", f"ENVOY_VERSION:-{envoy}}}" in (ROOT / "envoy/docker-compose.yaml").read_text(), envoy)

    output = documents("chart", render().stdout)
    [service] = [d for _, d in output if d["kind"] == "Service"]
    host = f"{service['metadata']['name']}.{NAMESPACE}.svc.cluster.local"
    port = service["spec"]["ports"][0]["port"]
    filters = 0
    for path in sorted((ROOT / "envoy").glob("*/*.yaml")):
        if path.parent.name not in ("istio", "gateway"):
            continue
        text = path.read_text()
        if path.name == "engines.yaml":
            # Of the engines, not of the service.
            ring = (ROOT / "envoy/ring-hash.yaml").read_text()
            header = re.search(r'"prefix_hash_header": "(.*?)"', ring)[1]
            named = set(re.findall(r"\bx-[a-z-]+", text))
            check(f"{path.parent.name}/{path.name}: the header", named == {header}, named)
            continue
        for image in re.findall(r"prompt-cache-filter:([\w.]+)", text):
            filters += 1
            check(f"{path.name}: the filter's version", image == version, image)
        for cluster in re.findall(r'"index_cluster": "(.*?)"', text):
            if "example" not in cluster:
                check(f"{path.name}: index_cluster", cluster == f"outbound|{port}||{host}", cluster)
        for name in re.findall(r"^\s*(?:- )?(?:host|address): (\S+svc\.cluster\.local)", text, re.M):
            check(f"{path.name}: host", name == host, name)
    check("mesh manifests name the image", filters == 3, filters)


def references():
    """The published JSON Schemas: they are some, the example is right by its own, mistakes are not."""
    model = {"model": "m", "encoding": "o200k_base"}
    example = yaml.safe_load((ROOT / "index-service/config.example.yaml").read_text())
    sources = ["x_api_key", {"header": "x-tenant"}, {"attribute": ["connection", "id"]}]
    cases = {
        "index": (
            [example, {"models": [model]}],
            [
                {},
                {"models": []},
                {"models": [{"model": "m", "encoding": "o300k"}]},
                {"models": [model], "listne": "x"},
                {"models": [model], "limits": {"concurrency_max": 0}},
                {"models": [{"model": "m", "tiers": ["2h"]}]},
            ],
        ),
        "filter": (
            [{"index_cluster": "i", "principal": sources}],
            [{}, {"index_cluster": "i", "cache_slat": True}],
        ),
    }
    for name, (right, wrong) in cases.items():
        schema = json.loads((ROOT / f"docs/schema/{name}.schema.json").read_text())
        validator = jsonschema.Draft202012Validator(schema)
        validator.check_schema(schema)
        for document in right:
            errors = [error.message for error in validator.iter_errors(document)]
            check(f"{name} schema takes {str(document)[:40]}", not errors, errors)
        for document in wrong:
            check(f"{name} schema refuses {document}", not validator.is_valid(document))


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        manifests = chart(folder)
        for path in sorted((ROOT / "envoy/istio").glob("*.yaml")) + sorted((ROOT / "envoy/gateway").glob("*.yaml")):
            manifests += documents(path.relative_to(ROOT), path.read_text())
        check("manifests", len(manifests) > 20, len(manifests))
        against_schemas(manifests)
        compose(folder)
    rules()
    references()
    agreement(manifests)
    print(f"test-deploy: {passed} passed, {len(failed)} failed")
    sys.exit(1 if failed else 0)


main()
