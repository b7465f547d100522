#!/usr/bin/python
# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""What a host says of itself, and the master of its cluster. Standard library only: this runs on hosts."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: k3s_daas_host_info
short_description: Read what a host of the fleet says of itself
version_added: "0.1.0"
description:
  - Reads the commitment of the host's seal token, the version of its k3s and the state of its units; on the
    master also the cluster's nodes, the CA that its API server serves, and whether its service finds itself
    named on-chain. Changes nothing, and returns no secret.
  - Runs with the Python of the host and needs nothing but its standard library.
options:
  units:
    description: Units that are to run here.
    type: list
    elements: str
    default: []
  seal_token:
    description: File of the seal token; not looked at when not given.
    type: path
  api_server:
    description: On the master, the URL of the API server, with which the cluster is asked.
    type: str
  endpoint:
    description: On the master, the URL of its service.
    type: str
attributes:
  check_mode:
    support: full
    description: Only reads.
  diff_mode:
    support: none
    description: Only reads.
author:
  - K3s-DaaS authors (@k3s-daas)
"""

EXAMPLES = r"""
- name: Look at a worker
  k3s_daas_host_info:
    seal_token: /etc/k3s-daas/seal-token
    units: [k3s-agent.service, k3s-daas-watcher.service]
  register: looked
"""

RETURN = r"""
host:
  description: C(commitment) and C(next_commitment) of the seal token (SHA-256 in hex, empty without one),
    C(seal_trouble), C(k3s_version) of the binary, and C(units) with C(active), C(sub) and C(enabled) of each.
  type: dict
  returned: success
cluster:
  description: C(nodes) by name with C(ready), C(unschedulable) and C(version); C(ca_pem) as served; and
    C(announced), null when the master's service gave no answer.
  type: dict
  returned: where O(api_server) is given and the cluster answers
cluster_trouble:
  description: Why the cluster gave no answer; empty when it did.
  type: str
  returned: success
"""

import json
import re
import ssl
import subprocess
import urllib.request
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.k3s_daas_seal import Refused, commitment_at, next_path

K3S = "/usr/local/bin/k3s"
TIMEOUT_S = 20
MAX_BYTES = 8 << 20


def seal_of(path):
    try:
        return {"commitment": commitment_at(path), "next_commitment": commitment_at(next_path(path))}
    except Refused as error:
        return {"seal_trouble": str(error)[:500]}
    except OSError as error:
        return {"seal_trouble": f"{path}: {error.strerror}"}


def version_of(binary):
    """ "v1.34.2+k3s1" of `k3s version v1.34.2+k3s1 (…)`; "" when there is no such program."""
    try:
        done = subprocess.run(
            [binary, "--version"], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.match(r"k3s version (\S{1,100})", done.stdout)
    return found[1] if found else ""


def parse_units(text):
    """What `systemctl show` prints: a paragraph of KEY=VALUE lines for each unit."""
    found = {}
    for paragraph in text.split("\n\n"):
        values = dict(line.partition("=")[::2] for line in paragraph.splitlines())
        if "Id" in values:
            keys = {"active": "ActiveState", "sub": "SubState", "enabled": "UnitFileState"}
            found[values["Id"]] = {key: values.get(name, "") for key, name in keys.items()}
    return found


def units_of(names):
    if not names:
        return {}
    command = ["systemctl", "show", "--property=Id,ActiveState,SubState,UnitFileState", "--", *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    return parse_units(done.stdout)


def node_of(node):
    conditions = {c["type"]: c["status"] for c in node["status"].get("conditions", [])}
    return {
        "ready": conditions.get("Ready") == "True",
        "unschedulable": bool(node["spec"].get("unschedulable")),
        "version": str(node["status"].get("nodeInfo", {}).get("kubeletVersion", "")),
    }


def nodes_of(binary):
    """The cluster's nodes by name. Raises ValueError with why it gave no answer."""
    command = [binary, "kubectl", "get", "nodes", "--output=json", f"--request-timeout={TIMEOUT_S}s"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=2 * TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ValueError(str(error)) from None
    if done.returncode:
        raise ValueError((done.stderr.strip().splitlines() or ["kubectl failed"])[-1][:300])
    try:
        items = json.loads(done.stdout)["items"]
        return {item["metadata"]["name"]: node_of({"spec": {}, "status": {}} | item) for item in items}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"kubectl answered with something else than nodes: {error!r}"[:300]) from None


def fetch(url, context):
    if not url.startswith("https://"):
        raise ValueError(f"found {url}, wanted https://")
    with urllib.request.urlopen(url, timeout=TIMEOUT_S, context=context) as answer:  # noqa: S310
        return answer.read(MAX_BYTES)


def cluster_of(binary, api_server, endpoint):
    """Raises ValueError with why there is no answer."""
    nodes = nodes_of(binary)
    unverified = ssl.create_default_context()
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    try:
        # Unverified, because it is what everything else is verified with; the chain knows its hash.
        ca = fetch(f"{api_server}/cacerts", unverified).decode("ascii")
    except (OSError, ValueError) as error:
        raise ValueError(f"{api_server}/cacerts: {error}") from None
    return {"nodes": nodes, "ca_pem": ca, "announced": announced(endpoint, ca)}


def announced(endpoint, ca):
    """The master's service's word on whether the chain names it; None when it gives none."""
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=ca)
        said = json.loads(fetch(f"{endpoint}/api/v1/workers", context))["master"]["announced"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return said if isinstance(said, bool) else None


def main():
    module = AnsibleModule(
        argument_spec={
            "units": {"type": "list", "elements": "str", "default": []},
            # A path, not the token.
            "seal_token": {"type": "path", "no_log": False},
            "api_server": {"type": "str"},
            "endpoint": {"type": "str"},
        },
        required_together=[("api_server", "endpoint")],
        supports_check_mode=True,
    )
    params = module.params
    try:
        host = {"k3s_version": version_of(K3S), "units": units_of(params["units"])}
    except (OSError, subprocess.SubprocessError) as error:
        module.fail_json(msg=f"Can't ask systemd for its units: {error}. Use a host that runs systemd.")
    if params["seal_token"]:
        host.update(seal_of(Path(params["seal_token"])))
    result = {"changed": False, "host": host, "cluster_trouble": ""}
    if params["api_server"]:
        try:
            result["cluster"] = cluster_of(K3S, params["api_server"], params["endpoint"])
        except ValueError as error:
            result["cluster_trouble"] = str(error)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
