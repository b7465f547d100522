#!/usr/bin/python
# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""Keep k3s' server token for old snapshots. Standard library only: this runs on the master itself."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: k3s_server_token
short_description: Keep k3s' server token, and tell whether the server that runs knows it
version_added: "0.1.0"
description:
  - Keeps a copy of the server token on its host. A copy of k3s' datastore opens only with the token
    of its time.
  - Asks the server that runs whether it accepts the token that is in the file. k3s reads its tokens when it
    starts, so one that was rotated is refused, and the old one accepted, until then.
  - The token is never returned, nor in an argument.
options:
  kept:
    description:
      - The folder of the copies, made with mode 0700. Each is called by the first 12 hex digits of the
        token's SHA-256, and has mode 0600. One that is there is left as it is.
    type: path
    default: /var/lib/k3s-daas/server-tokens
  path:
    description: The file in which k3s has its server token, in full token format.
    type: path
    default: /var/lib/rancher/k3s/server/token
  server:
    description: The k3s server on this host.
    type: str
    default: https://127.0.0.1:6443
  ca:
    description: The CA that certifies the server.
    type: path
    default: /var/lib/rancher/k3s/server/tls/server-ca.crt
attributes:
  check_mode:
    support: full
    description: Asks, and keeps nothing.
  diff_mode:
    support: none
    description: The file is a secret.
author:
  - K3s-DaaS authors (@k3s-daas)
"""

EXAMPLES = r"""
- name: Keep the server token
  k3s_server_token: {}
  register: server_token
"""

RETURN = r"""
id:
  description: What the copy is called.
  type: str
  returned: success
accepted:
  description: Whether the server that runs accepts the token.
  type: bool
  returned: success
"""

import base64
import contextlib
import hashlib
import http.client
import os
import re
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.k3s_daas_seal import sync_directory

_TOKEN = re.compile(r"K10[0-9a-f]{64}::([^:\s]+:[^:\s]+)", re.ASCII)


class Refused(Exception):
    """Found something else than a server token, or a server that isn't k3s; the message holds no token."""


def read(path):
    """The token in the file, and the part that is the user and password."""
    token = path.read_text(encoding="ascii", errors="replace").strip()
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise Refused(
            f"Found {len(token)} characters in {path}, wanted a token in the format K10HASH::USER:PASSWORD. "
            "Restore the file, or restart k3s, which writes it."
        )
    return token, match[1]


def keep(folder, token, check_mode):
    """(changed, name) of there being a copy of the token, whole or not at all."""
    name = hashlib.sha256(token.encode()).hexdigest()[:12]
    if (folder / name).exists():
        return False, name
    if check_mode:
        return True, name
    if not folder.is_dir():
        folder.mkdir(mode=0o700, parents=True)
        folder.chmod(0o700)
    temporary = folder / f".{name}.new"
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()  # of a run that was killed
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(token + "\n")
        file.flush()
        os.fsync(fd)
    temporary.replace(folder / name)
    sync_directory(folder)
    return True, name


def is_accepted(url, ca, credentials):
    """Whether the server takes it for its own.

    Asked where a token is changed, by a GET, which changes nothing: 405 is for who may, 401 for all others
    (k3s 1.34: pkg/server/handlers/token.go, pkg/server/auth/auth.go).
    """
    where = urlsplit(url)
    context = ssl.create_default_context(cafile=str(ca))
    connection = http.client.HTTPSConnection(where.hostname, where.port, timeout=30, context=context)
    basic = base64.b64encode(credentials.encode()).decode()
    connection.request("GET", "/v1-k3s/token", headers={"Authorization": f"Basic {basic}"})
    status = connection.getresponse().status
    if status not in (401, 405):
        raise Refused(
            f"Found status {status} for GET {url}/v1-k3s/token, wanted 405 or 401, as k3s answers. "
            "Check that k3s listens there, and see its journal."
        )
    return status == 405


def work(module):
    token, credentials = read(Path(module.params["path"]))
    accepted = is_accepted(module.params["server"], module.params["ca"], credentials)
    changed, name = keep(Path(module.params["kept"]), token, module.check_mode)
    module.exit_json(changed=changed, id=name, accepted=accepted)


def main():
    module = AnsibleModule(
        argument_spec={
            "kept": {"type": "path", "default": "/var/lib/k3s-daas/server-tokens"},
            "path": {"type": "path", "default": "/var/lib/rancher/k3s/server/token"},
            "server": {"type": "str", "default": "https://127.0.0.1:6443"},
            "ca": {"type": "path", "default": "/var/lib/rancher/k3s/server/tls/server-ca.crt"},
        },
        supports_check_mode=True,
    )
    try:
        work(module)
    except Refused as error:
        module.fail_json(msg=str(error))
    except (OSError, http.client.HTTPException) as error:
        module.fail_json(msg=f"Can't keep the server token: {error}. See `journalctl -u k3s` and the disk.")


if __name__ == "__main__":
    main()
