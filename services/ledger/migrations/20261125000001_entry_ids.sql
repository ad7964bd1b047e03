-- migrate:up

-- The same arguments and the same books as before, so it may come before or after the code, and while it runs. New are
-- the ids of entries: still version 7, rising with time, but those of one call are counted on from one random number.
--
-- The only way into the books. Books the events that are new, each as two entries that cancel out, and says of every
-- posting, in order, whether it was POSTED, ALREADY_POSTED or a CONFLICT. Postings are given as arrays of one length. The
-- type of an event gives its pair of buckets; `directions` is the side of the pair's first, the second takes the other.
--
-- It runs with its owner's rights, so that the service's role needs none to write. Locks are taken in one order by
-- every writer (events by id, accounts by name, balances by id), so that writers queue and never deadlock. Its
-- statements have a snapshot each (READ COMMITTED): what was waited for is seen.
CREATE OR REPLACE FUNCTION post_events(
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
    merchant_pair CONSTANT public.bucket[] := '{merchant, clearing}';
    suspense_pair CONSTANT public.bucket[] := '{suspense, suspense_clearing}';
    suspense_events CONSTANT text[] := '{SUSPENSE_RECEIVED, SUSPENSE_RELEASED}';
    claimed bigint[]; -- positions of the postings that this call books
    locked bigint[];  -- accounts
    newest timestamptz;
    booked_at timestamptz;
    id_prefix text; -- of the ids of this call's entries
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
        WITH pair AS (
            SELECT DISTINCT merchant_id, asset, event_type = ANY (suspense_events) AS held
            FROM unnest(merchant_ids, assets, event_types) WITH ORDINALITY
                AS posting (merchant_id, asset, event_type, position)
            JOIN unnest(claimed) AS c (position) USING (position)
        ), account AS (
            SELECT merchant_id, asset, unnest(CASE WHEN held THEN suspense_pair ELSE merchant_pair END) AS bucket
            FROM pair
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

        WITH pair AS (
            SELECT DISTINCT merchant_id, asset, event_type = ANY (suspense_events) AS held
            FROM unnest(merchant_ids, assets, event_types) WITH ORDINALITY
                AS posting (merchant_id, asset, event_type, position)
            JOIN unnest(claimed) AS c (position) USING (position)
        ), account AS (
            SELECT merchant_id, asset, unnest(CASE WHEN held THEN suspense_pair ELSE merchant_pair END) AS bucket
            FROM pair
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

        -- One random number for a call and not for each entry, which is a file opened, read and closed where PostgreSQL is
        -- built without OpenSSL (its CPU for an event in a batch of 1000: 0.85). 30 bits of it are left to tell calls of
        -- the same quarter of a microsecond apart; should they not, the primary key refuses one, and it comes again.
        id_prefix := left(replace(uuidv7()::text, '-', ''), 24);

        WITH posting AS (
            SELECT *
            FROM unnest(
                event_ids, event_types, directions, merchant_ids, order_ids, assets, amounts, tx_hashes, effective_ats
            ) WITH ORDINALITY AS p (
                event_id, event_type, side, merchant_id, order_id, asset, amount_minor, tx_hash, effective_at, position
            )
            JOIN unnest(claimed) AS c (position) USING (position)
        ), line AS (
            SELECT
                posting.*, account_id, bucket,
                CASE WHEN (side = 'CREDIT') = (bucket IN ('merchant', 'suspense')) THEN 'CREDIT' ELSE 'DEBIT' END AS direction,
                CASE
                    WHEN (side = 'CREDIT') = (bucket IN ('merchant', 'suspense')) THEN amount_minor ELSE -amount_minor
                END AS change
            FROM posting
            JOIN public.accounts USING (merchant_id, asset)
            WHERE account_id = ANY (locked)
                AND (bucket = ANY (suspense_pair)) = (event_type = ANY (suspense_events))
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
            id, account_id, seq, amount_minor, created_at, effective_at, event_id, event_type, bucket, direction,
            balance_after, merchant_id, order_id, asset, tx_hash
        )
        SELECT
            (id_prefix || lpad(to_hex(2 * position + (direction = 'DEBIT')::int), 8, '0'))::uuid,
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

-- migrate:down

-- The function stays: to the code from before an id is an id.
