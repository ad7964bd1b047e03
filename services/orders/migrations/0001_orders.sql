-- migrate:up

CREATE TABLE merchants (
    id         text PRIMARY KEY,
    name       text NOT NULL,
    wallet     text NOT NULL CHECK (wallet ~ '^0x[0-9a-fA-F]{40}$'),
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE api_keys (
    id          text PRIMARY KEY,
    merchant_id text NOT NULL REFERENCES merchants,
    -- HMAC-SHA256 of the whole key under a pepper that is not in this database: the key cannot be had from here.
    key_hash    bytea NOT NULL CHECK (length(key_hash) = 32),
    created_at  timestamptz NOT NULL DEFAULT now(),
    revoked_at  timestamptz
);
CREATE INDEX api_keys_by_merchant ON api_keys (merchant_id);

CREATE TABLE settlement_batches (
    id          uuid PRIMARY KEY DEFAULT uuidv7(),
    merchant_id text NOT NULL,
    asset       text NOT NULL,
    order_count bigint NOT NULL CHECK (order_count > 0),
    total_minor numeric(40, 0) NOT NULL CHECK (total_minor > 0),
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX settlement_batches_by_merchant ON settlement_batches (merchant_id, id);

-- The id comes first in the key: a claim without a merchant is looked up by the id alone.
-- No foreign key to merchants: the insert takes the wallet from there, and merchants are never deleted.
CREATE TABLE orders (
    id                  text NOT NULL,
    merchant_id         text NOT NULL,
    asset               text NOT NULL,
    chain               text NOT NULL,
    amount_minor        bigint NOT NULL CHECK (amount_minor > 0),
    customer_wallet     text,
    deposit_address     text NOT NULL,
    metadata            text,
    request_hash        bytea NOT NULL,
    -- Height of the chain when the order was made; null when the chain could not be asked.
    created_block       bigint,
    state               text NOT NULL DEFAULT 'PENDING'
                        CHECK (state IN ('PENDING', 'CONFIRMING', 'PAID', 'SETTLED', 'REFUNDED', 'EXPIRED')),
    received_minor      bigint NOT NULL DEFAULT 0 CHECK (received_minor >= 0),
    refunded_minor      bigint NOT NULL DEFAULT 0 CHECK (refunded_minor >= 0),
    late_minor          bigint NOT NULL DEFAULT 0 CHECK (late_minor >= 0),
    tx_hash             text,
    paid_at             timestamptz,
    created_at          timestamptz NOT NULL DEFAULT now(),
    expires_at          timestamptz NOT NULL,
    settled_at          timestamptz,
    settlement_batch_id uuid,
    PRIMARY KEY (id, merchant_id),
    CHECK (refunded_minor <= received_minor),
    CHECK ((state IN ('PAID', 'SETTLED', 'REFUNDED')) = (received_minor > 0)),
    CHECK ((state IN ('PAID', 'SETTLED', 'REFUNDED')) = (paid_at IS NOT NULL)),
    CHECK ((state = 'SETTLED') = (settled_at IS NOT NULL)),
    CHECK ((state = 'REFUNDED') = (received_minor > 0 AND refunded_minor = received_minor)),
    CHECK (created_at < expires_at)
);
-- One index for both lists: of one state, and of all (the states merged).
CREATE INDEX orders_by_merchant ON orders (merchant_id, state, created_at, id);
CREATE INDEX orders_to_expire ON orders (expires_at) WHERE state IN ('PENDING', 'CONFIRMING');
CREATE INDEX orders_to_settle ON orders (paid_at) WHERE state = 'PAID';
CREATE INDEX orders_unsettled ON orders (merchant_id, asset) WHERE state = 'PAID';

CREATE TABLE claims (
    id            uuid PRIMARY KEY DEFAULT uuidv7(),
    order_id      text NOT NULL,
    merchant_id   text NOT NULL,
    tx_hash       text NOT NULL CHECK (tx_hash ~ '^0x[0-9a-f]{64}$'),
    state         text NOT NULL DEFAULT 'OPEN' CHECK (state IN ('OPEN', 'ACCEPTED', 'REJECTED')),
    reason        text NOT NULL DEFAULT 'queued',
    -- True while a transfer that fits is in a block that is not final.
    confirming    boolean NOT NULL DEFAULT false,
    seen_minor    bigint,
    confirmations bigint,
    block_number  bigint,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    UNIQUE (order_id, merchant_id, tx_hash),
    CHECK (NOT confirming OR state = 'OPEN')
);

-- One transfer pays once, for ever: this key is the promise.
CREATE TABLE payments (
    chain_id     bigint NOT NULL,
    tx_hash      text NOT NULL,
    log_index    bigint NOT NULL,
    order_id     text NOT NULL,
    merchant_id  text NOT NULL,
    event_id     uuid NOT NULL UNIQUE,
    amount_base  numeric(78, 0) NOT NULL CHECK (amount_base > 0),
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    sender       text NOT NULL,
    block_number bigint NOT NULL,
    block_hash   text NOT NULL,
    block_time   timestamptz NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tx_hash, log_index, chain_id)
);
CREATE INDEX payments_by_order ON payments (order_id, merchant_id);

-- Money that came for an order after its time: known, not credited, not forgotten.
CREATE TABLE late_payments (
    chain_id     bigint NOT NULL,
    tx_hash      text NOT NULL,
    log_index    bigint NOT NULL,
    order_id     text NOT NULL,
    merchant_id  text NOT NULL,
    amount_base  numeric(78, 0) NOT NULL,
    amount_minor bigint NOT NULL,
    sender       text NOT NULL,
    block_number bigint NOT NULL,
    block_hash   text NOT NULL,
    block_time   timestamptz NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tx_hash, log_index, chain_id)
);

