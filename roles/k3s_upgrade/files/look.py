#!/usr/bin/python3
"""What k3s is on this host, as JSON. Only looks. `look.py server` asks the API server too.

{"installed": {"version", "sha256"} or null, "unfinished": whether an upgrade was interrupted here,
 "running": the API server's version or null, "detail": why it is null,
 "nodes": {name: {"version", "ready", "cordoned": "" or "upgrade" or "other"}} or null}
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import time

K3S = "/usr/local/bin/k3s"
# Made before the binary is replaced, removed when the new one runs.
PREVIOUS = K3S + ".previous"
CORDONED = "k3s-daas/upgrading"


def run(*arguments):
    """(output, "") of a k3s command, or (None, why there is none)."""
    try:
        done = subprocess.run([K3S, *arguments], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    return (done.stdout, "") if done.returncode == 0 else (None, done.stderr.strip()[-300:])


def installed():
    if not os.path.exists(K3S):  # noqa: PTH110 - pathlib would cost more than the rest
        return None
    digest = hashlib.sha256()
    with open(K3S, "rb") as file:  # noqa: PTH123
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    said = re.search(r"version (v\S+)", run("--version")[0] or "")
    return {"version": said[1] if said else None, "sha256": digest.hexdigest()}


def node(found):
    conditions = found["status"].get("conditions", [])
    ours = CORDONED in found["metadata"].get("annotations", {})
    cordoned = found.get("spec", {}).get("unschedulable", False)
    return {
        "version": found["status"].get("nodeInfo", {}).get("kubeletVersion", ""),
        "ready": any(one["type"] == "Ready" and one["status"] == "True" for one in conditions),
        "cordoned": "upgrade" if ours else "other" if cordoned else "",
    }


look = {
    "installed": installed(),
    "unfinished": os.path.exists(PREVIOUS),  # noqa: PTH110
    "running": None,
    "detail": "",
    "nodes": None,
}
if sys.argv[1:] == ["server"]:
    version, look["detail"] = run("kubectl", "get", "--raw", "/version", "--request-timeout=10s")
    # Nodes that have just lost their server come back within 10 s.
    for _ in range(4) if version is not None else ():
        look["running"] = json.loads(version)["gitVersion"]
        nodes, look["detail"] = run("kubectl", "get", "nodes", "--output=json", "--request-timeout=10s")
        if nodes is None:
            break
        look["nodes"] = {one["metadata"]["name"]: node(one) for one in json.loads(nodes)["items"]}
        if all(one["ready"] for one in look["nodes"].values()):
            break
        time.sleep(4)
print(json.dumps(look))
