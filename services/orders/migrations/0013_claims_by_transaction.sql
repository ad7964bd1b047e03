-- One statement and no transaction, as CONCURRENTLY wants it: orders are created meanwhile.
-- migrate:up transaction:false

-- A transfer that somebody has claimed is left to the claim.
CREATE INDEX CONCURRENTLY claims_open_by_transaction ON claims (tx_hash) WHERE state = 'OPEN';

-- migrate:down transaction:false

DROP INDEX CONCURRENTLY claims_open_by_transaction;
