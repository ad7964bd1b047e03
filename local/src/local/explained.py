"""For tests of statements: what PostgreSQL had to read for them. Pages and rows are counted, not seconds."""

import json
from collections.abc import Iterator
from typing import Any

import asyncpg


class Explained:
    """Stands in for a connection, and has what it is asked explained: it answers with no rows."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self.pages = 0
        """8 kB each, from memory or disk."""
        self.in_vain = 0
        """Rows that were looked at and did not fit."""
        self.read_through: set[str] = set()
        """Tables of which a scan left out more than a thousand rows."""

    async def fetch(self, query: str, *given: object) -> list[asyncpg.Record]:
        plan = await self._connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}", *given)
        root = json.loads(plan)[0]["Plan"]
        self.pages += root["Shared Hit Blocks"] + root["Shared Read Blocks"]
        for node in _nodes(root):
            left_out = node.get("Rows Removed by Filter", 0)
            self.in_vain += (left_out + node.get("Rows Removed by Join Filter", 0)) * node["Actual Loops"]
            if node["Node Type"] == "Seq Scan" and left_out > 1000:
                self.read_through.add(node["Relation Name"])
        return []


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", []):
        yield from _nodes(part)
