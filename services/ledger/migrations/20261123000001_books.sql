-- migrate:up

CREATE TYPE bucket AS ENUM ('merchant', 'clearing');
CREATE TYPE direction AS ENUM ('CREDIT', 'DEBIT');
CREATE TYPE event_type AS ENUM ('ORDER_PAID', 'ORDER_REFUNDED');

-- A merchant has two accounts per asset, so that its books balance by themselves and no account is shared by merchants.
CREATE TABLE accounts (
    account_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    merchant_id text NOT NULL,
    asset text NOT NULL,
    bucket bucket NOT NULL,
    UNIQUE (merchant_id, asset, bucket)
);

-- The hot rows: nothing but the key is indexed and half of each page is free, so that an update stays on its page (HOT).
-- No CHECK on the sign: a refund may arrive before its payment.
CREATE TABLE balances (
    account_id bigint PRIMARY KEY REFERENCES accounts,
    balance numeric NOT NULL DEFAULT 0, -- Σ CREDIT − Σ DEBIT, minor units; may pass 64 bits
    version bigint NOT NULL DEFAULT 0, -- seq of the newest entry
    last_at timestamptz NOT NULL DEFAULT '-infinity' -- created_at of the newest entry
) WITH (fillfactor = 50);

-- What was booked, for ever. Never partitioned by time: an event books once, whenever it comes back.
CREATE TABLE events (
    event_id uuid PRIMARY KEY,
    payload_hash bytea NOT NULL, -- SHA-256 of the content, see domain.py
    merchant_id text NOT NULL,
    order_id text NOT NULL
);

-- The books. No foreign keys: the one function that writes here has just locked the accounts and claimed the events.
CREATE TABLE entries (
    account_id bigint NOT NULL,
    seq bigint NOT NULL, -- 1, 2, 3 … in each account
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    created_at timestamptz NOT NULL, -- when it was booked; rises with seq in each account
    effective_at timestamptz NOT NULL, -- when it happened in the world
    id uuid PRIMARY KEY DEFAULT uuidv7(),
    event_id uuid NOT NULL,
    event_type event_type NOT NULL,
    bucket bucket NOT NULL,
    direction direction NOT NULL,
    balance_after numeric NOT NULL,
    merchant_id text NOT NULL,
    order_id text NOT NULL,
    asset text NOT NULL,
    tx_hash text, -- null for a refund without one
    UNIQUE (account_id, seq)
);

-- A balance as of a time, and a merchant's entries newest first.
CREATE INDEX entries_by_time ON entries (account_id, created_at, seq) INCLUDE (balance_after);
CREATE INDEX entries_by_order ON entries (merchant_id, order_id, created_at);

-- What was refused, for people to look at. One row for each different thing, however often it comes.
CREATE TABLE rejected_events (
    digest bytea PRIMARY KEY, -- SHA-256 of reason and payload
    reason text NOT NULL CHECK (reason IN ('CONFLICT', 'INVALID', 'UNPARSEABLE')),
    event_id text NOT NULL, -- as received; empty where there was none to be read
    detail text NOT NULL,
    payload text NOT NULL, -- JSON of the posting, base64 of a message that is none; cut off at 64 KiB
    first_seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_count bigint NOT NULL
);

CREATE INDEX rejected_events_by_time ON rejected_events (last_seen_at);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on %: the books are append-only', TG_OP, TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END
$$;

-- For each statement and not on INSERT: posting pays nothing for them.
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON entries
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON events
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The only way into the books. Books the events that are new, each as two entries that cancel out, and says of every
-- posting, in order, whether it was POSTED, ALREADY_POSTED or a CONFLICT. Postings are given as arrays of one length;
-- `directions` is the side of the merchant bucket, the clearing bucket takes the other.
--
-- It runs with its owner's rights, so that the service's role needs none to write. Locks are taken in one order by
-- every writer (events by id, accounts by name, balances by id), so that writers queue and never deadlock. Its
-- statements have a snapshot each (READ COMMITTED): what was waited for is seen.
CREATE FUNCTION post_events(
    event_ids uuid [],
    payload_hashes bytea [],
    event_types text [],
    directions text [],
    merchant_ids text [],
    order_ids text [],
    assets text [],
    amounts bigint [],
    tx_hashes text [],
    effective_ats timestamptz []
) RETURNS text []
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
-- One plan, made once (planning costs a single posting a third of its time). The planner takes every array for ten
-- elements and every new table for a small one, and a plan for those is quadratic for a thousand; so: hashes for the
-- arrays, indexes (by sub-selects) for the tables.
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_nestloop = off
AS $$
#variable_conflict use_column
DECLARE
    claimed bigint[]; -- positions of the postings that this call books
    locked bigint[];  -- accounts
    newest timestamptz;
    booked_at timestamptz;
