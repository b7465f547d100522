"""Write an image archive that a container runtime imports: `image.py PATH`.

One layer with one file, under the name NAME. Nothing in it can be run: it is there to be found.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path

NAME = "localhost/airgap:1"


def archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def image() -> bytes:
    """What `docker save` writes: manifest, configuration, layer."""
    layer = archive({"carried": b"over the gap\n"})
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/carried"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    ).encode()
    manifest = [{"Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}]
    return archive(
        {"manifest.json": json.dumps(manifest).encode(), "config.json": config, "layer.tar": layer}
    )


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(image())
