#!/usr/bin/python
# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""Find out, provably, which account an enclave has."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: enclave_account
short_description: Find out which account an enclave has, before it is given gas
version_added: "0.1.0"
description:
  - Asks a master that is not on the chain yet for an attestation document, and holds it against the image
    that was built and the registry that it is for. Sends nothing.
  - The document is all that is trusted. It is refused in debug mode, when it is older than 5 minutes, and
    when anything in it is of another image, chain, package or registry.
options:
  endpoint:
    description: Where the enclave's master answers, as C(https://HOST:PORT).
    type: str
    required: true
  pcr0:
    description: PCR0 of the image in hex, as building it said.
    type: str
    required: true
  cluster:
    description:
      - What the enclave's parent was to tell it, as in C(cluster.json). An enclave that was told anything
        else is refused.
    type: dict
  simulation_root_file:
    description: Root certificate of an emulator, on a localnet. What it signs proves nothing.
    type: path
  wait_s:
    description: How long to wait for a document, in seconds.
    type: int
    default: 120
extends_documentation_fragment: [k3s_daas, k3s_daas.registry]
"""

EXAMPLES = r"""
- name: Find the enclave's account
  enclave_account:
    endpoint: https://10.0.0.10:8443
    pcr0: "{{ (lookup('ansible.builtin.file', 'image.json') | from_json).pcrs.PCR0 }}"
    cluster: "{{ lookup('ansible.builtin.file', 'cluster.json') | from_json }}"
    package_id: "{{ package.package_id }}"
    registry_id: "{{ registry.registry_id }}"
    network: testnet
    endpoints: [https://fullnode.testnet.sui.io:443]
  delegate_to: localhost
  register: enclave

- name: Give it gas
  sui_master:
    account: "{{ enclave.account }}"
    attests: true
    package_id: "{{ package.package_id }}"
    registry_id: "{{ registry.registry_id }}"
    network: testnet
    endpoints: [https://fullnode.testnet.sui.io:443]
    key_file: ~/.k3s-daas/operator.key
  delegate_to: localhost
"""

RETURN = r"""
account:
  description: Address of the enclave's wallet. Its key never left the enclave.
  type: str
  returned: success
pcr0:
  description: PCR0 in hex, the image.
  type: str
  returned: success
pcr3:
  description: PCR3 in hex, the parent's IAM role; to be listed beside PCR0.
  type: str
  returned: success
public_key:
  description: The key that it attests, in hex; the chain has the live master's.
  type: str
  returned: success
ca_hash:
  description: Hash of the CA that the enclave serves with, in hex.
  type: str
  returned: success
config_hash:
  description: Hash of what the enclave was told of its cluster, in hex.
  type: str
  returned: success
simulated:
  description: Whether an emulator signed, so that nothing is proved.
  type: bool
  returned: success
"""

import asyncio
import json
import time
from pathlib import Path

from ansible.module_utils.k3s_daas_chain import open_registry, start

try:
    from k3s_daas.attest import InvalidRoot, NoAnswer, fetch_document, trusted_root
    from k3s_daas.attestation.newcomer import check_newcomer
    from k3s_daas.attestation.serving import ServingRefused, new_nonce
    from k3s_daas.enclave.cluster import ClusterError, parse
    from k3s_daas.enclave.configure import told_hash
except ImportError:
    pass  # start() reports it


async def ask(endpoint, nonce, wait_s):
    """A document. An enclave answers late: its k3s and its view of the chain come first. Raises NoAnswer."""
    deadline = time.monotonic() + wait_s
    while True:
        try:
            return await fetch_document(endpoint, None, nonce)
        except NoAnswer as error:
            if error.status not in (None, 429, 503) or time.monotonic() > deadline:
                raise
        await asyncio.sleep(1)


async def work(module):
    params = module.params
    try:
        pcr0 = bytes.fromhex(params["pcr0"])
        file = params["simulation_root_file"]
        cluster = params["cluster"]
        told = None if cluster is None else told_hash(parse(json.dumps(cluster).encode()))
        root = trusted_root(params["network"], Path(file) if file else None)
        async with open_registry(module, with_key=False) as registry:
            nonce = new_nonce()
            raw = await ask(params["endpoint"], nonce, params["wait_s"])
            _, now_ms = await registry.chain.latest_checkpoint()
            found = check_newcomer(
                raw,
                nonce,
                network=params["network"],
                chain_id=registry.chain.chain_id,
                package_id=registry.deployment.types_id,
                registry_id=registry.deployment.registry_id,
                pcr0=pcr0,
                now_ms=now_ms,
                config_hash=told,
                root=root,
            )
    except (NoAnswer, InvalidRoot, ClusterError, ServingRefused, ValueError) as error:
        module.fail_json(msg=f"The enclave at {params['endpoint']} has proved no account: {error}")
    return {
        "changed": False,
        "account": found.account,
        "pcr0": found.pcr0.hex(),
        "pcr3": found.pcr3.hex(),
        "public_key": found.public_key.hex(),
        "ca_hash": found.ca_hash.hex(),
        "config_hash": found.config_hash.hex(),
        "simulated": found.simulated,
    }


def main():
    options = {
        "endpoint": {"type": "str", "required": True},
        "pcr0": {"type": "str", "required": True},
        "cluster": {"type": "dict"},
        "simulation_root_file": {"type": "path"},
        "wait_s": {"type": "int", "default": 120},
    }
    start(work, options, key=False)


if __name__ == "__main__":
    main()