BEGIN
    -- The first of equal ids stands for the event; who inserts the row books it.
    WITH candidate AS (
        SELECT DISTINCT ON (event_id) event_id, payload_hash, merchant_id, order_id, position
        FROM unnest(event_ids, payload_hashes, merchant_ids, order_ids)
            WITH ORDINALITY AS posting (event_id, payload_hash, merchant_id, order_id, position)
        ORDER BY event_id, position
    ), claim AS (
        INSERT INTO public.events (event_id, payload_hash, merchant_id, order_id)
        SELECT event_id, payload_hash, merchant_id, order_id FROM candidate ORDER BY event_id
        ON CONFLICT (event_id) DO NOTHING
        RETURNING event_id
    )
    SELECT coalesce(array_agg(position), '{}') INTO claimed FROM candidate JOIN claim USING (event_id);

    IF cardinality(claimed) > 0 THEN
        -- Inserting on conflict only what is missing keeps the id sequence and the log free of attempts.
        WITH account AS (
            SELECT DISTINCT merchant_id, asset, bucket
            FROM unnest(merchant_ids, assets) WITH ORDINALITY AS posting (merchant_id, asset, position)
            JOIN unnest(claimed) AS c (position) USING (position)
            CROSS JOIN unnest(enum_range(NULL::public.bucket)) AS b (bucket)
        ), opened AS (
            INSERT INTO public.accounts (merchant_id, asset, bucket)
            SELECT merchant_id, asset, bucket FROM account
            WHERE (
                SELECT account_id FROM public.accounts AS known
                WHERE (known.merchant_id, known.asset, known.bucket)
                    = (account.merchant_id, account.asset, account.bucket)
            ) IS NULL
            ORDER BY merchant_id, asset, bucket
            ON CONFLICT (merchant_id, asset, bucket) DO NOTHING
            RETURNING account_id
        )
        INSERT INTO public.balances (account_id) SELECT account_id FROM opened;

        WITH account AS (
            SELECT DISTINCT merchant_id, asset, bucket
            FROM unnest(merchant_ids, assets) WITH ORDINALITY AS posting (merchant_id, asset, position)
            JOIN unnest(claimed) AS c (position) USING (position)
            CROSS JOIN unnest(enum_range(NULL::public.bucket)) AS b (bucket)
        ), hold AS (
            SELECT account_id, last_at FROM public.balances
            WHERE account_id = ANY (ARRAY(
                SELECT (
                    SELECT account_id FROM public.accounts AS known
                    WHERE (known.merchant_id, known.asset, known.bucket)
                        = (account.merchant_id, account.asset, account.bucket)
                )
                FROM account
            ))
            ORDER BY account_id
            FOR NO KEY UPDATE
        )
        SELECT array_agg(account_id), max(last_at) INTO locked, newest FROM hold;

        -- Taken under the locks, and always later than what is booked, even when the clock steps back: so a balance as
        -- of a time is that of the newest entry before.
        booked_at := greatest(clock_timestamp(), newest + interval '1 microsecond');

        WITH posting AS (
            SELECT *
            FROM unnest(
                event_ids, event_types, directions, merchant_ids, order_ids, assets, amounts, tx_hashes, effective_ats
            ) WITH ORDINALITY AS p (
                event_id, event_type, merchant_side, merchant_id, order_id, asset, amount_minor, tx_hash,
                effective_at, position
            )
            JOIN unnest(claimed) AS c (position) USING (position)
        ), line AS (
            SELECT
                posting.*, account_id, bucket,
                CASE WHEN (merchant_side = 'CREDIT') = (bucket = 'merchant') THEN 'CREDIT' ELSE 'DEBIT' END AS direction,
                CASE
                    WHEN (merchant_side = 'CREDIT') = (bucket = 'merchant') THEN amount_minor ELSE -amount_minor
                END AS change
            FROM posting
            JOIN public.accounts USING (merchant_id, asset)
            WHERE account_id = ANY (locked)
        ), numbered AS (
            SELECT line.*, row_number() OVER earlier AS nth, sum(change) OVER earlier AS running
            FROM line
            WINDOW earlier AS (PARTITION BY account_id ORDER BY position ROWS UNBOUNDED PRECEDING)
        ), net AS (
            SELECT account_id, count(*) AS lines, sum(change) AS change FROM line GROUP BY account_id
        ), moved AS (
            UPDATE public.balances SET
                balance = balances.balance + net.change,
                version = balances.version + net.lines,
                last_at = booked_at
            FROM net WHERE balances.account_id = net.account_id AND balances.account_id = ANY (locked)
            RETURNING balances.account_id, old.balance, old.version
        )
        INSERT INTO public.entries (
            account_id, seq, amount_minor, created_at, effective_at, event_id, event_type, bucket, direction,
            balance_after, merchant_id, order_id, asset, tx_hash
        )
        SELECT
            account_id, moved.version + nth, amount_minor, booked_at, effective_at, event_id,
            event_type::public.event_type, bucket, direction::public.direction,
            moved.balance + running, merchant_id, order_id, asset, nullif(tx_hash, '')
        FROM numbered JOIN moved USING (account_id)
        ORDER BY position, bucket;
    END IF;

    IF cardinality(claimed) = cardinality(event_ids) THEN
        RETURN array_fill('POSTED'::text, ARRAY[cardinality(event_ids)]);
    END IF;
    RETURN (
        SELECT array_agg(
            CASE
                WHEN c.position IS NOT NULL THEN 'POSTED'
                WHEN (SELECT known.payload_hash FROM public.events AS known WHERE known.event_id = posting.event_id)
                    = posting.payload_hash THEN 'ALREADY_POSTED'
                ELSE 'CONFLICT'
            END
            ORDER BY position
        )
        FROM unnest(event_ids, payload_hashes) WITH ORDINALITY AS posting (event_id, payload_hash, position)
        LEFT JOIN unnest(claimed) AS c (position) USING (position)
    );
END
$$;

REVOKE ALL ON FUNCTION post_events FROM public;
GRANT EXECUTE ON FUNCTION post_events TO ledger;
GRANT SELECT ON accounts, balances, events, entries TO ledger;
GRANT SELECT, INSERT, UPDATE ON rejected_events TO ledger;

-- migrate:down

DROP FUNCTION post_events;
DROP TABLE rejected_events, entries, events, balances, accounts;
DROP FUNCTION refuse_change;
DROP TYPE event_type, direction, bucket;
