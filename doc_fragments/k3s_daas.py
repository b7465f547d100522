# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""The documentation of what all chain modules share; the options themselves are in module_utils."""

from __future__ import annotations


class ModuleDocFragment:
    # The network, which every chain module connects to.
    DOCUMENTATION = r"""
requirements:
  - k3s-daas, installed for the control node's Python, where these modules run
options:
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
    description: Digest of the network's first checkpoint (base58). Known for V(testnet) and V(mainnet).
    type: str
  timeout_s:
    description: Seconds one call may take.
    type: float
    default: 10.0
attributes:
  check_mode:
    support: full
    description: Checks and simulates everything, sends nothing.
  diff_mode:
    support: full
    description: Shows what changes on-chain, or would.
author:
  - K3s-DaaS authors (@k3s-daas)
"""

    # Modules that sign.
    SIGNER = r"""
options:
  key_file:
    description:
      - Path of the wallet's key (C(suiprivkey1...) or base64) on the control node, mode 0600.
      - The key stays in this file and in the module's memory.
    type: path
    required: true
notes:
  - RV(ignore:preview) is what the operator agrees to, in check mode and in a real run alike. C(summary) says
    it in sentences, the rest in figures, C(gas_estimate_mist) (null where it can't be known yet),
    C(stake_locked_mist), C(stake_returned_mist), C(paid_mist), C(balance_before_mist), C(balance_after_mist),
    C(transactions) and C(slash_conditions).
"""

    # Modules that work on one registry.
    REGISTRY = r"""
options:
  package_id:
    description: Id of the published package. In check mode it may be empty or V(published by this run).
    type: str
    required: true
  original_package_id:
    description: Id of the package's first version, where it was upgraded since.
    type: str
  registry_id:
    description: Id of the registry. In check mode it may be empty or V(published by this run).
    type: str
    required: true
"""
