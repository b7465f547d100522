from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k3s_daas.chain.endpoints import Endpoint, parse_endpoint
from k3s_daas.chain.errors import InvalidEndpoint


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://127.0.0.1:9000", Endpoint("http://127.0.0.1:9000", "127.0.0.1", 9000, False)),
        ("http://10.123.1.1", Endpoint("http://10.123.1.1:9000", "10.123.1.1", 9000, False)),
        ("https://name", Endpoint("https://name:443", "name", 443, True)),
        ("https://Name.Example:8443/", Endpoint("https://name.example:8443", "name.example", 8443, True)),
        ("http://[::1]:9000", Endpoint("http://[::1]:9000", "::1", 9000, False)),
    ],
)
def test_reads_urls(url: str, endpoint: Endpoint) -> None:
    assert parse_endpoint(url, "localnet") == endpoint


@pytest.mark.parametrize(
    "url",
    [
        *("", "name:9000", "127.0.0.1:9000", "grpc://name:9000", "https://", "https://:443", "ftp://name"),
        *("http://name:0", "http://name:70000", "http://name:x", "http://a b", "http://name/rpc"),
        *("http://name?key=1", "http://name#x", "http://under_score", "http://-name", "http://[::1"),
        *("http://nàme", "http://name\n"),
    ],
)
def test_refuses_urls(url: str) -> None:
    with pytest.raises(InvalidEndpoint, match="wanted https://"):
        parse_endpoint(url, "localnet")


@pytest.mark.parametrize("network", ["devnet", "testnet", "mainnet"])
def test_plaintext_is_for_a_localnet_only(network: str) -> None:
    with pytest.raises(InvalidEndpoint, match="plaintext"):
        parse_endpoint("http://127.0.0.1:9000", network)
    assert parse_endpoint("https://127.0.0.1:9000", network).tls


@pytest.mark.parametrize("network", ["", "MAINNET", "local"])
def test_refuses_unknown_networks(network: str) -> None:
    with pytest.raises(InvalidEndpoint, match="wanted one of localnet"):
        parse_endpoint("https://name", network)


@pytest.mark.parametrize(
    "url", ["https://user:hunter2@name", "https://hunter2@name", "https://name/?key=hunter2"]
)
def test_a_refused_url_shows_no_credentials(url: str) -> None:
    with pytest.raises(InvalidEndpoint) as caught:
        parse_endpoint(url, "testnet")
    assert "hunter2" not in str(caught.value)


@given(st.text(max_size=40) | st.from_regex(r"https?://[^/]{1,20}(:[0-9]{0,6})?", fullmatch=True))
def test_any_text_is_refused_or_read_for_good(url: str) -> None:
    with contextlib.suppress(InvalidEndpoint):
        found = parse_endpoint(url, "localnet")
        assert parse_endpoint(found.url, "localnet") == found
