"""`k3s-daas request`: submit something to be run on the fleet, ask for its status, show its result."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import yaml
from rich import box
from rich.console import Console
from rich.table import Table

from k3s_daas import tokenfile
from k3s_daas.chain.errors import ChainError
from k3s_daas.chain.keys import Key
from k3s_daas.chainconfig import ChainConfig, InvalidConfig, add_chain_arguments, chain_of
from k3s_daas.registry import Registry
from k3s_daas.requests.client import OVER, RequestsApi, checked_result
from k3s_daas.requests.errors import RequestError
from k3s_daas.requests.policy import Policy
from k3s_daas.requests.schema import MAX_BODY_BYTES, NotAllowed, encode, parse
from k3s_daas.requests.submit import Submission, plan, send
from k3s_daas.tenancy import tenant_namespace
from k3s_daas.tokenfile import UnusableToken
from k3s_daas.units import InvalidAmount, parse_sui

OK, NOT_SUCCEEDED, CHAIN_UNREADABLE, MASTER, CONFIG = 0, 1, 10, 11, 78
_WAIT_S = 120.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    actions = parser.add_subparsers(dest="action", required=True)
    submit = actions.add_parser(
        "submit", help="submit a request on-chain, post its body, wait, show the result"
    )
    _common(submit)
    submit.add_argument("--key-file", type=Path, required=True, help="the owner's wallet key, mode 0600")
    submit.add_argument(
        "--deposit", default="0.001", help="what the worker gets, in SUI (default: %(default)s)"
    )
    submit.add_argument("--priority", type=int, default=5, help="0 to 10 (default: %(default)s)")
    submit.add_argument("--candidate", action="append", help="node id to choose from; may be repeated")
    submit.add_argument("--nonce", help="any text, to submit the same request another time")
    submit.add_argument("--dry-run", action="store_true", help="check and show what it costs; send nothing")
    submit.add_argument("--wait", type=float, default=_WAIT_S, help="seconds to wait (default: %(default)g)")
    methods = submit.add_subparsers(dest="method", required=True)
    apply = methods.add_parser("apply", help="server-side apply of one object")
    apply.add_argument("file", help="YAML or JSON file; - for standard input")
    apply.add_argument("--resource", help="such as configmaps; by the object's kind when not given")
    for name, text in (("get", "show one object"), ("delete", "delete one object")):
        command = methods.add_parser(name, help=text)
        command.add_argument("resource", help="such as configmaps")
        command.add_argument("name")
    listing = methods.add_parser("list", help="show the objects of a kind")
    listing.add_argument("resource")
    listing.add_argument("--selector", "-l", dest="label_selector", help="label selector")
    scale = methods.add_parser("scale", help="set a number of replicas")
    scale.add_argument("resource", help="deployments or statefulsets")
    scale.add_argument("name")
    scale.add_argument("--replicas", type=int, required=True)
    log = methods.add_parser("logs", help="show a pod's log")
    log.add_argument("name")
    log.add_argument("--container", "-c")
    log.add_argument("--tail", type=int, dest="tail_lines")
    status = actions.add_parser("status", help="one request, or all of one's own")
    _common(status)
    status.add_argument("request_id", type=int, nargs="?")
    result = actions.add_parser("result", help="the result as JSON, held against the hash on-chain")
    _common(result)
    result.add_argument("request_id", type=int)


def _common(parser: argparse.ArgumentParser) -> None:
    add_chain_arguments(parser)
    parser.add_argument(
        "--token-file",
        type=Path,
        default=tokenfile.DEFAULT,
        help="the owner's seal token (scope owner), mode 0600 (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> int:
    """0 when it succeeded, 1 when the request didn't, 10 without the chain, 11 without the master, 78 for a
    mistake in the command."""
    try:
        config = chain_of(options)
        token = tokenfile.read(options.token_file.expanduser())
        action = {"submit": _submit, "status": _status, "result": _result}[options.action]
        return asyncio.run(action(options, config, token))
    except (InvalidConfig, InvalidAmount, NotAllowed, UnusableToken) as error:
        code, text = CONFIG, str(error)
    except ChainError as error:
        code, text = CHAIN_UNREADABLE, str(error)
    except RequestError as error:
        code, text = MASTER, str(error)
    print(f"k3s-daas request {options.action}: {text}", file=sys.stderr)
    return code


def body_of(options: argparse.Namespace) -> bytes:
    """The request that the options describe. Raises NotAllowed."""
    fields: dict[str, Any] = {
        key: getattr(options, key, None)
        for key in ("name", "resource", "label_selector", "replicas", "container", "tail_lines", "nonce")
    }
    if options.method == "logs":
        fields["resource"] = "pods"
    if options.method == "apply":
        payload = _load(options.file)
        metadata = payload.get("metadata")
        fields["payload"] = payload
        fields["name"] = metadata.get("name") if isinstance(metadata, dict) else None
        fields["resource"] = options.resource or f"{str(payload.get('kind')).lower()}s"
    return encode(method=options.method, **fields)


def _load(file: str) -> dict[str, Any]:
    try:
        with sys.stdin.buffer if file == "-" else Path(file).open("rb") as source:
            raw = source.read(MAX_BODY_BYTES + 1)
        found = yaml.safe_load(raw) if len(raw) <= MAX_BODY_BYTES else None
    except (OSError, yaml.YAMLError, RecursionError, ValueError) as error:
        raise NotAllowed(f"{file}: {str(error).splitlines()[0]:.200}", "one object in YAML or JSON") from None
    if not isinstance(found, dict):
        raise NotAllowed(f"{file} without one object of at most {MAX_BODY_BYTES} bytes", "one object")
    return found


async def _submit(options: argparse.Namespace, config: ChainConfig, token: str) -> int:
    from k3s_daas.chain import SuiClient

    key = Key.load(options.key_file)
    raw, deposit = body_of(options), parse_sui(options.deposit)
    Policy().check(parse(raw), tenant_namespace(key.address))
    connecting = SuiClient.connect(list(config.endpoints), config.network, key, config.chain_id)
    async with await connecting as chain:
        registry = Registry(chain, config.deployment)
        submission = Submission(raw, options.priority, deposit, options.candidate)
        planned = await plan(registry, submission)
        for line in planned.preview["summary"]:
            print(line, file=sys.stderr)
        if options.dry_run:
            return OK
        # Before anything is paid: the token is read and there is a master to hand the body to.
        async with await RequestsApi.connect(registry, token) as api:
            await api.greet()
            request_id = await send(registry, planned)
            print(f"Request {request_id} is on-chain; its body goes to the master.", file=sys.stderr)
            await api.post(request_id, raw)
            answer = await api.wait(request_id, options.wait)
        return await _show(registry, answer)


async def _status(options: argparse.Namespace, config: ChainConfig, token: str) -> int:
    async with await _chain(config) as chain:
        registry = Registry(chain, config.deployment)
        async with await RequestsApi.connect(registry, token) as api:
            if options.request_id is None:
                _table(await api.listed())
                return OK
            answer = await api.get(options.request_id)
    answer.pop("result", None)
    print(json.dumps(answer, indent=2))
    return OK


async def _result(options: argparse.Namespace, config: ChainConfig, token: str) -> int:
    async with await _chain(config) as chain:
        registry = Registry(chain, config.deployment)
        async with await RequestsApi.connect(registry, token) as api:
            answer = await api.get(options.request_id)
        return await _show(registry, answer)


async def _chain(config: ChainConfig) -> Any:
    from k3s_daas.chain import SuiClient

    return await SuiClient.connect(list(config.endpoints), config.network, chain_id=config.chain_id)


async def _show(registry: Registry, answer: dict[str, Any]) -> int:
    """The checked result on stdout; what there is to say about it on stderr."""
    result = await checked_result(registry, answer)
    status, error = answer.get("status"), answer.get("error")
    if result is None:
        why = error.get("message", "") if isinstance(error, dict) else ""
        more = "" if status in OVER else "It isn't over yet: ask again with `k3s-daas request result`."
        print(f"Request {answer.get('request_id')}: {status}. {why}{more}", file=sys.stderr)
        return NOT_SUCCEEDED
    print(json.dumps(result, indent=2, ensure_ascii=False))
    print(
        f"Request {answer['request_id']}: {status}; the result's hash is the one on-chain.", file=sys.stderr
    )
    return OK if result.get("outcome") == "succeeded" else NOT_SUCCEEDED


def _table(rows: list[dict[str, Any]]) -> None:
    table = Table(box=box.SIMPLE, pad_edge=False)
    for heading in ("ID", "STATUS", "WORKER", "METHOD", "OBJECT", "ERROR"):
        table.add_column(heading)
    for row in rows:
        error = row.get("error")
        what = "/".join(str(row[key]) for key in ("resource", "name") if row.get(key))
        code = error.get("code", "") if isinstance(error, dict) else ""
        shown = (row.get("request_id"), row.get("status"), row.get("node_id"), row.get("method"), what, code)
        table.add_row(*("" if one is None else str(one) for one in shown))
    Console(width=None if sys.stdout.isatty() else 100).print(table)
