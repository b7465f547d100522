"""The configuration is checked whole, and each finding names its key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from k3s_daas_master.__main__ import EXIT_CONFIG, main
from k3s_daas_master.config import ConfigError, load

BUCKET = "https://fleet-snapshots.s3.eu-central-1.amazonaws.com/sealed/one"
KMS_KEY = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
GOOD: dict[str, Any] = {
    "network": "localnet",
    "endpoints": ["http://10.123.1.1:9000"],
    "chain_id": None,
    "package_id": "0x" + "aa" * 32,
    "registry_id": "0x" + "bb" * 32,
    "tee_mode": "simulated",
    "listen": "0.0.0.0:8443",
    "webhook_listen": "127.0.0.1:8444",
    "endpoint": "https://10.123.1.11:8443",
    "api_server": "https://10.123.1.11:6443",
    "kubeconfig": "/etc/k3s-daas/kubernetes/kubeconfig",
    "key_file": "/var/lib/k3s-daas-master/sui.key",
    "state_dir": "/var/lib/k3s-daas-master",
}


def write(path: Path, **changes: Any) -> Path:
    config = {k: v for k, v in {**GOOD, **changes}.items() if v != "REMOVED"}
    file = path / "master.json"
    file.write_text(json.dumps(config))
    return file


def test_a_good_one_loads(tmp_path: Path) -> None:
    config = load(write(tmp_path))
    assert config.deployment.registry_id == GOOD["registry_id"]
    assert config.state_dir == Path("/var/lib/k3s-daas-master")
    assert config.offline_after_s == 300
    assert config.bootstrap_ttl_s == 600


@pytest.mark.parametrize(
    "changes",
    [
        {"snapshot_key_file": "/k"},
        {"snapshot_kms_key": KMS_KEY, "nsm_socket": "/run/nsm.sock"},
        {"snapshot_dir": None, "snapshot_url": BUCKET, "snapshot_key_file": "/k"},
        {"snapshot_dir": None, "snapshot_url": BUCKET, "snapshot_kms_key": KMS_KEY, "tee_mode": "nitro"},
    ],
)
def test_state_is_sealed_with_one_key(tmp_path: Path, changes: dict[str, Any]) -> None:
    config = load(write(tmp_path, **({"snapshot_dir": "/s", "chain_id": "c"} | changes)))
    assert config.seals
    assert (config.snapshot_interval_s, config.snapshot_keep) == (300, 5)


@pytest.mark.parametrize(
    ("changes", "key", "wanted"),
    [
        ({"tee_mode": "REMOVED"}, "tee_mode", "required"),
        ({"network": "REMOVED"}, "network", "required"),
        ({"network": "main"}, "network", "mainnet"),
        ({"endpoints": []}, "endpoints", "at least 1"),
        ({"endpoints": ["10.0.0.1:9000"]}, "endpoints.0", "http(s)://host"),
        ({"endpoints": ["https://user:pw@node:443"]}, "endpoints.0", "without credentials"),
        ({"package_id": "0x1"}, "package_id", "64 lower-case hex digits"),
        ({"registry_id": 7}, "registry_id", "string"),
        ({"tee_mode": "none"}, "tee_mode", "nitro"),
        ({"listen": "8443"}, "listen", "<address>:<port>"),
        ({"listen": "0.0.0.0:99999"}, "listen", "<address>:<port>"),
        ({"webhook_listen": "0.0.0.0:8444"}, "webhook_listen", "loopback"),
        ({"endpoint": "http://10.0.0.1:8443"}, "endpoint", "https://host:port"),
        ({"endpoint": "https://10.0.0.1"}, "endpoint", "https://host:port"),
        ({"api_server": "https://10.0.0.1:6443/path"}, "api_server", "https://host:port"),
        ({"bootstrap_ttl_s": 3600}, "bootstrap_ttl_s", "600"),
        ({"ready_report_s": 59}, "ready_report_s", "60"),
        ({"typo_s": 1}, "typo_s", "not permitted"),
        ({"operator_cap_id": "0x5"}, "operator_cap_id", "64 lower-case hex digits"),
        ({"tenant_grace_s": -1}, "tenant_grace_s", "greater than or equal to 0"),
        ({"tenant_quota": {"pods": 100}}, "tenant_quota.pods", "string"),
        ({"tenant_container": {"defaults": {}}}, "tenant_container.defaults.[key]", "defaultRequest"),
        ({"network": "mainnet", "endpoints": ["https://a:443"]}, "(whole)", "refused on mainnet"),
        ({"network": "testnet"}, "(whole)", "plaintext"),
        ({"tee_mode": "nitro", "nsm_socket": "/run/nsm.sock"}, "(whole)", "found it with nitro on localnet"),
        ({"snapshot_dir": "/s", "chain_id": "c"}, "(whole)", "found /s for snapshots and no key"),
        ({"snapshot_key_file": "/k", "chain_id": "c"}, "(whole)", "or none of them"),
        (
            {"snapshot_dir": "/s", "snapshot_url": BUCKET, "snapshot_key_file": "/k", "chain_id": "c"},
            "(whole)",
            "wanted one place",
        ),
        (
            {"snapshot_dir": "/s", "snapshot_kms_key": KMS_KEY, "tee_mode": "nitro", "chain_id": "c"},
            "(whole)",
            "an enclave has no disk",
        ),
        ({"snapshot_url": BUCKET, "snapshot_key_file": "/k", "chain_id": None}, "(whole)", "wants chain_id"),
        ({"snapshot_url": "http://b.s3.eu-central-1.amazonaws.com/s"}, "snapshot_url", "https://BUCKET.s3"),
        ({"snapshot_url": "https://b.s3.eu-central-1.amazonaws.com.evil.example/s"}, "snapshot_url", "https"),
        ({"snapshot_url": "https://a.b.s3.eu-central-1.amazonaws.com/s"}, "snapshot_url", "without dots"),
        ({"snapshot_url": "https://bucket.s3.eu-central-1.amazonaws.com/"}, "snapshot_url", "FOLDER"),
        ({"snapshot_url": "https://bucket.s3.eu-central-1.amazonaws.com/a/../b"}, "snapshot_url", "FOLDER"),
        ({"snapshot_kms_key": "alias/x"}, "snapshot_kms_key", "arn:aws:kms:REGION"),
        (
            {"snapshot_dir": "/s", "chain_id": "c", "snapshot_kms_key": KMS_KEY},
            "(whole)",
            "wanted tee_mode nitro",
        ),
        (
            {"snapshot_dir": "/s", "chain_id": "c", "snapshot_kms_key": KMS_KEY, "snapshot_key_file": "/k"},
            "(whole)",
            "snapshot_key_file and snapshot_kms_key; wanted",
        ),
        ({"snapshot_dir": "/s", "snapshot_key_file": "/k", "chain_id": None}, "(whole)", "wants chain_id"),
        (
            {"snapshot_dir": "/s", "snapshot_key_file": "/k", "tee_mode": "nitro"},
            "(whole)",
            "opens the state to whoever has the file",
        ),
        ({"snapshot_interval_s": 4}, "snapshot_interval_s", "5"),
        ({"snapshot_keep": 0}, "snapshot_keep", "1"),
        (
            {"network": "testnet", "endpoints": ["https://a:443"], "nsm_socket": "/run/nsm.sock"},
            "(whole)",
            "found it with simulated on testnet",
        ),
    ],
)
def test_bad_ones_say_key_and_wish(tmp_path: Path, changes: dict[str, Any], key: str, wanted: str) -> None:
    file = write(tmp_path, **changes)
    with pytest.raises(ConfigError) as caught:
        load(file)
    text = str(caught.value)
    assert str(file) in text
    assert f"  {key}: " in text
    assert wanted in text


def test_all_findings_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"3 problem\(s\)"):
        load(write(tmp_path, network="x", tee_mode="x", listen="x"))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b'"text"'])
def test_no_json_object(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "master.json"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"master\.json"):
        load(file)


def test_missing_file_and_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--config", str(tmp_path / "none.json")]) == EXIT_CONFIG
    error = capsys.readouterr().err
    assert "none.json" in error
    assert "No such file" in error
    assert "Traceback" not in error


def test_init_key_makes_one_key_and_shows_only_its_address(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "sui.key"
    file = write(tmp_path, key_file=str(key), state_dir=str(tmp_path))
    assert main(["init-key", "--config", str(file)]) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["created"] is True
    assert first["address"].startswith("0x")
    assert key.stat().st_mode & 0o777 == 0o600
    content = key.read_bytes()
    assert main(["init-key", "--config", str(file)]) == 0
    out = capsys.readouterr().out
    assert json.loads(out) == {"address": first["address"], "created": False}
    assert key.read_bytes() == content
    assert content.decode().strip() not in out


def test_init_key_refuses_an_open_key_and_a_missing_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, key_file=str(tmp_path / "sui.key"))
    assert main(["init-key", "--config", str(file)]) == 0
    (tmp_path / "sui.key").chmod(0o644)
    assert main(["init-key", "--config", str(file)]) == 1
    assert "0600" in capsys.readouterr().err
    file = write(tmp_path, key_file=str(tmp_path / "missing" / "sui.key"))
    assert main(["init-key", "--config", str(file)]) == 1
    assert "Wanted a directory" in capsys.readouterr().err
