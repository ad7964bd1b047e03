-- In a file of its own: one statement and no transaction, as CONCURRENTLY wants it.
-- migrate:up transaction:false

-- outbox_by_subject stands in its place.
DROP INDEX CONCURRENTLY outbox_claims;

-- migrate:down transaction:false

CREATE INDEX CONCURRENTLY outbox_claims ON outbox (subject) WHERE subject = 'ospay.orders.v1.payment_claimed';
