"""The server's own files: its token, and the drop-ins of its configuration."""

import re
import stat
from typing import Any


def test_the_server_token_is_made_once_and_names_the_ca(cluster: Any) -> None:
    path = cluster.root / "var/lib/rancher/k3s/server/token"
    token = path.read_text()
    assert re.fullmatch(rf"K10{cluster.ca_hash.hex()}::server:[0-9a-f]{{32}}\n", token)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    cluster.server.stop()
    cluster.start_server()
    assert path.read_text() == token


def test_a_drop_in_wins_over_the_configuration_and_the_last_one_over_others(cluster: Any) -> None:
    folder = cluster.root / "etc/rancher/k3s/config.yaml.d"
    folder.mkdir()
    (folder / "10.yaml").write_text("write-kubeconfig-mode: '0640'\n")
    (folder / "20.yaml").write_text(
        "write-kubeconfig-mode: '0600'\nwrite-kubeconfig: " + f"{cluster.root}/other.yaml\n"
    )
    (folder / "30.txt").write_text("write-kubeconfig-mode: '0666'\n")
    cluster.server.stop()
    cluster.start_server()
    assert stat.S_IMODE((cluster.root / "other.yaml").stat().st_mode) == 0o600
