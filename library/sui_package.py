#!/usr/bin/python
# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""Publish the Move package, or find it published."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: sui_package
short_description: Publish a Move package once
version_added: "0.1.0"
description:
  - Compiles a Move package and publishes it, unless the wallet's address already holds the UpgradeCap of a
    package with the very same bytecode.
  - Runs on the control node, with the Python that has k3s-daas installed.
options:
  path:
    description: Folder of the package, the one with Move.toml.
    type: path
    required: true
  compiler:
    description:
      - V(sui) is the C(sui) command line tool, V(localnet) the offline compiler of k3s-daas-localnet.
      - V(auto) takes C(sui) where it is installed.
      - On V(mainnet) only C(sui) is trusted.
    type: str
    choices: [auto, sui, localnet]
    default: auto
  state:
    description: A published package can't be taken back.
    type: str
    choices: [present]
    default: present
  network:
    description: Which Sui network the endpoints serve. Plaintext endpoints are taken on V(localnet) only.
    type: str
    choices: [localnet, devnet, testnet, mainnet]
    required: true
  endpoints:
    description: URLs of the network's gRPC endpoints; the next one is asked when one doesn't answer.
    type: list
    elements: str
    required: true
  chain_id:
    description:
      - Digest of the network's first checkpoint (base58). Known for V(testnet) and V(mainnet).
    type: str
  timeout_s:
    description: Seconds one call may take.
    type: float
    default: 10.0
  key_file:
    description:
      - Path of the publisher's wallet key (C(suiprivkey1...) or base64), on the control node, mode 0600.
      - The key stays in this file and in the module's memory.
    type: path
    required: true
attributes:
  check_mode:
    support: full
    description: Compiles and simulates, sends nothing.
  diff_mode:
    support: full
author:
  - K3s-DaaS authors
"""

EXAMPLES = r"""
- name: Publish the contracts
  sui_package:
    path: "{{ playbook_dir }}/../move/k3s_daas"
    network: localnet
    endpoints: [http://127.0.0.1:9000]
    key_file: ~/.k3s-daas/operator.key
  delegate_to: localhost
  register: package
"""

RETURN = r"""
package_id:
  description: Id of the package; V(published by this run) in check mode when it isn't there yet.
  type: str
  returned: success
compiler:
  description: Which compiler made the bytecode, V(sui) or V(localnet).
  type: str
  returned: success
bytecode_digest:
  description: Digest of the compiled package in hex.
  type: str
  returned: success
digest:
  description: Transaction that published it; empty when it was found or in check mode.
  type: str
  returned: success
gas_mist:
  description: What publishing cost, or would cost, in MIST.
  type: int
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.k3s_daas_chain import CONNECTION_SPEC, KEY_SPEC, PLANNED, Refused, connect, run

try:
    from k3s_daas.registry.compiler import compile_package
    from k3s_daas.registry.deploy import find_package, preview_publish, publish
except ImportError:
    pass  # run() reports it


async def work(module):
    wanted, network = module.params["compiler"], module.params["network"]
    package, compiler = compile_package(module.params["path"], "sui" if network == "mainnet" else wanted)
    if network == "mainnet" and wanted == "localnet":
        raise Refused("Found compiler localnet on mainnet, wanted sui: only Sui's own tool is trusted there.")
    if network == "testnet" and compiler == "localnet":
        module.warn("The package was compiled against generated framework stubs: use the sui CLI to be sure.")
    result = {
        "changed": False,
        "compiler": compiler,
        "bytecode_digest": package.digest.hex(),
        "digest": "",
        "gas_mist": 0,
    }
    async with await connect(module) as chain:
        found = await find_package(chain, chain.address, package.modules)
        if found is not None:
            result["package_id"] = found
        elif module.check_mode:
            preview = await preview_publish(chain, package)
            result |= {"changed": True, "package_id": PLANNED, "gas_mist": preview.gas_mist}
        else:
            package_id, receipt = await publish(chain, package)
            result |= {"changed": True, "package_id": package_id, "digest": receipt.digest}
            result["gas_mist"] = receipt.gas_mist
    after = {"package_id": result["package_id"], "bytecode_digest": package.digest.hex()}
    result["diff"] = {"before": {} if result["changed"] else after, "after": after}
    return result


def main():
    spec = {
        "path": {"type": "path", "required": True},
        "compiler": {"type": "str", "choices": ["auto", "sui", "localnet"], "default": "auto"},
        "state": {"type": "str", "choices": ["present"], "default": "present"},
    }
    run(AnsibleModule(argument_spec=spec | CONNECTION_SPEC | KEY_SPEC, supports_check_mode=True), work)


if __name__ == "__main__":
    main()
