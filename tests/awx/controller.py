"""A double of AWX's API, as small as playbooks/awx.yml needs it: it keeps what it is told and gives it back.

It runs no job and knows no user but the token's. What it refuses is what AWX 24.6.1 refuses (its serializers
in awx/api/serializers.py, its views for surveys and nodes), and besides that every field that AWX would pass
over: a field's name that is wrong would otherwise be seen by nobody. Secrets are shown as AWX shows them.
"""

from __future__ import annotations

import copy
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

API = "/api/v2/"
SHOWN = "$encrypted$"
Object = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """What an endpoint's objects are. `refers` names the endpoint that a field's id is of."""

    type: str
    takes: tuple[str, ...]
    wants: tuple[str, ...] = ("name",)
    refers: dict[str, str] = field(default_factory=dict)
    # Lists of other objects below an object, and the endpoint that they are of.
    lists: dict[str, str] = field(default_factory=dict)
    survey: bool = False
    # What makes an object another one than that of the same name.
    scope: str | None = "organization"
    # Passed over in what is sent, as AWX does: it takes these from elsewhere.
    ignores: tuple[str, ...] = ()


_ASKED = ("inventory", "scm_branch", "job_type", "limit")
KINDS = {
    "organizations": Kind("organization", ("description", "max_hosts", "default_environment"), scope=None),
    "credential_types": Kind(
        "credential_type",
        ("description", "kind", "inputs", "injectors", "managed"),
        ("name", "kind"),
        scope=None,
    ),
    "credentials": Kind(
        "credential",
        ("description", "organization", "credential_type", "inputs"),
        ("name", "credential_type"),
        {"organization": "organizations", "credential_type": "credential_types"},
    ),
    "execution_environments": Kind(
        "execution_environment",
        ("description", "organization", "image", "credential", "pull"),
        ("name", "image"),
        {"organization": "organizations", "credential": "credentials"},
        scope=None,
    ),
    "projects": Kind(
        "project",
        (
            *("description", "organization", "scm_type", "scm_url", "scm_branch", "credential", "scm_clean"),
            *("scm_update_on_launch", "allow_override", "default_environment"),
        ),
        ("name", "organization", "scm_url"),
        {
            "organization": "organizations",
            "credential": "credentials",
            "default_environment": "execution_environments",
        },
    ),
    "inventories": Kind(
        "inventory",
        ("description", "organization", "kind", "host_filter", "variables"),
        ("name", "organization"),
        {"organization": "organizations"},
    ),
    "inventory_sources": Kind(
        "inventory_source",
        (
            *(
                "description",
                "inventory",
                "source",
                "source_path",
                "source_vars",
                "source_project",
                "credential",
            ),
            *("execution_environment", "overwrite", "overwrite_vars", "update_on_launch"),
        ),
        ("name", "inventory", "source", "source_path", "source_project"),
        {
            "inventory": "inventories",
            "source_project": "projects",
            "credential": "credentials",
            "execution_environment": "execution_environments",
        },
        scope="inventory",
    ),
    "job_templates": Kind(
        "job_template",
        (
            *(
                "description",
                "job_type",
                "inventory",
                "project",
                "playbook",
                "execution_environment",
                "diff_mode",
            ),
            *("extra_vars", "survey_enabled", "ask_job_type_on_launch", "ask_scm_branch_on_launch"),
        ),
        ("name", "inventory", "project", "playbook"),
        {
            "inventory": "inventories",
            "project": "projects",
            "execution_environment": "execution_environments",
        },
        {"credentials": "credentials"},
        survey=True,
        ignores=("organization",),  # the project's
    ),
    "workflow_job_templates": Kind(
        "workflow_job_template",
        ("description", "organization", "survey_enabled", "ask_scm_branch_on_launch"),
        ("name", "organization"),
        {"organization": "organizations"},
        survey=True,
    ),
    "workflow_job_template_nodes": Kind(
        "workflow_job_template_node",
        ("workflow_job_template", "unified_job_template", "identifier", "extra_data", *_ASKED),
        ("workflow_job_template", "identifier"),
        {"workflow_job_template": "workflow_job_templates", "unified_job_template": "unified_job_templates"},
        dict.fromkeys(("success_nodes", "failure_nodes", "always_nodes"), "workflow_job_template_nodes"),
        scope="workflow_job_template",
        ignores=("type",),  # read-only
    ),
    "workflow_approval_templates": Kind("workflow_approval_template", ("description", "timeout"), scope=None),
    "schedules": Kind(
        "schedule",
        ("description", "unified_job_template", "rrule", "extra_data", "enabled"),
        ("name", "unified_job_template", "rrule"),
        {"unified_job_template": "unified_job_templates"},
        scope="unified_job_template",
    ),
}
#: What may be run; their ids are numbers of one sequence, as in AWX.
RUNS = ("job_templates", "workflow_job_templates", "projects", "inventory_sources")
BUILT_IN = [{
    "name": "Machine", "kind": "ssh", "managed": True, "injectors": {},
    "inputs": {"fields": [
        {"id": "username"}, {"id": "password", "secret": True}, {"id": "ssh_key_data", "secret": True},
    ]},
}]  # fmt: skip


