"""The hash of what a master is told of its cluster when it starts.

Policy is in an enclave's image, and PCR0 measures it. Ids and addresses come from the parent, which nobody
trusts. So what they are is in every statement of the master: by its hash, for whoever knows what it was to
be told. `k3s_daas.enclave.configure.master` makes these values of what a parent says; on an ordinary host
they are in the service's configuration.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

#: The keys of the service's configuration that are a cluster's own, and not measured with an image.
CLUSTER_KEYS = (
    "network",
    "endpoints",
    "chain_id",
    "package_id",
    "original_package_id",
    "registry_id",
    "operator_cap_id",
    "endpoint",
    "api_server",
    "names",
)


def config_hash(settings: Mapping[str, Any]) -> bytes:
    """SHA-256 (32 bytes) of the cluster's own values among `settings`, the service's configuration.

    What is missing counts as null: whoever hashes has the defaults in. Raises TypeError for what isn't JSON.
    """
    chosen = {key: settings.get(key) for key in CLUSTER_KEYS}
    text = json.dumps(chosen, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).digest()
