"""The ledger's SQL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

import asyncpg

from kit.database import Connection
from ledger.domain import Balances, Bucket, Direction, Entry, EventType, Outcome, Position, Posting, Refusal, Violation

# Before everything that is booked, as lists go.
NEWEST = Position(datetime(9999, 1, 1, tzinfo=UTC), 0, 0)

# The index has one of the two entries of an event; the other has the same number in another account of the asset. Taken
# are more events than fill a page: those of one time and number, at most one for two accounts, are in no order here, so
# that at its start some are of the page before, and at its end others may come first.
ENTRIES_OF_ORDER = """
    WITH event AS MATERIALIZED (
        SELECT event_id, asset, seq, created_at
        FROM entries
        WHERE hashtextextended(merchant_id || order_id, 0) = hashtextextended($1::text || $2::text, 0)
            AND bucket IN ('merchant', 'suspense')
            AND merchant_id = $1 AND order_id = $2
            AND created_at <= $3 AND (created_at, seq) <= ($3, $4)
        ORDER BY created_at DESC, seq DESC
        LIMIT $6 + (SELECT count(*) FROM accounts WHERE merchant_id = $1)
    )
    SELECT line.id, line.event_id, line.event_type::text, line.merchant_id, line.order_id, line.asset,
        line.bucket::text, line.direction::text, line.amount_minor, line.balance_after, line.tx_hash,
        line.created_at, line.effective_at, line.seq, line.account_id
    FROM event CROSS JOIN LATERAL (
        SELECT account_id FROM accounts WHERE merchant_id = $1 AND asset = event.asset OFFSET 0
    ) AS account CROSS JOIN LATERAL (
        SELECT id, event_id, event_type, merchant_id, order_id, asset, bucket, direction, amount_minor,
            balance_after, tx_hash, created_at, effective_at, seq, account_id
        FROM entries WHERE account_id = account.account_id AND seq = event.seq OFFSET 0
    ) AS line
    WHERE line.event_id = event.event_id AND (line.created_at, line.seq, line.account_id) < ($3, $4, $5)
    ORDER BY line.created_at DESC, line.seq DESC, line.account_id DESC LIMIT $6
