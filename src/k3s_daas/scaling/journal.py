"""What scaling remembers from run to run: the workers it had made, what that cost, whom it let go.

Written before anything is done and after it is done, so a run that was killed is finished by the next one.
Times are ms since 1970 by the chain's clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from k3s_daas.registry import check_node_id

DAY_MS = 86_400_000

Name = Annotated[str, AfterValidator(check_node_id)]


class Made(BaseModel):
    """A worker whose host scaling had made. `joined`: it was seen on-chain since."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at_ms: int
    joined: bool = False


class Spent(BaseModel):
    """What an addition cost, in the unit of the policy's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at_ms: int
    cost: Decimal = Field(ge=0)


class Journal(BaseModel):
    """`leaving` are those it asked to go, `changed_ms` is when it last added or let go; 0 for never."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    made: dict[Name, Made] = {}
    leaving: list[Name] = []
    spent: list[Spent] = []
    changed_ms: int = 0

    @classmethod
    def parse(cls, text: str) -> Journal:
        """The journal in `text`; an empty one for "". Raises ValueError."""
        try:
            return cls.model_validate_json(text) if text.strip() else cls()
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the whole"
            raise ValueError(
                f"Found a journal of scaling in which {where} is wrong: {first['msg']}; wanted one that "
                "scale.yml wrote. It says which hosts were made: put it right by hand, or move it away, and "
                "scaling starts anew with what is on-chain."
            ) from None

    def text(self) -> str:
        """What `parse` reads."""
        return self.model_dump_json(indent=2) + "\n"

    def spent_since(self, since_ms: int) -> Decimal:
        """What was spent later than that."""
        return sum((one.cost for one in self.spent if one.at_ms > since_ms), Decimal(0))

    def without(self, names: Iterable[str]) -> Journal:
        """The same without these workers; what they cost stays spent."""
        gone = set(names)
        return self.model_copy(
            update={
                "made": {name: one for name, one in self.made.items() if name not in gone},
                "leaving": [name for name in self.leaving if name not in gone],
            }
        )
