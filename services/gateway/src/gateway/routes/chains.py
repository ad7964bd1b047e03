"""How the chains are served."""

from __future__ import annotations

from gateway.downstream import Services
from gateway.exchange import Answer, Call, json_answer
from gateway.operation import Access, Operation, Success
from gateway.schemas.answers import ChainList
from gateway.schemas.given import Nothing


async def list_chains(services: Services, _call: Call, _given: Nothing) -> Answer:
    """The chains, as seen at most a second ago."""
    return json_answer(200, ChainList(await services.chains.get()))


_CHAIN = {
    "chain": "BSC",
    "chain_id": 56,
    "status": "ok",
    "head_number": 41_000_012,
    "finalized_number": 41_000_009,
}

OPERATIONS = (
    Operation(
        method="GET",
        path="/chains",
        name="listChains",
        summary="Whether payments on each chain are seen now",
        handler=list_chains,
        access=Access.KEY,
        success=(Success(200, "By name.", ChainList, {"data": [_CHAIN]}),),
    ),
)
