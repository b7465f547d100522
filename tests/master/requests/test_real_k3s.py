"""The executor against a real API server: what the fake one is taken from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

K3S = os.environ.get("K3S_BINARY")


@pytest.mark.skipif(not K3S, reason="needs the real k3s: set K3S_BINARY")
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for namespaces of its own")
def test_requests_at_a_real_api_server(tmp_path: Path) -> None:
    assert K3S is not None
    story = Path(__file__).with_name("real_k3s.py")
    namespaces = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    done = subprocess.run(
        [*namespaces, sys.executable, str(story), K3S, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=600,
    )
    log = tmp_path / "k3s.log"
    assert done.returncode == 0, done.stderr + (log.read_text()[-3000:] if log.exists() else "")
    out = json.loads(done.stdout.splitlines()[-1])
    label = {"k3s-daas/request": "1"}

    assert (out["rehearsed"], out["rehearsal_made_something"]) == (None, False)
    assert (out["in_doubt_before"], out["in_doubt_after"]) == ("again", "done 200")
    assert out["applied"] == ["succeeded", {"a": "1"}, label]
    assert out["forced"] == out["owner_got"] == {"a": "2"}
    assert out["listed"] == ["web"]
    assert out["other_namespace"] == "Forbidden"

    assert (out["job"], out["job_in_doubt"]) == ("succeeded", "done 200")
    assert out["job_node"] == [{"kubernetes.io/hostname": "worker-1"}, False]
    assert out["job_gone_in_doubt"] == "in_doubt", "it may have run: it isn't made a second time"

    assert (out["deployment"], out["scaled"]) == ("succeeded", {"replicas": 3})
    assert (out["scale_in_doubt_before"], out["scale_in_doubt_after"]) == ("again", "done 200")
    assert out["scale_changed_in_doubt"] in ("in_doubt", "done 200")
    assert out["scale_of_another"] == 409

    assert out["delete_of_another"] == 409
    assert (out["delete_in_doubt_before"], out["delete_in_doubt_after"]) == ("again", "done 200")
    assert (out["deleted"], out["deleted_again"]["refused"]) == ("succeeded", "NotFound")
    assert out["apply_to_one_that_is_gone"] == 409
    assert out["logs"]["error"]["code"] == "NotFound"

    assert out["privileged"]["refused"] == "Forbidden"
    assert "violates PodSecurity" in out["privileged"]["message"]
    assert out["quota"]["refused"] == "Forbidden"
    assert "exceeded quota" in out["quota"]["message"]