"""


async def post(connection: Connection, postings: Sequence[Posting]) -> list[Outcome]:
    """Books what is new, all in one statement; the outcomes are in the order given. See the migration for how."""
    outcomes = await connection.fetchval(
        "SELECT post_events($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        [posting.event_id for posting in postings],
        [posting.payload_hash for posting in postings],
        [posting.event_type for posting in postings],
        [posting.side for posting in postings],
        [posting.merchant_id for posting in postings],
        [posting.order_id for posting in postings],
        [posting.asset for posting in postings],
        [posting.amount_minor for posting in postings],
        [posting.tx_hash for posting in postings],
        [posting.effective_at for posting in postings],
    )
    return [Outcome(outcome) for outcome in outcomes]


async def record(connection: Connection, refusals: Sequence[Refusal]) -> None:
    """Keeps what was refused; what was refused before is counted only."""
    counts = Counter(refusal.digest for refusal in refusals)
    kept = {refusal.digest: refusal for refusal in refusals}
    rows = [kept[digest] for digest in sorted(kept)]  # one order for all writers: no deadlock
    await connection.execute(
        """
        INSERT INTO rejected_events (digest, reason, event_id, detail, payload, seen_count)
        SELECT digest, reason, event_id, detail, payload, seen_count
        FROM unnest($1::bytea[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[])
            AS refusal (digest, reason, event_id, detail, payload, seen_count)
        ON CONFLICT (digest) DO UPDATE SET
            last_seen_at = excluded.last_seen_at,
            seen_count = rejected_events.seen_count + excluded.seen_count
        """,
        [row.digest for row in rows],
        [row.reason for row in rows],
        [row.kept_id for row in rows],
        [row.kept_detail for row in rows],
        [row.kept_payload for row in rows],
        [counts[row.digest] for row in rows],
    )


async def balances_now(connection: Connection, merchant_id: str, asset: str) -> Balances:
    """The balances in one snapshot; a row for each bucket is read, however many entries there are."""
    rows = await connection.fetch(
        """
        SELECT known.bucket::text AS bucket, known.balance, statement_timestamp() AS as_of
        FROM (VALUES (1)) AS one
        LEFT JOIN (
            SELECT accounts.bucket, balances.balance
            FROM accounts JOIN balances USING (account_id)
            WHERE accounts.merchant_id = $1 AND accounts.asset = $2
        ) AS known ON true
        """,
        merchant_id,
        asset,
    )
    return _balances(rows)


async def balances_as_of(connection: Connection, merchant_id: str, asset: str, time: datetime) -> Balances:
    """The balances after the newest entries not later than `time`; a time to come counts as now."""
    rows = await connection.fetch(
        """
        SELECT known.bucket::text AS bucket, known.balance, least($3, statement_timestamp()) AS as_of
        FROM (VALUES (1)) AS one
        LEFT JOIN (
            SELECT accounts.bucket, (
                SELECT entries.balance_after FROM entries
                WHERE entries.account_id = accounts.account_id AND entries.created_at <= $3
                ORDER BY entries.created_at DESC, entries.seq DESC LIMIT 1
            ) AS balance
            FROM accounts
            WHERE accounts.merchant_id = $1 AND accounts.asset = $2
        ) AS known ON true
        """,
        merchant_id,
        asset,
        time,
    )
    return _balances(rows)


def _balances(rows: Sequence[asyncpg.Record]) -> Balances:
    found = {row["bucket"]: row["balance"] or 0 for row in rows}
    merchant, clearing, suspense = (
        found.get(bucket, 0) for bucket in (Bucket.MERCHANT, Bucket.CLEARING, Bucket.SUSPENSE)
    )
    return Balances(merchant, clearing, suspense, rows[0]["as_of"])


async def entries_of_merchant(
    connection: Connection, merchant_id: str, before: Position | None, limit: int
) -> list[Entry]:
    """At most `limit` entries of a merchant older than `before`, newest first."""
    # A merchant has a handful of accounts: the newest of each, merged, so that no index by merchant is needed.
    rows = await connection.fetch(
        """
        SELECT page.id, page.event_id, page.event_type::text, page.merchant_id, page.order_id, page.asset,
            page.bucket::text, page.direction::text, page.amount_minor, page.balance_after, page.tx_hash,
            page.created_at, page.effective_at, page.seq, page.account_id
        FROM accounts CROSS JOIN LATERAL (
            SELECT id, event_id, event_type, merchant_id, order_id, asset, bucket, direction, amount_minor,
                balance_after, tx_hash, created_at, effective_at, seq, account_id
            FROM entries
            WHERE entries.account_id = accounts.account_id
                AND entries.created_at <= $2
                AND (entries.created_at, entries.seq, entries.account_id) < ($2, $3, $4)
            ORDER BY entries.created_at DESC, entries.seq DESC LIMIT $5
        ) AS page
        WHERE accounts.merchant_id = $1
        ORDER BY page.created_at DESC, page.seq DESC, page.account_id DESC LIMIT $5
        """,
        merchant_id,
        *_start(before),
        limit,
    )
    return [_entry(row) for row in rows]


async def entries_of_order(
    connection: Connection, merchant_id: str, order_id: str, before: Position | None, limit: int
) -> list[Entry]:
    """At most `limit` entries of an order older than `before`, newest first."""
    rows = await connection.fetch(ENTRIES_OF_ORDER, merchant_id, order_id, *_start(before), limit)
    return [_entry(row) for row in rows]


def _start(before: Position | None) -> tuple[datetime, int, int]:
    position = before or NEWEST
    return position.created_at, position.seq, position.account_id


def _entry(row: asyncpg.Record) -> Entry:
    return Entry(
        entry_id=row["id"],
        event_id=row["event_id"],
        event_type=EventType(row["event_type"]),
        merchant_id=row["merchant_id"],
        order_id=row["order_id"],
        asset=row["asset"],
        bucket=Bucket(row["bucket"]),
        direction=Direction(row["direction"]),
        amount_minor=row["amount_minor"],
        balance_after=row["balance_after"],
        tx_hash=row["tx_hash"] or "",
        created_at=row["created_at"],
        effective_at=row["effective_at"],
        seq=row["seq"],
        account_id=row["account_id"],
    )


async def unbalanced_assets(connection: Connection) -> list[Violation]:
    """Assets whose balances do not sum to zero in each pair of buckets; reads every account once, no entry."""
    rows = await connection.fetch(
        """
        SELECT accounts.asset FROM accounts JOIN balances USING (account_id)
        GROUP BY accounts.asset, accounts.bucket IN ('merchant', 'clearing') HAVING sum(balances.balance) <> 0
        """
    )
    return [Violation("assets_sum_to_zero", row["asset"]) for row in rows]


async def next_accounts(connection: Connection, after: int, limit: int) -> list[int]:
    """Ids of at most `limit` accounts past `after`, in order: of each pair the first."""
    rows = await connection.fetch(
        """
        SELECT account_id FROM accounts WHERE account_id > $1 AND bucket IN ('merchant', 'suspense')
        ORDER BY account_id LIMIT $2
        """,
        after,
        limit,
    )
    return [row["account_id"] for row in rows]


async def broken_accounts(connection: Connection, first_accounts: Sequence[int], tail: int) -> list[Violation]:
    """What does not hold in these accounts, their counterparts and the newest `tail` entries of each.

    One statement, so that balances and entries are seen in one snapshot.
    """
    rows = await connection.fetch(
        """
        WITH pair AS (
            SELECT asset, main.account_id AS main, contra.account_id AS contra
            FROM unnest($1::bigint[]) AS given (account_id) CROSS JOIN LATERAL (
                SELECT account_id, merchant_id, asset, bucket FROM accounts
                WHERE accounts.account_id = given.account_id OFFSET 0
            ) AS main CROSS JOIN LATERAL (
                SELECT account_id FROM accounts WHERE merchant_id = main.merchant_id AND accounts.asset = main.asset
                    AND bucket = CASE main.bucket
                        WHEN 'merchant' THEN 'clearing'::bucket ELSE 'suspense_clearing'::bucket END OFFSET 0
            ) AS contra
        ), head AS (
            SELECT known.account_id, known.balance, known.version, known.last_at, pair.contra
            FROM pair CROSS JOIN LATERAL unnest(ARRAY[pair.main, pair.contra]) AS side (account_id)
            CROSS JOIN LATERAL (
                SELECT account_id, balance, version, last_at FROM balances WHERE account_id = side.account_id OFFSET 0
            ) AS known
        ), line AS (
            SELECT head.account_id, nullif(head.contra, head.account_id) AS contra, newest.seq, newest.event_id,
                newest.amount_minor, newest.balance_after, newest.created_at,
                CASE newest.direction WHEN 'CREDIT' THEN newest.amount_minor ELSE -newest.amount_minor END AS change,
                lag(newest.seq) OVER account AS earlier_seq,
                lag(newest.balance_after, 1, CASE newest.seq WHEN 1 THEN 0 END) OVER account AS earlier_balance,
                lag(newest.created_at) OVER account AS earlier_at
            FROM head CROSS JOIN LATERAL (
                SELECT entries.seq, entries.event_id, entries.direction, entries.amount_minor, entries.balance_after,
                    entries.created_at
                FROM entries WHERE entries.account_id = head.account_id ORDER BY entries.seq DESC LIMIT $2
            ) AS newest
            WINDOW account AS (PARTITION BY head.account_id ORDER BY newest.seq)
        ), broken AS (
            SELECT 'balances_mirror' AS rule, pair.main AS account_id
            FROM pair
            JOIN head AS main ON main.account_id = pair.main
            JOIN head AS contra ON contra.account_id = pair.contra
            WHERE main.balance <> -contra.balance OR main.version <> contra.version
            UNION ALL
            SELECT 'balance_is_last_entry', head.account_id
            FROM head LEFT JOIN line ON line.account_id = head.account_id AND line.seq = head.version
            WHERE (head.version > 0 AND line.seq IS NULL)
                OR head.balance <> coalesce(line.balance_after, 0)
                OR head.last_at <> coalesce(line.created_at, '-infinity')
                OR EXISTS (SELECT FROM entries WHERE account_id = head.account_id AND seq > head.version)
            UNION ALL
            SELECT 'entries_chain', account_id FROM line
            WHERE seq <> earlier_seq + 1 OR balance_after <> earlier_balance + change OR created_at < earlier_at
            UNION ALL
            SELECT 'events_sum_to_zero', main.account_id
            FROM line AS main LEFT JOIN LATERAL (
                SELECT event_id, amount_minor, direction FROM entries
                WHERE account_id = main.contra AND seq = main.seq OFFSET 0
            ) AS contra ON true
            WHERE main.contra IS NOT NULL AND (contra.event_id IS DISTINCT FROM main.event_id
                OR contra.amount_minor <> main.amount_minor
                OR (contra.direction = 'CREDIT') = (main.change > 0))
        )
        SELECT DISTINCT broken.rule, pair.asset, pair.main AS account_id
        FROM broken JOIN pair ON broken.account_id IN (pair.main, pair.contra)
        """,
        first_accounts,
        tail,
    )
    return [Violation(row["rule"], row["asset"], row["account_id"]) for row in rows]
