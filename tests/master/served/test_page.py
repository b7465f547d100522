"""The status page in headless Chromium, over TLS, from the real server."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from k3s_daas.chain import ChainUnreachable
from k3s_daas.registry import WorkerStatus

PAGE = Path(__file__).parents[3] / "roles/master/files/k3s_daas_master/page"
OWNER = "0x" + "0a" * 32
NONE = "\N{EN DASH}"
CELLS = "return [...document.querySelectorAll('#rows tr')].map(r => [...r.children].map(c => c.textContent))"


async def fill(bench: Any, workers: int = 3) -> list[str]:
    """Active workers with nodes, and everything that is looked at read once."""
    tokens = [await bench.join(f"worker-{i}") for i in range(1, workers + 1)]
    for i, token in enumerate(tokens, 1):
        bench.kube.renew(f"worker-{i}")
        bench.clock.advance(0.001)
        usage = {"cpu_percent": 10.0 * i, "memory_percent": 40, "disk_percent": 20 * i}
        assert (await bench.beat(token, f"worker-{i}", resource_usage=usage)).status_code == 200
    await bench.state.vitals.look()
    return tokens


def attest(bench: Any) -> None:
    """A nitro master whose attestation the chain holds."""
    bench.state.config = bench.state.config.model_copy(update={"tee_mode": "nitro"})
    bench.state.index.master = replace(
        bench.state.index.master,
        pcr0=bytes.fromhex("ab" * 48),
        attestation_expires_at_ms=bench.clock.ms + 7_200_000,
    )


async def test_healthy(served: Any, browser: Any) -> None:
    await fill(served.bench)
    attest(served.bench)
    await browser.open(served.url)
    assert await browser.texts("health-word", "health-summary") == [
        "Healthy",
        "3 of 3 workers active, 3 nodes ready",
    ]
    assert await browser.texts("tee-word", "tee-mode", "tee-expires") == ["Attested", "nitro", "in 2 h"]
    assert await browser.texts("nodes-ready", "nodes-total") == ["3", "of 3 joined"]
    assert await browser.texts("cpu", "memory", "disk", "disk-max", "pods") == [
        "20 %",
        "40 %",
        "40 %",
        "60 %",
        "9",
    ]
    assert await browser.texts("stake-total", "gas-price", "gas-balance") == ["3", "750", "1 SUI"]
    assert await browser.texts("network", "workers-count") == ["testnet", "3"]
    shown = ["slashing-mode", "slashing-findings", "slashing-disruptions", "tenants"]
    assert await browser.texts(*shown) == ["observe", "0", "0", "0"]
    assert (await browser.texts("freshness"))[0].startswith(("Up to date", "Updated "))
    assert (await browser.run(CELLS))[0] == [
        "worker-1", "● active", "● ready", "1", "100", "0", "0", "3", "0 s", "90 d", "0x0a0a…0a0a",
    ]  # fmt: skip
    ids = ["simulated", "stand-in", "no-contact", "alerts-section", "empty"]
    assert (
        await browser.run("return arguments[0].map(i => document.getElementById(i).hidden)", ids)
        == [True] * 5
    )
    assert await browser.run("return document.title") == "✓ K3s-DaaS, testnet"
    assert await browser.console() == []
    assert {httpx.URL(url).copy_with(path="/") for url in await browser.asked()} == {
        httpx.URL(served.url + "/")
    }


async def test_it_goes_on_asking_and_shows_what_changed(served: Any, browser: Any) -> None:
    bench = served.bench
    tokens = await fill(bench)
    await browser.open(served.url)
    row = await browser.run("return (window.kept = document.querySelector('#rows tr')).textContent")
    assert "active" in row
    bench.chain.set_status("worker-1", WorkerStatus.OFFLINE)
    await bench.catch_up()
    assert (await bench.review(tokens[0]))["authenticated"] is False
    await browser.until(lambda d: browser.text(d, "health-word") == "Degraded")
    assert (await browser.run(CELLS))[0][1] == "▲ offline"
    assert await browser.run("return document.querySelector('#rows tr') === window.kept"), "rows are kept"
    assert await browser.texts("pool-offline", "seal-checks", "seal-refused") == ["1", "1", "1"]
    assert "1 offline: worker-1" in (await browser.texts("alerts"))[0]


async def test_simulated_and_stand_in_are_loud(served: Any, browser: Any) -> None:
    bench = served.bench
    await fill(bench, 1)
    bench.kube.nodes["worker-1"]["status"]["nodeInfo"] = node_info("v1.34.0+k3s-STAND-IN")
    await bench.state.fleet.reconcile()
    await browser.open(served.url)
    for element_id, word in (("simulated", "SIMULATED"), ("stand-in", "STAND-IN")):
        height, said = await browser.run(
            "const e = document.getElementById(arguments[0]); return [e.offsetHeight, e.innerText]",
            element_id,
        )
        assert height > 20
        assert said.startswith(word)
    assert (await browser.texts("tee-word"))[0] == "SIMULATED", "also where it would say Attested"


async def test_down_says_why(served: Any, browser: Any) -> None:
    bench = served.bench
    await fill(bench, 2)
    bench.chain.balance_mist = 1_000_000
    bench.clock.advance(60)
    bench.chain.checkpoint()
    await bench.catch_up()
    bench.kube.broken = True
    await bench.state.fleet.reconcile()
    bench.chain.endpoints[0].error = ChainUnreachable({"https://fullnode.invalid:443": "refused"})
    await bench.state.vitals.look()
    await browser.open(served.url)
    assert await browser.texts("health-word") == ["Not ready"]
    alerts = (await browser.texts("alerts"))[0]
    assert "list nodes: the API server answered 500" in alerts
    assert "fullnode.invalid:443 doesn't answer" in alerts
    assert "holds 0.001 SUI, wanted at least 0.1 SUI" in alerts
    assert alerts.index("critical: ") < alerts.index("warning: "), "worst first"
    assert "no answer" in (await browser.texts("endpoints"))[0]
    assert "low" in (await browser.texts("gas-balance"))[0]


async def test_nobody_has_staked(served: Any, browser: Any) -> None:
    await browser.open(served.url)
    assert await browser.texts("health-word", "health-summary") == ["Healthy", "No worker has staked yet"]
    assert await browser.texts("empty", "workers-count", "cpu", "requests-p99") != ["", "", "", ""]
    assert await browser.console() == []


async def test_a_thousand_workers_are_found_and_sorted(served: Any, browser: Any) -> None:
    bench = served.bench
    for i in range(1000):
        bench.chain.stake(f"worker-{i}", status=WorkerStatus.OFFLINE if i % 100 == 7 else WorkerStatus.ACTIVE)
    bench.chain.deposit("worker-500", 41 * 10**9)
    await bench.catch_up()
    await browser.open(served.url)
    names = [row[0] for row in await browser.run(CELLS)]
    assert names == [f"worker-{i}" for i in range(1000)], "by number, not worker-1, worker-10, worker-100"
    await browser.run("document.querySelector('[data-key=stake]').click()")
    await browser.run("document.querySelector('[data-key=stake]').click()")
    first = (await browser.run(CELLS))[0]
    assert (first[0], first[3]) == ("worker-500", "42")
    assert await browser.run("return document.querySelector('[aria-sort]').textContent") == "Stake, SUI"
    await enter(browser, "only", "offline", "change")
    assert len(await browser.run(CELLS)) == 10
    assert await browser.texts("workers-count") == ["10 of 1,000"]
    await enter(browser, "find", "nobody", "input")
    assert await browser.texts("empty") == ["No worker fits."]
    assert await browser.console() == []


async def enter(browser: Any, element_id: str, value: str, event: str) -> None:
    script = (
        "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
        "e.dispatchEvent(new Event(arguments[2]))"
    )
    await browser.run(script, element_id, value, event)


async def test_hostile_text_stays_text(served: Any, browser: Any) -> None:
    bench = served.bench
    evil = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    name = "x" + "-" * 61 + "x"
    token = bench.chain.stake(name, owner=evil)
    await bench.catch_up()
    usage = {"cpu_percent": 10**15, "memory_percent": "<b>90</b>", "disk_percent": -5}
    assert (await bench.beat(token, name, resource_usage=usage, running_pods=1_000_000)).status_code == 200
    bench.kube.add_node(name)
    bench.kube.add_node("__proto__")
    bench.kube.nodes[name]["status"]["nodeInfo"] = node_info(evil)
    await bench.state.fleet.reconcile()
    bench.chain.endpoints[0].error = ChainUnreachable({evil: evil})
    await bench.state.vitals.look()
    await browser.open(served.url)
    (row,) = await browser.run(CELLS)
    assert row[0] == name
    assert await browser.run("return document.querySelector('#rows td:last-child').title") == evil
    assert (await browser.texts("nodes-version"))[0] == evil
    assert evil in (await browser.texts("alerts"))[0]
    assert "__proto__" in (await browser.texts("alerts"))[0]
    assert await browser.texts("cpu", "memory", "disk") == ["100 %", NONE, NONE]
    made = "return document.querySelectorAll('main img, main script, main b').length"
    assert await browser.run(made) == 0
    assert "owned" not in await browser.run("return document.title")
    assert await browser.console() == []


async def test_the_browser_itself_refuses_to_make_html_of_text(served: Any, browser: Any) -> None:
    await browser.open(served.url)
    tried = (
        "try { document.body.insertAdjacentHTML('beforeend', '<b>x</b>'); return 'done' }"
        "catch (e) { return e.name }"
    )
    assert await browser.run(tried) == "TypeError"
    inline = (
        "const s = document.createElement('style'); s.textContent = 'body { color: red }';"
        "document.head.append(s);"
        "return getComputedStyle(document.body).color"
    )
    assert await browser.run(inline) != "rgb(255, 0, 0)"


async def test_a_master_that_falls_silent_is_not_shown_as_healthy(served: Any, browser: Any) -> None:
    await fill(served.bench)
    await browser.open(served.url)
    assert await browser.texts("health-word") == ["Healthy"]
    await served.stop()
    # The page's clock is put forward: nobody waits.
    await browser.run(
        "const real = performance.now.bind(performance); performance.now = () => real() + 20_000"
    )
    await browser.until(lambda d: browser.text(d, "health-word") == "Unknown")
    said = await browser.run("return document.getElementById('no-contact').innerText")
    assert said.startswith("NO CONTACT The master gives no usable answer")
    assert "Below is what it said at" in said
    assert len(await browser.run(CELLS)) == 3, "what was known stays, dimmed"
    assert float(await browser.run("return getComputedStyle(document.querySelector('.cards')).opacity")) < 1


async def test_it_fits_a_telephone_and_is_dark_at_night(served: Any, browser: Any) -> None:
    await fill(served.bench)
    day = await background(served, browser, "light")
    night = await background(served, browser, "dark")
    assert sum(night) < 100 < 600 < sum(day)
    small = {"width": 375, "height": 700, "deviceScaleFactor": 1, "mobile": True}
    await browser.do(lambda d: d.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", small))
    await browser.open(served.url)
    width = await browser.run("return document.documentElement.scrollWidth")
    assert width <= 375, "only the table scrolls sideways"


async def background(served: Any, browser: Any, scheme: str) -> list[int]:
    features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    await browser.do(lambda d: d.execute_cdp_cmd("Emulation.setEmulatedMedia", features))
    await browser.open(served.url)
    colour = await browser.run("return getComputedStyle(document.body).backgroundColor")
    return [int(part) for part in re.findall(r"\d+", colour)]


async def test_it_can_be_read_without_seeing_it(served: Any, browser: Any) -> None:
    await fill(served.bench)
    await browser.open(served.url)
    assert await browser.run("return document.documentElement.lang") == "en"
    live = "return document.getElementById('health-word').closest('[aria-live]').getAttribute('aria-live')"
    assert await browser.run(live) == "polite"
    heads = (
        "return [...document.querySelectorAll('thead th')].map(h => h.scope + h.querySelector('button').type)"
    )
    assert await browser.run(heads) == ["colbutton"] * 11
    assert await browser.run("return document.querySelector('#rows th').scope") == "row"
    named = "return [...document.querySelectorAll('meter')].every(m => m.getAttribute('aria-label'))"
    assert await browser.run(named)
    labelled = "return [...document.querySelectorAll('input, select')].every(i => i.labels.length === 1)"
    assert await browser.run(labelled)


def node_info(version: str) -> dict[str, str]:
    keys = (
        "architecture bootID containerRuntimeVersion kernelVersion kubeProxyVersion machineID "
        "operatingSystem osImage systemUUID"
    )
    return dict.fromkeys(keys.split(), "x") | {"kubeletVersion": version}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_its_colours_have_contrast(scheme: str) -> None:
    css = (PAGE / "status.css").read_text()
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#\w{6})", part)) for part in css.split("prefers-color-scheme")[:2]
    )
    colours = light if scheme == "light" else dark
    pairs = [
        (text, ground)
        for text in ("text", "quiet", "accent", "good", "warn", "bad")
        for ground in ("card", "page")
    ]
    pairs += [(name, f"{name}-soft") for name in ("good", "warn", "bad", "loud")]
    low = {pair: ratio for pair in pairs if (ratio := contrast(*(colours[name] for name in pair))) < 4.5}
    assert not low, "WCAG 2.2 AA wants 4.5"


def contrast(one: str, other: str) -> float:
    brightness = sorted((luminance(one), luminance(other)))
    return (brightness[1] + 0.05) / (brightness[0] + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize(
    "path", ["/", "/status/status.css", "/status/status.js", "/status/figures.js", "/status/icon.svg"]
)
async def test_every_file_comes_with_a_strict_policy(bench: Any, path: str) -> None:
    answer = await bench.api.get(path)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_nothing_is_inline_or_from_elsewhere() -> None:
    html = (PAGE / "index.html").read_text()
    assert not re.search(r"<style|style=|\son\w+=|javascript:|<script(?![^>]*src=)", html)
    for path in PAGE.iterdir():
        text = path.read_text()
        assert not re.search(r"(?:src|href|url\(|import|fetch\()\s*=?\s*[\"'(]*(?:https?:)?//", text), path
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text), path
