"""What orders refuses to start with."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from orders.settings import Settings


@pytest.mark.parametrize(("seconds", "refused"), [("0", True), ("0.5", True), ("1", False)])
def test_an_order_has_time_to_be_paid(seconds: str, refused: bool) -> None:
    """With none, each order without a time of its own would have ended when it was made."""
    with pytest.raises(ValidationError) as caught:  # all else is missing
        Settings(order_ttl=seconds)  # type: ignore[call-arg,arg-type]
    assert (("order_ttl",) in {error["loc"] for error in caught.value.errors()}) is refused
