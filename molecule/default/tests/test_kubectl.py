"""An owner's way to kubectl, as the page says; what kubectl then may is the scenario real-k3s' matter."""

from __future__ import annotations

import stat
from pathlib import Path

from k3s_daas import seal
from pages import told
from scenario import play


def test_a_token_is_made_rotated_and_taken_back(tmp_path: Path) -> None:
    folder = tmp_path / "kubectl"
    place = f"--extra-vars=kubectl_dir={folder}"

    checked = play(*told("docs/kubectl.md", "playbooks/kubectl.yml", "--check"), place)
    assert checked.code == 0, checked.output
    assert not folder.exists()

    made = play(*told("docs/kubectl.md", "playbooks/kubectl.yml"), place)
    assert made.code == 0, made.output
    assert f"written: {folder}/kubeconfig" in made.words
    for name in ("seal-token", "kubeconfig"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    first = (folder / "seal-token").read_text()
    assert first.strip() not in (folder / "kubeconfig").read_text()

    rotated = play(*told("docs/kubectl.md", "playbooks/kubectl.yml", "kubectl_state=rotated"), place)
    assert rotated.code == 0, rotated.output
    second = (folder / "seal-token").read_text()
    assert seal.commitment(second.strip()) != seal.commitment(first.strip())
    assert second.strip() not in made.output + rotated.output

    revoked = play(*told("docs/kubectl.md", "playbooks/kubectl.yml", "kubectl_state=revoked"), place)
    assert revoked.code == 0, revoked.output
    assert revoked.changed["localhost"] == 1
