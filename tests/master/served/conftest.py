"""The master's API served for real: its own server, TLS and limits on a loopback socket; and a browser."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import pytest
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

from k3s_daas_master.certificate import issue
from k3s_daas_master.service import Server, api_server, bind

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1440,1000",
)
T = TypeVar("T")


@dataclass
class Served:
    """A running API server; `bench` is the master behind it."""

    bench: Any
    url: str
    port: int
    ca: Path
    server: Server
    task: asyncio.Task[None]
    context: ssl.SSLContext

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, verify=self.context, trust_env=False, timeout=30)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A bare TLS connection."""
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=self.context)

    async def stop(self) -> None:
        self.server.should_exit = True
        await asyncio.wait_for(self.task, 10)


@pytest.fixture
async def served(bench: Any, ca_files: tuple[Path, Path], tmp_path: Path) -> AsyncIterator[Served]:
    """`bench` behind its real server."""
    issued = issue(*ca_files, tmp_path, ["127.0.0.1"])
    files = {"tls_cert": issued.cert, "tls_key": issued.cert.with_name("server.key")}
    bench.state.config = bench.state.config.model_copy(update=files)
    with contextlib.closing(bind("127.0.0.1:0")) as sock:
        server = api_server(bench.state)
        task = asyncio.create_task(server.serve([sock]))
        await asyncio.wait_for(server.up.wait(), 10)
        port = sock.getsockname()[1]
        context = ssl.create_default_context(cafile=str(ca_files[0]))
        running = Served(bench, f"https://127.0.0.1:{port}", port, ca_files[0], server, task, context)
        yield running
        await running.stop()


class Browser:
    """Headless Chromium on one page. Its calls block, so they run beside the event loop that serves it."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    async def do(self, function: Callable[[webdriver.Chrome], T]) -> T:
        return await asyncio.to_thread(function, self.driver)

    async def open(self, url: str) -> None:
        """Load the page anew and wait until it shows an answer."""
        # What the last test left: its log entries, its emulation, its page.
        await self.do(lambda d: d.get("about:blank"))
        await self.do(lambda d: (d.get_log("browser"), d.get_log("performance")))
        await self.do(lambda d: d.get(url))
        await self.until(lambda d: self.text(d, "health-word") != "Loading")

    async def until(self, condition: Callable[[webdriver.Chrome], T]) -> T:
        return await self.do(lambda d: WebDriverWait(d, 30, 0.05).until(condition))

    async def texts(self, *ids: str) -> list[str]:
        """What these elements show."""
        return await self.do(lambda d: [self.text(d, i) for i in ids])

    @staticmethod
    def text(driver: webdriver.Chrome, element_id: str) -> str:
        found: str = driver.execute_script(
            "return document.getElementById(arguments[0])?.textContent ?? ''", element_id
        )
        return found

    async def run(self, script: str, *arguments: Any) -> Any:
        return await self.do(lambda d: d.execute_script(script, *arguments))

    async def console(self) -> list[str]:
        """Warnings and errors of the console since the page was loaded."""
        return [str(entry["message"]) for entry in await self.do(lambda d: d.get_log("browser"))]

    async def asked(self) -> list[str]:
        """Every address that was asked since the page was loaded."""
        log = await self.do(lambda d: d.get_log("performance"))
        urls = [
            message["params"]["request"]["url"]
            for entry in log
            if (message := json.loads(entry["message"])["message"])["method"] == "Network.requestWillBeSent"
        ]
        assert urls, "the log of requests is empty"
        return [url for url in urls if urlsplit(url).scheme not in ("about", "data")]


@pytest.fixture(scope="session")
def _driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    for program in ("/usr/bin/chromium", "/usr/bin/chromedriver"):
        if not Path(program).exists():
            pytest.fail(
                f"Found no {program}; wanted Debian's chromium, chromium-driver. `make test` installs them."
            )
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    # The certificate is of a CA made for the test; that clients check it is tested with theirs.
    options.accept_insecure_certs = True
    for flag in (*_FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
    driver.set_page_load_timeout(30)
    yield driver
    driver.quit()


@pytest.fixture
async def browser(_driver: webdriver.Chrome) -> AsyncIterator[Browser]:
    yield Browser(_driver)
    await asyncio.to_thread(_driver.execute_cdp_cmd, "Emulation.setEmulatedMedia", {"features": []})
    await asyncio.to_thread(_driver.execute_cdp_cmd, "Emulation.clearDeviceMetricsOverride", {})
