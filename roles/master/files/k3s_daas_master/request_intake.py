"""What owners hand in: the body of a request that they submitted on-chain, and questions about their own."""

from __future__ import annotations

from collections.abc import Callable

from k3s_daas.logs import get_logger
from k3s_daas.requests.policy import Policy
from k3s_daas.requests.schema import NotAllowed, parse, payload_hash
from k3s_daas.tenancy import tenant_namespace
from k3s_daas_master.clock import Clock
from k3s_daas_master.errors import ApiError
from k3s_daas_master.freshness import ChainView
from k3s_daas_master.index import TokenIndex
from k3s_daas_master.request_rows import FINAL, RequestState, Row
from k3s_daas_master.request_store import RequestStore
from k3s_daas_master.requests import CLAIM_MARGIN_MS

_log = get_logger("k3s_daas_master.request_intake")

_LISTED = 100


class RequestIntake:
    """The requests of their owners. `on_body` is called when one can go on."""

    def __init__(
        self,
        *,
        index: TokenIndex,
        view: ChainView,
        rows: RequestStore,
        policy: Policy,
        clock: Clock,
        on_body: Callable[[], None],
    ) -> None:
        self._index = index
        self._view = view
        self._rows = rows
        self._policy = policy
        self._clock = clock
        self._on_body = on_body

    def of_owner(self, owner: str, request_id: int) -> Row:
        """The owner's own request. Raises ApiError, the same for one of another and for none."""
        row = self._rows.get(request_id)
        if row is None or row.requester != owner:
            raise ApiError(
                "request_unknown",
                "You have no request of this number here.",
                f"request {request_id}",
                "a request that this token's owner submitted to this registry",
                "Right after submitting, try again in a few seconds. Results are kept for a limited time.",
            )
        return row

    def listed(self, owner: str) -> list[Row]:
        """The owner's newest requests."""
        return self._rows.of_owner(owner, _LISTED)

    def accept(self, owner: str, request_id: int, raw: bytes) -> Row:
        """Take the body of the owner's request; again with the same body changes nothing. Raises ApiError."""
        row = self.of_owner(owner, request_id)
        if row.payload_hash != payload_hash(raw):
            raise ApiError(
                "payload_mismatch",
                "This isn't the body that the request was submitted for.",
                f"{len(raw)} bytes with SHA-256 {payload_hash(raw).hex()}",
                f"the bytes with SHA-256 {row.payload_hash.hex()}, as on-chain",
                "Post exactly the bytes that were hashed.",
            )
        if row.state not in (RequestState.SCHEDULED, RequestState.REFUSED):
            if row.state in FINAL or row.state is RequestState.ABANDONED:
                raise ApiError(
                    "request_over",
                    "The request is over.",
                    f"status {row.state}",
                    "a request that waits for its body",
                    "Look at its status and result; submit a new one to run it again.",
                )
            return row
        left = row.deadline_ms - self._view.now_ms()
        if left < CLAIM_MARGIN_MS:
            raise ApiError(
                "request_expired",
                "There is too little time left to run the request.",
                f"{max(0, left) // 1000} s before its deadline",
                f"at least {CLAIM_MARGIN_MS // 1000} s",
                "Its deposit comes back after the deadline; submit it anew and post the body at once.",
            )
        self._check_in_service(owner)
        try:
            envelope = parse(raw)
            self._policy.check(envelope, tenant_namespace(owner))
        except NotAllowed as error:
            raise ApiError(
                "request_refused", "This may not run.", error.found, error.wanted, error.fix
            ) from None
        said = (envelope.method, envelope.resource, envelope.name)
        self._rows.body(request_id, raw, said, self._clock.now_ms())
        self._on_body()
        _log.info(
            "request body taken",
            request_id=request_id,
            owner=owner,
            method=envelope.method,
            resource=envelope.resource,
        )
        return self.of_owner(owner, request_id)

    def _check_in_service(self, owner: str) -> None:
        if not self._index.owner_is_live(owner):
            raise ApiError(
                "owner_not_eligible",
                "Only owners with a worker in service have requests run.",
                "no worker of yours that is neither slashed nor leaving",
                "one worker in service",
                "Stake for a worker first.",
            )
