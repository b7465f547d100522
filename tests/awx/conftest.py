"""playbooks/awx.yml against the double of a controller: three runs that all tests share.

awx/ is taken as it is committed. What an operator fills in is given: keys, repository, image.
"""

from __future__ import annotations

import fcntl
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode leaves test folders off the path

from awx_kit import COLLECTIONS, Run, Story, keys_of, play, settings, tell


@pytest.fixture(scope="session")
def collection() -> Path:
    """Where awx.awx is. Skipped where it isn't: nothing but this playbook needs it."""
    path = COLLECTIONS / "ansible_collections/awx/awx"
    if not path.is_dir():
        pytest.skip("the collection awx.awx isn't there: run `make .state/aws`")
    return path


@pytest.fixture(scope="session")
def story(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Told once, whichever of pytest-xdist's processes asks first."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    folder = folder / "awx"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        told = folder / "story"
        if not told.exists():
            told.write_bytes(pickle.dumps(tell(folder)))
        found: Story = pickle.loads(told.read_bytes())  # noqa: S301
    return found


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., Run]:
    """`refused(environment, **settings)`: a run that is to end before anything is sent, in check mode."""
    keys_of(tmp_path)

    def run(environment: dict[str, str], **changed: Any) -> Run:
        return play(tmp_path, environment, settings(tmp_path) | changed, "--check")

    return run
