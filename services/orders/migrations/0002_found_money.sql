-- migrate:up

-- A merchant has one wallet for all orders, or an extended public key from which each order gets an address of its own.
ALTER TABLE merchants
    ALTER COLUMN wallet DROP NOT NULL,
    ADD COLUMN xpub text,
    -- The key and chain code inside the xpub: two ways to write one key would give two merchants the same addresses.
    ADD COLUMN account_key bytea UNIQUE,
    ADD COLUMN next_address_index bigint NOT NULL DEFAULT 0,
    ADD COLUMN underpayment_tolerance_minor bigint NOT NULL DEFAULT 0,
    ADD COLUMN surplus_policy text NOT NULL DEFAULT 'SUSPENSE',
    ADD CONSTRAINT merchants_wallet_or_xpub CHECK (num_nonnulls(wallet, xpub) = 1),
    ADD CONSTRAINT merchants_account_key CHECK ((xpub IS NULL) = (account_key IS NULL)),
    ADD CONSTRAINT merchants_next_address_index CHECK (next_address_index BETWEEN 0 AND 2147483648),
    ADD CONSTRAINT merchants_tolerance CHECK (underpayment_tolerance_minor >= 0),
    ADD CONSTRAINT merchants_surplus_policy CHECK (surplus_policy IN ('SUSPENSE', 'CREDIT'));
CREATE INDEX merchants_by_wallet ON merchants (wallet);

-- On which chains a merchant's wallet is watched: a row is written with the debt to watch it.
CREATE TABLE wallet_watches (
    merchant_id text NOT NULL,
    chain       text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (merchant_id, chain)
);

-- The new rules are wider than those they replace, so what is there holds them: no scan under the lock.
ALTER TABLE orders
    -- Of the address below the merchant's xpub; null where the address is the merchant's wallet.
    ADD COLUMN deposit_index bigint,
    ADD COLUMN reversed_minor bigint NOT NULL DEFAULT 0,
    ADD COLUMN surplus_minor bigint NOT NULL DEFAULT 0,
    DROP CONSTRAINT orders_check1,
    DROP CONSTRAINT orders_check4,
    -- What an open or expired order has received is held for it.
    ADD CONSTRAINT orders_paid_has_received
        CHECK (state NOT IN ('PAID', 'SETTLED', 'REFUNDED') OR received_minor > 0) NOT VALID,
    ADD CONSTRAINT orders_refunds_what_is_paid
        CHECK (state IN ('PAID', 'SETTLED', 'REFUNDED') OR refunded_minor = 0) NOT VALID,
    ADD CONSTRAINT orders_refunded_has_nothing_left
        CHECK (reversed_minor > 0
            OR (state = 'REFUNDED') = (refunded_minor > 0 AND refunded_minor = received_minor)) NOT VALID,
    ADD CONSTRAINT orders_reversed CHECK (reversed_minor BETWEEN 0 AND received_minor) NOT VALID,
    ADD CONSTRAINT orders_surplus CHECK (surplus_minor >= 0) NOT VALID;

-- What a transfer has paid: all of it (null), or a part, of which the rest is a row of suspense.
ALTER TABLE payments
    ADD COLUMN credited_minor bigint,
    ADD COLUMN state text NOT NULL DEFAULT 'CREDITED',
    ADD COLUMN reversed_event_id uuid,
    ADD COLUMN reversed_at timestamptz,
    ADD CONSTRAINT payments_credited CHECK (credited_minor BETWEEN 1 AND amount_minor) NOT VALID,
    ADD CONSTRAINT payments_state CHECK (state IN ('CREDITED', 'REVERSED')) NOT VALID,
    ADD CONSTRAINT payments_reversed
        CHECK ((state = 'REVERSED') = (num_nonnulls(reversed_event_id, reversed_at) = 2)) NOT VALID;

-- What the verifier has found on the watched addresses: one row for one transfer in one block, also of what the chain took back.
CREATE TABLE sightings (
    id            uuid PRIMARY KEY,
    version       bigint NOT NULL,
    state         text NOT NULL CHECK (state IN ('SEEN', 'FINAL', 'GONE', 'REVERSED')),
    chain         text NOT NULL,
    asset         text NOT NULL,
    chain_id      bigint NOT NULL,
    tx_hash       text NOT NULL,
    log_index     bigint NOT NULL,
    block_number  bigint NOT NULL,
    block_hash    text NOT NULL,
    block_time    timestamptz NOT NULL,
    sender        text NOT NULL,
    recipient     text NOT NULL,
    amount_base   numeric(78, 0) NOT NULL,
    -- −1 where it does not fit in 63 bits.
    amount_minor  bigint NOT NULL,
    merchant_id   text,
    order_id      text,
    -- True while it would pay its order and is not final.
    confirming    boolean NOT NULL DEFAULT false,
    confirmations bigint,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    CHECK (order_id IS NULL OR merchant_id IS NOT NULL),
    CHECK (NOT confirming OR (state = 'SEEN' AND order_id IS NOT NULL))
);
CREATE INDEX sightings_by_transfer ON sightings (tx_hash, log_index, chain_id);
CREATE INDEX sightings_by_order ON sightings (order_id, merchant_id) WHERE order_id IS NOT NULL;