CREATE TABLE refunds (
    id             text NOT NULL,
    merchant_id    text NOT NULL,
    order_id       text NOT NULL,
    event_id       uuid NOT NULL UNIQUE,
    request_hash   bytea NOT NULL,
    amount_minor   bigint NOT NULL CHECK (amount_minor > 0),
    reason         text NOT NULL,
    tx_hash        text,
    -- What the first answer said, so that a replay says the same.
    state_after    text NOT NULL,
    refunded_after bigint NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (id, merchant_id)
);
CREATE INDEX refunds_by_order ON refunds (order_id, merchant_id);

-- A row is a debt: an effect that another service has not yet confirmed. Confirmed rows are deleted.
CREATE TABLE outbox (
    event_id        uuid PRIMARY KEY,
    subject         text NOT NULL,
    merchant_id     text NOT NULL,
    asset           text NOT NULL,
    payload         bytea NOT NULL,
    attempts        integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    -- Set when the other side refuses it for good; somebody must look.
    dead_reason     text
);
CREATE INDEX outbox_due ON outbox (next_attempt_at) WHERE dead_reason IS NULL;
CREATE INDEX outbox_postings ON outbox (merchant_id, asset) WHERE subject <> 'ospay.orders.v1.payment_claimed';
CREATE INDEX outbox_claims ON outbox (subject) WHERE subject = 'ospay.orders.v1.payment_claimed';

-- Messages that could not be understood.
CREATE TABLE dead_letters (
    id         uuid PRIMARY KEY DEFAULT uuidv7(),
    subject    text NOT NULL,
    payload    bytea NOT NULL,
    reason     text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Sixteen rows a counter: writers of different connections seldom meet in one.
CREATE TABLE counters (
    name  text NOT NULL,
    slot  integer NOT NULL,
    value bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (name, slot)
) WITH (fillfactor = 50);
INSERT INTO counters (name, slot)
SELECT name, slot
FROM unnest(ARRAY ['orders_created', 'refunds_processed', 'payments_detected']) AS name,
     generate_series(0, 15) AS slot;

GRANT SELECT, INSERT ON merchants, payments, late_payments, refunds, settlement_batches, dead_letters TO orders;
GRANT SELECT, INSERT, UPDATE ON api_keys, claims TO orders;
GRANT SELECT, INSERT ON orders TO orders;
GRANT UPDATE (state, received_minor, refunded_minor, late_minor, tx_hash, paid_at, settled_at, settlement_batch_id)
    ON orders TO orders;
GRANT SELECT, INSERT, UPDATE, DELETE ON outbox TO orders;
GRANT SELECT, UPDATE ON counters TO orders;

-- migrate:down

DROP TABLE counters, dead_letters, outbox, refunds, late_payments, payments, claims, orders, settlement_batches,
    api_keys, merchants;
