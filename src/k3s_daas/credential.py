"""`k3s-daas credential`: kubectl's exec credential plugin. Prints the owner's seal token for the API server.

Kept light: kubectl runs it with every command. Protocol: client.authentication.k8s.io/v1, ExecCredential
(https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins).
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import sys
import time
from pathlib import Path

from k3s_daas import tokenfile

API_VERSION = "client.authentication.k8s.io/v1"
UNUSABLE = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "--token-file",
        type=Path,
        default=tokenfile.DEFAULT,
        help="the owner's seal token, mode 0600 (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> int:
    """Print an ExecCredential; 1 and a sentence on stderr when there is no usable token."""
    path = options.token_file.expanduser()
    try:
        _check_version(os.environ.get("KUBERNETES_EXEC_INFO"))
        token = tokenfile.read(path)
        note = tokenfile.read_note(path, token)
        if note is not None and note.expires_at_ms <= time.time_ns() // 1_000_000:
            raise tokenfile.UnusableToken(
                f"Found a seal token in {path} that expired on {_time(note.expires_at_ms)}, wanted a live "
                "one. Rotate it: playbooks/kubectl.yml -e kubectl_state=rotated."
            )
    except tokenfile.UnusableToken as error:
        print(f"k3s-daas credential: {error}", file=sys.stderr)
        return UNUSABLE
    status = {"token": token}
    if note is not None:
        status["expirationTimestamp"] = _time(note.expires_at_ms)
    print(json.dumps({"apiVersion": API_VERSION, "kind": "ExecCredential", "status": status}))
    return 0


def _check_version(info: str | None) -> None:
    """Refuse another version of the protocol than ours; kubectl names the one it speaks."""
    try:
        found = json.loads(info).get("apiVersion", "nothing") if info else API_VERSION
    except (ValueError, AttributeError):
        found = "no JSON"
    if found != API_VERSION:
        raise tokenfile.UnusableToken(
            f"Found {str(found)[:60]} in KUBERNETES_EXEC_INFO, wanted {API_VERSION}. Use kubectl 1.22 or "
            "later, and the kubeconfig that `k3s-daas kubeconfig` writes."
        )


def _time(ms: int) -> str:
    return dt.datetime.fromtimestamp(ms / 1000, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
