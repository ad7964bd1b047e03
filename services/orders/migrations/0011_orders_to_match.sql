-- One statement and no transaction, as CONCURRENTLY wants it: orders are created meanwhile.
-- migrate:up transaction:false

-- Finds the orders on a shared wallet that a transfer of exactly this amount may be meant for.
CREATE INDEX CONCURRENTLY orders_to_match ON orders (deposit_address, amount_minor, expires_at)
    WHERE deposit_index IS NULL AND state IN ('PENDING', 'CONFIRMING', 'EXPIRED');

-- migrate:down transaction:false

DROP INDEX CONCURRENTLY orders_to_match;
