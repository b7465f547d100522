#!/usr/bin/python
# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""Have a master seal its state now."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: sealed_snapshot
short_description: Have the live master seal its state now, and wait until that is anchored
version_added: "0.1.0"
description:
  - Asks the master that the chain names, over TLS of the CA whose hash is on-chain, for a sealed snapshot of
    its state. It returns once the chain anchors one that was begun after it was asked for.
  - The request is signed by the wallet in O(key_file), which has to hold the registry's OperatorCap. That
    wallet sends no transaction; the master pays for the anchor as for each of its snapshots.
  - Check mode asks nobody but the chain.
options:
  required:
    description:
      - With V(false) a master that gives no answer is no failure, and RV(anchored) is false. One that
        refuses always is.
    type: bool
    default: true
extends_documentation_fragment: [k3s_daas, k3s_daas.signer, k3s_daas.registry]
"""

EXAMPLES = r"""
- name: Seal what there is before the enclave is stopped
  sealed_snapshot:
    package_id: "{{ package.package_id }}"
    registry_id: "{{ registry.registry_id }}"
    network: testnet
    endpoints: [https://fullnode.testnet.sui.io:443]
    key_file: ~/.k3s-daas/operator.key
  delegate_to: localhost
"""

RETURN = r"""
anchored:
  description: Whether a snapshot was made and anchored; false also in check mode.
  type: bool
  returned: success
counter:
  description: Number of the newest anchored snapshot; 0 where there is none.
  type: int
  returned: success
copied_ms:
  description: What was done until then, in ms since 1970, is in the one that was made.
  type: int
  returned: when anchored
problem:
  description: Why nobody answered; empty otherwise.
  type: str
  returned: success
"""

from ansible.module_utils.k3s_daas_chain import Refused, open_registry, start

try:
    import asyncio
    import time

    from k3s_daas.chain import Key
    from k3s_daas.join import JoinError, fetch_cacerts
    from k3s_daas.operator import NotDone, Place, ask_snapshot
    from k3s_daas.registry.snapshots import read_anchor
except ImportError:
    pass  # start() reports it


async def ask(registry, master, key):
    """What the master says of its snapshot. Raises NotDone."""
    try:
        ca_pem = await asyncio.to_thread(fetch_cacerts, master.api_server, master.ca_hash)
    except JoinError as error:
        raise NotDone(str(error), answered=False) from None
    place, now_ms = Place(master.endpoint, ca_pem), time.time_ns() // 1_000_000
    return await ask_snapshot(place, key, registry.deployment.registry_id, now_ms)


async def work(module):
    async with open_registry(module) as registry:
        master, anchor = await registry.master(), await read_anchor(registry)
        counter = anchor.counter if anchor else 0
        if master is None or not master.endpoint:
            raise Refused(
                f"Found {'no master' if master is None else 'a master without an endpoint'} in registry "
                f"{registry.deployment.registry_id}, wanted one that has announced itself. Run "
                "playbooks/master.yml."
            )
        result = {"changed": True, "anchored": False, "counter": counter, "problem": ""}
        if module.check_mode:
            return result
        try:
            sealed = await ask(registry, master, Key.load(module.params["key_file"]))
        except NotDone as error:
            if error.answered or module.params["required"]:
                raise Refused(f"The master made no snapshot: {error}") from None
            return result | {"changed": False, "problem": str(error)}
        return result | {"anchored": True, "counter": sealed.counter, "copied_ms": sealed.copied_ms}


def main():
    start(work, {"required": {"type": "bool", "default": True}})


if __name__ == "__main__":
    main()