class Refused(Exception):
    """What AWX answers with a status of 400 or more."""

    def __init__(self, status: int, why: Any) -> None:
        super().__init__(str(why))
        self.status, self.why = status, why


class Controller:
    """`objects` by endpoint and id, as they were sent, secrets and all; `calls` in their order."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.objects: dict[str, dict[int, Object]] = {endpoint: {} for endpoint in KINDS}
        self.calls: list[tuple[str, str, Any]] = []
        self._newest = 0
        for built_in in BUILT_IN:
            self._keep("credential_types", dict(built_in))

    # -- for tests -----------------------------------------------------------------------------------------

    def named(self, endpoint: str) -> dict[str, Object]:
        """The endpoint's objects by their names."""
        return {one["name"]: one for one in self.objects[endpoint].values()}

    def nodes(self, workflow: str) -> dict[str, Object]:
        """A workflow's nodes by identifier."""
        number = self.named("workflow_job_templates")[workflow]["id"]
        nodes = self.objects["workflow_job_template_nodes"].values()
        return {one["identifier"]: one for one in nodes if one["workflow_job_template"] == number}

    def wrote(self) -> list[tuple[str, str, Any]]:
        return [call for call in self.calls if call[0] != "GET"]

    # -- the API -------------------------------------------------------------------------------------------

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        self.calls.append((method, path, copy.deepcopy(body)))
        words = path.removeprefix(API).strip("/").split("/")
        if not path.startswith(API) or words[0] not in (*KINDS, "unified_job_templates") or len(words) > 3:
            raise Refused(404, {"detail": "Not found."})
        endpoint, rest = words[0], words[1:]
        if not rest:
            return self._all(endpoint, method, query, body)
        found = self.objects.get(endpoint, {}).get(int(rest[0]))
        if found is None:
            raise Refused(404, {"detail": "Not found."})
        if len(rest) == 1:
            if method == "PATCH":
                self._want(endpoint, found | body, body)
                found.update({key: body[key] for key in body if key not in KINDS[endpoint].ignores})
            elif method != "GET":
                raise Refused(405, {"detail": f'Method "{method}" not allowed.'})
            return 200, self._show(endpoint, found)
        return self._below(endpoint, found, rest[1], method, body)

    def _all(self, endpoint: str, method: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        if method == "GET":
            of = RUNS if endpoint == "unified_job_templates" else (endpoint,)
            # Of unknown types AWX lists none, of unknown fields it complains.
            wanted = query.get("type", "").split(",") if "type" in query else None
            found = [
                self._show(one, kept)
                for one in of
                for kept in self.objects[one].values()
                if (wanted is None or KINDS[one].type in wanted)
                and all(
                    str(self._field(one, kept, key)) == value for key, value in query.items() if key != "type"
                )
            ]
            return 200, {"count": len(found), "next": None, "previous": None, "results": found}
        if method != "POST" or endpoint in ("unified_job_templates", "workflow_approval_templates"):
            raise Refused(405, {"detail": f'Method "{method}" not allowed.'})
        return 201, self._show(endpoint, self._make(endpoint, body))

    def _below(self, endpoint: str, found: Object, name: str, method: str, body: Any) -> tuple[int, Any]:
        kind = KINDS[endpoint]
        if name == "survey_spec" and kind.survey:
            if method == "POST":
                want_survey(body)
                found["survey_spec"] = body
                return 200, None
            return 200, found.get("survey_spec", {})
        if (
            name == "create_approval_template"
            and endpoint == "workflow_job_template_nodes"
            and method == "POST"
        ):
            made = self._make("workflow_approval_templates", body)
            found["unified_job_template"] = made["id"]
            return 201, self._show("workflow_approval_templates", made)
        if name not in kind.lists:
            raise Refused(404, {"detail": "Not found."})
        listed: list[int] = found.setdefault(name, [])
        if method == "GET":
            shown = [self._show(kind.lists[name], self.objects[kind.lists[name]][one]) for one in listed]
            return 200, {"count": len(shown), "next": None, "previous": None, "results": shown}
        number = body.pop("id", None)
        self._want_reference(kind.lists[name], name, number)
        if body.pop("disassociate", False):
            listed.remove(number)
        else:
            listed.append(number)
        if body:
            raise Refused(400, {"detail": f"unknown fields {sorted(body)}"})
        return 204, None

    # -- what it keeps -------------------------------------------------------------------------------------

    def _make(self, endpoint: str, body: Object) -> Object:
        kind = KINDS[endpoint]
        self._want(endpoint, body, body)
        known = "identifier" if endpoint == "workflow_job_template_nodes" else "name"
        keys = [known, *([kind.scope] if kind.scope else [])]
        sent = {key: body[key] for key in body if key not in kind.ignores}
        if endpoint != "workflow_approval_templates" and any(
            all(self._field(endpoint, one, key) == self._field(endpoint, sent, key) for key in keys)
            for one in self.objects[endpoint].values()
        ):
            raise Refused(400, {"__all__": [f"{kind.type} with this {' and '.join(keys)} already exists."]})
        return self._keep(endpoint, sent)

    def _keep(self, endpoint: str, sent: Object) -> Object:
        self._newest += 1
        self.objects[endpoint][self._newest] = made = sent | {"id": self._newest}
        return made

    def _want(self, endpoint: str, whole: Object, sent: Object) -> None:
        kind = KINDS[endpoint]
        unknown = set(sent) - {"name", *kind.takes, *kind.ignores}
        if unknown or (endpoint == "workflow_job_template_nodes" and "name" in sent):
            raise Refused(400, {"detail": f"{kind.type} has no field {sorted(unknown)}"})
        missing = [name for name in kind.wants if whole.get(name) in (None, "")]
        if missing:
            raise Refused(400, {name: ["This field is required."] for name in missing})
        for name, of in kind.refers.items():
            if sent.get(name) is not None:
                self._want_reference(of, name, sent[name])
        if endpoint == "credentials":
            fields = self.objects["credential_types"][whole["credential_type"]]["inputs"]["fields"]
            if unknown := set(whole.get("inputs", {})) - {one["id"] for one in fields}:
                raise Refused(400, {"inputs": [f"{sorted(unknown)} are not allowed"]})
        if endpoint in ("workflow_job_template_nodes", "schedules") and whole.get("unified_job_template"):
            self._want_asked(whole, complete=endpoint == "schedules")
        if endpoint == "schedules":
            want_rrule(whole["rrule"])

    def _want_reference(self, of: str, name: str, number: Any) -> None:
        if not any(number in self.objects[one] for one in (RUNS if of == "unified_job_templates" else (of,))):
            approval = (
                number in self.objects["workflow_approval_templates"] and name == "unified_job_template"
            )
            if not approval:
                raise Refused(400, {name: [f'Invalid pk "{number}" - object does not exist.']})

    def _want_asked(self, config: Object, *, complete: bool) -> None:
        """A template takes only what it asks for; a schedule gives all that it needs."""
        template: Object = next(
            (self.objects[one][number] for one in RUNS for number in self.objects[one]
             if number == config["unified_job_template"]), {},
        )  # fmt: skip
        for name in _ASKED:
            if config.get(name) is not None and not template.get(f"ask_{name}_on_launch"):
                raise Refused(400, {name: ["Field is not configured to prompt on launch."]})
        questions = {one["variable"]: one for one in template.get("survey_spec", {}).get("spec", [])}
        answers = config.get("extra_data") or {}
        if extra := set(answers) - set(questions):
            raise Refused(400, {"extra_vars": [f"Variables {sorted(extra)} are not allowed on launch."]})
        for name, question in questions.items():
            if name in answers and not isinstance(
                answers[name], int if question["type"] == "integer" else str
            ):
                raise Refused(400, {"variables_needed_to_start": [f"Value of {name} has the wrong type."]})
            if complete and question["required"] and name not in answers and not question.get("default"):
                raise Refused(400, {"variables_needed_to_start": [f"'{name}' value missing"]})

    def _field(self, endpoint: str, kept: Object, name: str) -> Any:
        if name == "organization" and endpoint == "job_templates":
            return self.objects["projects"][kept["project"]]["organization"]
        if name == "organization" and endpoint == "inventory_sources":
            return self.objects["inventories"][kept["inventory"]]["organization"]
        if name not in ("id", "name", *KINDS[endpoint].takes):
            raise Refused(400, {"detail": f"{KINDS[endpoint].type} has no field named '{name}'"})
        return kept.get(name)

    def _show(self, endpoint: str, kept: Object) -> Object:
        kind = KINDS[endpoint]
        url = f"{API}{endpoint}/{kept['id']}/"
        related = {name: f"{url}{name}/" for name in kind.lists}
        if kind.survey:
            related["survey_spec"] = f"{url}survey_spec/"
        if kept.get("unified_job_template") in self.objects["workflow_approval_templates"]:
            related["unified_job_template"] = (
                f"{API}workflow_approval_templates/{kept['unified_job_template']}/"
            )
        defaults = dict.fromkeys(kind.takes)
        shown = defaults | {key: kept[key] for key in kept if key not in (*kind.lists, "survey_spec")}
        if endpoint == "job_templates":
            shown["organization"] = self._field(endpoint, kept, "organization")
        if endpoint == "credentials":
            fields = self.objects["credential_types"][kept["credential_type"]]["inputs"]["fields"]
            secret = {one["id"] for one in fields if one.get("secret")}
            shown["inputs"] = {
                key: SHOWN if key in secret else value for key, value in kept["inputs"].items()
            }
        if endpoint == "projects":
            shown["scm_revision"] = ""  # it never updates one
        return shown | {"type": kind.type, "url": url, "related": related, "summary_fields": {}}


def want_survey(survey: Any) -> None:
    """As views of AWX check one before they keep it."""
    types = {"text": str, "textarea": str, "integer": int, "multiplechoice": str}
    if {"name", "description", "spec"} - set(survey) or not survey["spec"]:
        raise Refused(400, {"error": "Field is missing from survey spec."})
    for question in survey["spec"]:
        if {"type", "question_name", "variable", "required"} - set(question):
            raise Refused(400, {"error": f"missing from survey question {question}"})
        if not isinstance(question["required"], bool) or question["type"] not in types:
            raise Refused(400, {"error": f"wrong type in survey question {question}"})
        if not isinstance(question.get("default", types[question["type"]]()), types[question["type"]]):
            raise Refused(400, {"error": f"Default value in survey question {question}"})
        if question["type"] == "multiplechoice" and (
            not all(isinstance(one, str) for one in question["choices"])
            or question.get("default", question["choices"][0]) not in question["choices"]
        ):
            raise Refused(400, {"error": f"choices of survey question {question}"})
    variables = [question["variable"] for question in survey["spec"]]
    if len(set(variables)) != len(variables):
        raise Refused(400, {"error": f"variable duplicated in {variables}"})


def want_rrule(rrule: str) -> None:
    """AWX wants one beginning, in UTC or with a zone, and one rule with an interval."""
    form = r"DTSTART(;TZID=[\w/]+:\d{8}T\d{6}|:\d{8}T\d{6}Z) RRULE:(?=.*FREQ=)(?=.*INTERVAL=)[A-Z0-9=;,+-]+"
    if not re.fullmatch(form, rrule):
        raise Refused(400, {"rrule": [f"rrule parsing failed: {rrule}"]})


class _Handler(BaseHTTPRequestHandler):
    controller: Controller
    protocol_version = "HTTP/1.1"

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        parts = urlsplit(self.path)
        try:
            if self.headers.get("Authorization") != f"Bearer {self.controller.token}":
                raise Refused(401, {"detail": "Authentication credentials were not provided."})
            status, answer = self.controller.answer(
                self.command, parts.path, dict(parse_qsl(parts.query)), body
            )
        except Refused as refused:
            status, answer = refused.status, refused.why
        content = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-API-Product-Name", "AWX")
        self.send_header("X-API-Product-Version", "24.6.1")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PATCH = do_DELETE = _handle

    def log_message(self, *_: Any) -> None:
        pass


class Served:
    """`with Served(controller) as url`: on loopback, with a thread of its own."""

    def __init__(self, controller: Controller) -> None:
        handler = type("Handler", (_Handler,), {"controller": controller})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
