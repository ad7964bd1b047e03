-- One statement and no transaction, as CONCURRENTLY wants it: orders are created meanwhile.
-- migrate:up transaction:false

-- Two orders never share an address of their own.
CREATE UNIQUE INDEX CONCURRENTLY orders_own_address ON orders (deposit_address) WHERE deposit_index IS NOT NULL;

-- migrate:down transaction:false

DROP INDEX CONCURRENTLY orders_own_address;
