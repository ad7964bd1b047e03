-- In a file of its own: one statement and no transaction, as CONCURRENTLY wants it.
-- migrate:up transaction:false

-- entries_by_order_hash stands in its place. The code from before now lists an order's entries by reading all that there
-- are; nothing else that it does changes.
DROP INDEX CONCURRENTLY entries_by_order;

-- migrate:down transaction:false

CREATE INDEX CONCURRENTLY entries_by_order ON entries (merchant_id, order_id, created_at);