-- Final money that pays no order, or not yet.
CREATE TABLE suspense (
    id                uuid PRIMARY KEY,
    merchant_id       text NOT NULL,
    -- The order whose address it reached, or that it has paid.
    order_id          text,
    chain             text NOT NULL,
    asset             text NOT NULL,
    chain_id          bigint NOT NULL,
    tx_hash           text NOT NULL,
    log_index         bigint NOT NULL,
    block_number      bigint NOT NULL,
    block_hash        text NOT NULL,
    block_time        timestamptz NOT NULL,
    sender            text NOT NULL,
    recipient         text NOT NULL,
    -- Both of the whole transfer.
    amount_base       numeric(78, 0) NOT NULL CHECK (amount_base > 0),
    transfer_minor    bigint NOT NULL,
    -- What is in suspense: less than the transfer where a part of it has paid.
    amount_minor      bigint NOT NULL CHECK (amount_minor BETWEEN 1 AND transfer_minor),
    reason            text NOT NULL CHECK (reason IN ('underpaid', 'surplus', 'late', 'wrong_asset', 'payer_mismatch',
                                                      'ambiguous', 'unattributed', 'order_closed', 'reappeared')),
    state             text NOT NULL DEFAULT 'OPEN' CHECK (state IN ('OPEN', 'ALLOCATED', 'RETURNED', 'REVERSED')),
    received_event_id uuid NOT NULL UNIQUE,
    released_event_id uuid UNIQUE,
    -- Set where it has paid an order and has no row in payments, because another part of the transfer has it.
    paid_event_id     uuid UNIQUE,
    reversed_event_id uuid UNIQUE,
    return_tx_hash    text CHECK (return_tx_hash ~ '^0x[0-9a-f]{64}$'),
    note              text NOT NULL DEFAULT '',
    created_at        timestamptz NOT NULL DEFAULT now(),
    resolved_at       timestamptz,
    CHECK ((state = 'OPEN') = (released_event_id IS NULL)),
    CHECK ((state = 'OPEN') = (resolved_at IS NULL))
);
-- One transfer is in suspense once; what the chain took back may return.
CREATE UNIQUE INDEX suspense_transfer ON suspense (tx_hash, log_index, chain_id) WHERE state <> 'REVERSED';
CREATE INDEX suspense_by_transfer ON suspense (tx_hash);
CREATE INDEX suspense_by_order ON suspense (order_id, merchant_id) WHERE order_id IS NOT NULL;
CREATE INDEX suspense_by_merchant ON suspense (merchant_id, created_at, id);
CREATE INDEX suspense_by_time ON suspense (created_at, id);
CREATE INDEX suspense_open ON suspense (created_at, id) WHERE state = 'OPEN';

GRANT UPDATE (next_address_index) ON merchants TO orders;
GRANT SELECT, INSERT ON wallet_watches TO orders;
GRANT UPDATE (reversed_minor, surplus_minor) ON orders TO orders;
GRANT UPDATE (state, reversed_event_id, reversed_at) ON payments TO orders;
GRANT SELECT, INSERT ON sightings TO orders;
GRANT UPDATE (version, state, merchant_id, order_id, confirming, confirmations, updated_at) ON sightings TO orders;
GRANT SELECT, INSERT ON suspense TO orders;
GRANT UPDATE (order_id, reason, state, released_event_id, paid_event_id, reversed_event_id, return_tx_hash, note,
              resolved_at) ON suspense TO orders;

-- migrate:down

DROP TABLE suspense, sightings, wallet_watches;
REVOKE UPDATE (state, reversed_event_id, reversed_at) ON payments FROM orders;
ALTER TABLE payments
    DROP COLUMN credited_minor, DROP COLUMN state, DROP COLUMN reversed_event_id, DROP COLUMN reversed_at;
ALTER TABLE orders
    DROP COLUMN deposit_index, DROP COLUMN reversed_minor, DROP COLUMN surplus_minor,
    DROP CONSTRAINT orders_paid_has_received, DROP CONSTRAINT orders_refunds_what_is_paid,
    ADD CONSTRAINT orders_check1 CHECK ((state IN ('PAID', 'SETTLED', 'REFUNDED')) = (received_minor > 0)),
    ADD CONSTRAINT orders_check4
        CHECK ((state = 'REFUNDED') = (received_minor > 0 AND refunded_minor = received_minor));
DROP INDEX merchants_by_wallet;
REVOKE UPDATE (next_address_index) ON merchants FROM orders;
ALTER TABLE merchants
    DROP COLUMN xpub, DROP COLUMN account_key, DROP COLUMN next_address_index,
    DROP COLUMN underpayment_tolerance_minor, DROP COLUMN surplus_policy,
    ALTER COLUMN wallet SET NOT NULL;
