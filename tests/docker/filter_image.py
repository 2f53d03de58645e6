"""Takes plugin.wasm out of the filter's image: filter_image.py SAVED-IMAGE WASM TARGET.

Istio and Envoy Gateway read a wasm image of Docker's layout: the file `plugin.wasm` at the root of the
last layer. Ours has one layer with one file, which must be WASM byte for byte.
"""

import io
import json
import pathlib
import sys
import tarfile

saved, wasm, target = map(pathlib.Path, sys.argv[1:])
with tarfile.open(saved) as image:

    def read(name):
        return image.extractfile(name).read()

    [manifest] = json.loads(read("manifest.json"))
    config = json.loads(read(manifest["Config"]))
    [layer] = manifest["Layers"]
    assert len(config["rootfs"]["diff_ids"]) == 1, config["rootfs"]
    assert config["architecture"] and not config["config"].get("Entrypoint"), config
    with tarfile.open(fileobj=io.BytesIO(read(layer))) as files:
        members = files.getmembers()
        assert [(m.name, m.isfile()) for m in members] == [("plugin.wasm", True)], members
        found = files.extractfile(members[0]).read()
assert found[:4] == b"\0asm", found[:4]
assert found == wasm.read_bytes(), "not the module of dist/"
target.write_bytes(found)
print(f"filter's image: one layer, plugin.wasm of {len(found)} bytes")
