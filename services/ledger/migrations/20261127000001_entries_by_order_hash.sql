-- One statement and no transaction, as CONCURRENTLY wants it: events are booked meanwhile.
-- migrate:up transaction:false

-- Finds what was booked for an order. Each event is another place in it, so it is kept small: of the two entries of an event
-- it has one, and of the two names a hash. What is looked up has to match these expressions, see ENTRIES_OF_ORDER.
CREATE INDEX CONCURRENTLY entries_by_order_hash ON entries (hashtextextended(merchant_id || order_id, 0), created_at)
    WHERE bucket IN ('merchant', 'suspense');

-- migrate:down transaction:false

DROP INDEX CONCURRENTLY entries_by_order_hash;
