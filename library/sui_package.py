#!/usr/bin/python
# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""Publish the Move package, find it published, or upgrade it."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: sui_package
short_description: Publish a Move package once, and upgrade it
version_added: "0.1.0"
description:
  - Compiles a Move package and publishes it, unless the wallet's address already holds the UpgradeCap of a
    package with the very same bytecode.
  - Upgrades a package only when told so, with V(latest), and only where its bytecode differs.
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
    description:
      - V(present) publishes where the very same bytecode isn't published yet.
      - V(latest) upgrades the package of O(package_id) to the bytecode of the sources, and publishes where
        there is no O(package_id). The package's users change over with C(migrate), see M(sui_registry).
      - A published package can't be taken back.
    type: str
    choices: [present, latest]
    default: present
  package_id:
    description: With V(latest), any version of the package to upgrade. Empty where there is none yet.
    type: str
  compiled:
    description:
      - What a run in check mode returned as RV(compiled). Nothing is compiled again, and what was shown is
        what is published, whatever the sources have become since.
    type: dict
    suboptions:
      compiler:
        description: Which compiler made it.
        type: str
        choices: [sui, localnet]
        required: true
      modules:
        description: Bytecode of each module in base64.
        type: list
        elements: str
        required: true
      dependencies:
        description: Ids of the packages that it links to.
        type: list
        elements: str
        required: true
      digest:
        description: Digest of the package in hex.
        type: str
        required: true
extends_documentation_fragment: [k3s_daas, k3s_daas.signer]
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

- name: Upgrade them to what the sources have become
  sui_package:
    path: "{{ playbook_dir }}/../move/k3s_daas"
    state: latest
    package_id: "{{ package.package_id }}"
    network: localnet
    endpoints: [http://127.0.0.1:9000]
    key_file: ~/.k3s-daas/operator.key
  delegate_to: localhost
"""

RETURN = r"""
package_id:
  description: Id of the package; V(published by this run) in check mode when it isn't there yet.
  type: str
  returned: success
original_package_id:
  description: Id of its first version, which names its types for ever.
  type: str
  returned: success
upgraded_from:
  description: Id of the version that this run upgraded, or would; empty when it upgraded nothing.
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
compiled:
  description: The bytecode that would be published, for O(compiled).
  type: dict
  returned: in check mode, when there is something to publish or to upgrade
preview:
  description: What the operator agrees to; see the notes.
  type: dict
  returned: success
digests:
  description: The transactions that were sent.
  type: list
  elements: str
  returned: success
gas_mist:
  description: What they cost, or would cost, in MIST.
  type: int
  returned: success
"""

import base64

from ansible.module_utils.k3s_daas_chain import PLANNED, Refused, connect, is_planned, perform, start

try:
    from k3s_daas.registry.compiler import compile_package
    from k3s_daas.registry.deploy import CompiledPackage, plan_package
except ImportError:
    pass  # start() reports it


def compiled(module):
    """(package, compiler) of the sources, or of what was compiled of them before."""
    wanted, network, given = (module.params[name] for name in ("compiler", "network", "compiled"))
    if given:
        modules = tuple(base64.b64decode(code, validate=True) for code in given["modules"])
        package = CompiledPackage(modules, tuple(given["dependencies"]), bytes.fromhex(given["digest"]))
        wanted = compiler = given["compiler"]
    else:
        package, compiler = compile_package(module.params["path"], "sui" if network == "mainnet" else wanted)
    if network == "mainnet" and wanted == "localnet":
        raise Refused("Found compiler localnet on mainnet, wanted sui: only Sui's own tool is trusted there.")
    if network == "testnet" and compiler == "localnet":
        module.warn("The package was compiled against generated framework stubs: use the sui CLI to be sure.")
    return package, compiler


async def work(module):
    package, compiler = compiled(module)
    upgrade = module.params["state"] == "latest" and not is_planned(module.params["package_id"])
    async with await connect(module) as chain:
        known = module.params["package_id"] if upgrade else None
        found, newer, operation = await plan_package(chain, package, known)
        result, done = await perform(module, chain, operation)
        now = done.created.get("package", [PLANNED])[0] if operation.builds else found.id
        before = {}
        if found is not None:
            before = {"package_id": found.id, "bytecode_digest": "another" if newer else package.digest.hex()}
        original = found.original_id if found else now
        if operation.builds and module.check_mode:
            result["compiled"] = {
                "compiler": compiler,
                "modules": [base64.b64encode(code).decode() for code in package.modules],
                "dependencies": list(package.dependencies),
                "digest": package.digest.hex(),
            }
        return result | {
            "package_id": now,
            "original_package_id": original,
            "upgraded_from": found.id if newer else "",
            "compiler": compiler,
            "bytecode_digest": package.digest.hex(),
            "diff": {
                "before": before,
                "after": {"package_id": now, "bytecode_digest": package.digest.hex()},
            },
        }


def main():
    spec = {
        "path": {"type": "path", "required": True},
        "compiler": {"type": "str", "choices": ["auto", "sui", "localnet"], "default": "auto"},
        "state": {"type": "str", "choices": ["present", "latest"], "default": "present"},
        "package_id": {"type": "str"},
        "compiled": {
            "type": "dict",
            "options": {
                "compiler": {"type": "str", "choices": ["sui", "localnet"], "required": True},
                "modules": {"type": "list", "elements": "str", "required": True},
                "dependencies": {"type": "list", "elements": "str", "required": True},
                "digest": {"type": "str", "required": True},
            },
        },
    }
    start(work, spec, registry=False)


if __name__ == "__main__":
    main()
