-- One statement and no transaction, as CONCURRENTLY wants it: debts are made meanwhile.
-- migrate:up transaction:false

-- What is due to one service, beside any number of debts to another that is away; and how many claims are queued.
CREATE INDEX CONCURRENTLY outbox_by_subject ON outbox (subject, next_attempt_at) WHERE dead_reason IS NULL;

-- migrate:down transaction:false

DROP INDEX CONCURRENTLY outbox_by_subject;
