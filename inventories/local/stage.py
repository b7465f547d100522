#!/usr/bin/env python3
"""The hosts that `make demo` makes, as an inventory script: what the stage's description says.

Another address range, another number of workers, or another stage (K3S_DAAS_STAGE) needs no change here.
Before there is a stage the groups are empty.
"""

import json
import os
from pathlib import Path

STATE = Path(__file__).resolve().parents[2] / ".state"


def inventory(hosts: dict[str, str], master: str = "master") -> dict[str, object]:
    """Ansible's form of `{name: address}`; `master` is which of the two that can be it is."""
    return {
        "k3s_daas_master": {"hosts": [name for name in hosts if name == master]},
        "k3s_daas_standby": {
            "hosts": [name for name in ("master", "standby") if name in hosts and name != master]
        },
        "k3s_daas_workers": {"hosts": [name for name in hosts if name.startswith("worker-")]},
        "k3s_daas_monitoring": {"hosts": [name for name in hosts if name == "monitor"]},
        "_meta": {"hostvars": {name: {"ansible_host": address} for name, address in hosts.items()}},
    }


description = STATE / os.environ.get("K3S_DAAS_STAGE", "demo") / "stage.json"
found = json.loads(description.read_text()) if description.exists() else {"hosts": {}}
print(json.dumps(inventory(found["hosts"], found.get("master", "master"))))
