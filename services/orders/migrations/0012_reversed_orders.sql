-- One statement and no transaction, as CONCURRENTLY wants it: orders are created meanwhile.
-- migrate:up transaction:false

-- Orders that wait for the operator: counted for a metric.
CREATE INDEX CONCURRENTLY orders_reversed ON orders (merchant_id, id) WHERE reversed_minor > 0;

-- migrate:down transaction:false

DROP INDEX CONCURRENTLY orders_reversed;
