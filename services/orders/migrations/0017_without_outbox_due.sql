-- In a file of its own: one statement and no transaction, as CONCURRENTLY wants it.
-- migrate:up transaction:false

-- outbox_by_subject stands in its place. Beside it PostgreSQL would take this one, and go through all that is due to others.
DROP INDEX CONCURRENTLY outbox_due;

-- migrate:down transaction:false

CREATE INDEX CONCURRENTLY outbox_due ON outbox (next_attempt_at) WHERE dead_reason IS NULL;
