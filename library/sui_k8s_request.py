#!/usr/bin/python
# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""Submit a request to run something on the fleet."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: sui_k8s_request
short_description: Have something run on the fleet, paid on-chain
version_added: "0.1.0"
description:
  - Submits a request with a deposit; the contract assigns it to the best of up to 32 candidate workers, who
    earns the deposit. Only the SHA-256 of what is asked goes on-chain.
  - With O(token_file), also hands the body to the master, waits, and returns the result, held against the
    hash on-chain. Fails when the request didn't succeed. Needs a staked worker of the wallet.
  - What this wallet asked before, and is still open, is not submitted again. Once ended it is forgotten
    on-chain, so the same can be asked, and paid, once more.
options:
  method:
    description: What is asked, done as the owner and in the owner's namespace.
    type: str
    choices: [get, list, apply, delete, scale, logs]
    required: true
  resource:
    description: Kind of the object in the plural, such as V(configmaps). V(pods) with V(logs).
    type: str
    required: true
  name:
    description: Name of the object; of O(manifest) when not given.
    type: str
  manifest:
    description: The object to apply. Secrets are refused, and so is what looks like one.
    type: dict
  replicas:
    description: How many, with V(scale).
    type: int
  label_selector:
    description: Which objects to V(list).
    type: str
  nonce:
    description: Any text, to tell a request from another that asks the same.
    type: str
  token_file:
    description: Path of the owner's seal token (scope owner), mode 0600. It is read from nowhere else.
    type: path
  wait_s:
    description: Seconds to wait for the result.
    type: float
    default: 120.0
  priority:
    description: 0 to 10. From 8 on it may take a worker's reserved last slot.
    type: int
    default: 5
  deposit:
    description: What the worker gets, in SUI or MIST (V(0.01), V(10000000 MIST)); at least 0.001 SUI.
    type: str
    required: true
  candidates:
    description: Node ids to choose from, 1 to 32, the first of equals. The best of all when not given.
    type: list
    elements: str
extends_documentation_fragment: [k3s_daas, k3s_daas.signer, k3s_daas.registry]
"""

EXAMPLES = r"""
- name: Have the fleet run a job
  sui_k8s_request:
    method: apply
    resource: jobs
    manifest: "{{ lookup('ansible.builtin.file', 'job.yaml') | from_yaml }}"
    deposit: "0.01"
    token_file: ~/.k3s-daas/owner.seal
    package_id: "{{ package.package_id }}"
    registry_id: "{{ registry.registry_id }}"
    network: localnet
    endpoints: [http://127.0.0.1:9000]
    key_file: ~/.k3s-daas/owner.key
  delegate_to: localhost
"""

RETURN = r"""
request:
  description:
    - The open request with C(request_id), C(node_id) of its worker and C(deadline_ms); in check mode the
      worker that would get it now. A request that was submitted before is shown as it is.
  type: dict
  returned: success
candidates:
  description: Node ids that were named to the contract; empty when the request was open already.
  type: list
  elements: str
  returned: success
body:
  description: The body to the byte; without O(token_file) it is yours to post.
  type: str
  returned: success
status:
  description: What the master says of the request, without its result.
  type: dict
  returned: with O(token_file), outside of check mode
result:
  description: The result, whose hash is on-chain; C(object), C(items) or C(log) holds what was asked for.
  type: dict
  returned: with O(token_file), outside of check mode, when the request is completed
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

import contextlib

from ansible.module_utils.k3s_daas_chain import open_registry, perform, start

try:
    from k3s_daas import tokenfile
    from k3s_daas.registry.render import to_json
    from k3s_daas.registry.requests import plan_request
    from k3s_daas.requests.client import RequestsApi, finished
    from k3s_daas.requests.policy import Policy
    from k3s_daas.requests.schema import encode, parse, payload_hash
    from k3s_daas.requests.submit import scheduled
    from k3s_daas.tenancy import tenant_namespace
    from k3s_daas.units import parse_sui
except ImportError:
    pass  # start() reports it


METHODS = ["get", "list", "apply", "delete", "scale", "logs"]
TEXTS = ("name", "label_selector", "nonce")


def body_of(params):
    fields = {key: params[key] for key in ("method", "resource", "replicas", *TEXTS)}
    metadata = (params["manifest"] or {}).get("metadata")
    if fields["name"] is None and isinstance(metadata, dict):
        fields["name"] = metadata.get("name")
    return encode(payload=params["manifest"], **fields)


async def work(module):
    params = module.params
    body, deposit = body_of(params), parse_sui(params["deposit"])
    token = params["token_file"] and tokenfile.read(params["token_file"])
    async with open_registry(module) as registry, contextlib.AsyncExitStack() as stack:
        api = None
        Policy().check(parse(body), tenant_namespace(registry.chain.require_address()))
        wanted = (payload_hash(body), params["priority"], deposit, params["candidates"])
        known, candidates, operation = await plan_request(registry, *wanted)
        if token and not module.check_mode:
            api = await stack.enter_async_context(await RequestsApi.connect(registry, token))
            await api.greet()
        result, done = await perform(module, registry.chain, operation)
        made = scheduled(done.events, registry.deployment) or known
        if api is not None:
            served = finished(registry, api, made.request_id, body, params["wait_s"])
            result["status"], result["result"] = await served
        return result | {
            "request": to_json(made),
            "candidates": candidates,
            "body": body.decode(),
            "diff": {"before": to_json(known) or {}, "after": to_json(made)},
        }


def main():
    texts = {key: {"type": "str"} for key in TEXTS}
    spec = texts | {
        "method": {"type": "str", "choices": METHODS, "required": True},
        "resource": {"type": "str", "required": True},
        "manifest": {"type": "dict"},
        "replicas": {"type": "int"},
        "token_file": {"type": "path", "no_log": False},
        "wait_s": {"type": "float", "default": 120.0},
        "priority": {"type": "int", "default": 5},
        "deposit": {"type": "str", "required": True},
        "candidates": {"type": "list", "elements": "str"},
    }
    start(work, spec)


if __name__ == "__main__":
    main()
