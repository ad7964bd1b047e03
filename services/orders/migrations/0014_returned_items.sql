-- One statement and no transaction, as CONCURRENTLY wants it: orders are created meanwhile.
-- migrate:up transaction:false

-- A transaction that sent an item back proves no refund.
CREATE INDEX CONCURRENTLY suspense_returned ON suspense (return_tx_hash) WHERE return_tx_hash IS NOT NULL;

-- migrate:down transaction:false

DROP INDEX CONCURRENTLY suspense_returned;
