#!/usr/bin/env python3
"""The hosts that `make demo` makes, as an inventory script: what the stage's description says.

Another address range, another number of workers, or another stage (K3S_DAAS_STAGE) needs no change here.
Before there is a stage the groups are empty.
"""

import json
import os
from pathlib import Path

STATE = Path(__file__).resolve().parents[2] / ".state"


def inventory(hosts: dict[str, str]) -> dict[str, object]:
    """Ansible's form of `{name: address}`."""
    return {
        "k3s_daas_master": {"hosts": [name for name in hosts if name == "master"]},
        "k3s_daas_workers": {"hosts": [name for name in hosts if name.startswith("worker-")]},
        "k3s_daas_monitoring": {"hosts": [name for name in hosts if name == "monitor"]},
        "_meta": {"hostvars": {name: {"ansible_host": address} for name, address in hosts.items()}},
    }


description = STATE / os.environ.get("K3S_DAAS_STAGE", "demo") / "stage.json"
print(json.dumps(inventory(json.loads(description.read_text())["hosts"] if description.exists() else {})))
