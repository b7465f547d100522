#!/usr/bin/python
# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""Have the API server write Secrets again. Standard library only: this runs on the master itself."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: k3s_secrets
short_description: Have the API server write its Secrets again
version_added: "0.1.0"
description:
  - The API server encrypts an object when it writes it. Once another key is the one that writes, each Secret
    has to be written once more, unchanged, before the old key may go.
  - Each is sent a change of nothing. The API server writes it again where it is stored under another key than
    the one that writes now, and only there. So this may be run as often as one likes, nothing that others
    change meanwhile is lost, and no Secret's content is asked for, sent or returned.
  - Reaches the API server as cluster administrator, with the certificate that k3s keeps on its host.
options:
  names:
    description:
      - The Secrets to write again, each as NAMESPACE/NAME@RESOURCEVERSION. Without it they are only listed.
    type: list
    elements: str
  server:
    description: The API server on this host.
    type: str
    default: https://127.0.0.1:6443
  tls:
    description: The folder in which k3s keeps its certificates.
    type: path
    default: /var/lib/rancher/k3s/server/tls
attributes:
  check_mode:
    support: full
    description: Lists them, and sends no change.
  diff_mode:
    support: none
    description: The content of a Secret doesn't change.
author:
  - K3s-DaaS authors (@k3s-daas)
"""

EXAMPLES = r"""
- name: List the Secrets
  k3s_secrets: {}
  register: secrets

- name: Write them again
  k3s_secrets:
    names: "{{ item }}"
  loop: "{{ secrets.names | batch(500) }}"
"""

RETURN = r"""
names:
  description: The Secrets that there are, as O(names) takes them.
  type: list
  elements: str
  returned: without O(names)
written:
  description: How many of them the API server wrote again.
  type: int
  returned: with O(names)
"""

import http.client
import json
import ssl
from pathlib import Path
from urllib.parse import quote, urlsplit

from ansible.module_utils.basic import AnsibleModule

# Answers hold what is said about Secrets, never what is in them.
_ABOUT = "application/json;as=PartialObjectMetadata{};g=meta.k8s.io;v=v1,application/json"
_PAGE = 500


class Refused(Exception):
    """The API server said no, and what it said."""


class ApiServer:
    """One connection to the API server, as cluster administrator."""

    def __init__(self, url, tls):
        context = ssl.create_default_context(cafile=str(tls / "server-ca.crt"))
        context.load_cert_chain(tls / "client-admin.crt", tls / "client-admin.key")
        where = urlsplit(url)
        self.connection = http.client.HTTPSConnection(where.hostname, where.port, timeout=60, context=context)

    def ask(self, method, path, accept, body=None):
        """The answer's JSON; None when there is no such object."""
        headers = {"Accept": accept, "Content-Type": "application/merge-patch+json"}
        self.connection.request(method, path, body, headers)
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise Refused(
                f"Found status {answer.status} for {method} {path.partition('?')[0]}, wanted 200: "
                f"{reason(content)}. No key was dropped. A Secret that can't be read is encrypted with a key "
                "that encryption.json doesn't have: restore the file, and run this again."
            )
        return json.loads(content)


def reason(content):
    """The message of a Status object, which names the Secret and holds nothing of it."""
    try:
        return str(json.loads(content)["message"])[:500]
    except (ValueError, LookupError, TypeError):
        return "no reason given"


def listed(api):
    """Every Secret as NAMESPACE/NAME@RESOURCEVERSION, sorted."""
    found, rest = [], ""
    while True:
        page = api.ask("GET", f"/api/v1/secrets?limit={_PAGE}&continue={quote(rest)}", _ABOUT.format("List"))
        about = [item["metadata"] for item in page["items"]]
        found += [f"{one['namespace']}/{one['name']}@{one['resourceVersion']}" for one in about]
        rest = page["metadata"].get("continue", "")
        if not rest:
            return sorted(found)


def write_again(api, name):
    """Whether the API server stored it anew. One that was deleted meanwhile needs nothing."""
    where, _, version = name.partition("@")
    namespace, _, secret = where.partition("/")
    path = f"/api/v1/namespaces/{quote(namespace)}/secrets/{quote(secret)}"
    answer = api.ask("PATCH", path, _ABOUT.format(""), "{}")
    return answer is not None and answer["metadata"]["resourceVersion"] != version


def work(module):
    api = ApiServer(module.params["server"], Path(module.params["tls"]))
    names = module.params["names"]
    if names is None:
        module.exit_json(changed=False, names=listed(api))
    written = 0 if module.check_mode else sum(write_again(api, name) for name in names)
    module.exit_json(changed=written > 0, written=written)


def main():
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str"},
            "server": {"type": "str", "default": "https://127.0.0.1:6443"},
            "tls": {"type": "path", "default": "/var/lib/rancher/k3s/server/tls"},
        },
        supports_check_mode=True,
    )
    try:
        work(module)
    except Refused as error:
        module.fail_json(msg=str(error))
    except (OSError, ValueError, http.client.HTTPException) as error:
        module.fail_json(
            msg=f"Can't talk to the API server at {module.params['server']}: {error}. "
            "See `journalctl -u k3s`, then run this again."
        )


if __name__ == "__main__":
    main()
