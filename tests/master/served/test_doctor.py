"""What the doctor hears of a real master's API, over TLS."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from k3s_daas.doctor.facts import MasterSays
from k3s_daas.doctor.probes import Probes


async def ask(served: Any, ca: bytes | None = None, node_id: str | None = "worker-1") -> MasterSays:
    return await asyncio.to_thread(Probes().master, served.url, ca or served.ca.read_bytes(), node_id)


async def test_it_hears_reasons_and_its_own_row(served: Any) -> None:
    bench = served.bench
    await bench.join("worker-1")
    bench.chain.stake("worker-2")
    await bench.catch_up()
    said = await ask(served)
    assert said.reasons == ()
    assert said.row is not None
    assert (said.row["node_id"], said.row["node_ready"]) == ("worker-1", True)
    assert (await ask(served, node_id="nobody")).row is None
    bench.kube.broken = True
    await bench.state.fleet.reconcile()
    said = await ask(served)
    assert said.reasons is not None
    assert "nodes: list nodes: the API server answered 500: InternalError" in said.reasons


async def test_a_certificate_of_another_ca_is_told_apart_from_silence(
    served: Any, make_ca: Any, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    certificate, _ = make_ca(tmp_path / "other")
    said = await ask(served, certificate.read_bytes())
    assert said.untrusted is not None
    assert said.trouble is None
    await served.stop()
    assert (await ask(served)).trouble is not None
