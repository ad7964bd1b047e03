-- migrate:up

-- Between whom the transfer goes that proves a refund. Null `to_address`: a row of the version before this one, there the
-- payer counts. Null `from_address`: the merchant's wallet, or anybody where it has none.
ALTER TABLE refunds
    ADD COLUMN to_address   text,
    ADD COLUMN from_address text;
-- Not validated: old rows hold null, and there is nothing to read through under the lock that this takes.
ALTER TABLE refunds
    ADD CONSTRAINT refunds_to_address CHECK (to_address ~ '^0x[0-9a-fA-F]{40}$') NOT VALID,
    ADD CONSTRAINT refunds_from_address CHECK (from_address ~ '^0x[0-9a-fA-F]{40}$') NOT VALID;

-- A transaction that the merchant has named for a refund, and what the chain says of it. Refuted ones stay as the trail.
CREATE TABLE refund_proofs (
    -- What the verifier is asked by.
    claim_id     uuid PRIMARY KEY DEFAULT uuidv7(),
    -- The row of the outbox. Not the claim's id: a replica of the version before this one deletes the debt that has
    -- the id of a verdict which it does not know, and so it cannot meet ours.
    debt_id      uuid NOT NULL UNIQUE DEFAULT uuidv7(),
    refund_id    text NOT NULL,
    merchant_id  text NOT NULL,
    attempt      integer NOT NULL CHECK (attempt > 0),
    tx_hash      text NOT NULL CHECK (tx_hash ~ '^0x[0-9a-f]{64}$'),
    state        text NOT NULL DEFAULT 'OPEN' CHECK (state IN ('OPEN', 'CONFIRMED', 'REFUTED')),
    reason       text NOT NULL DEFAULT 'queued',
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    confirmed_at timestamptz,
    UNIQUE (refund_id, merchant_id, attempt),
    CHECK ((state = 'CONFIRMED') = (confirmed_at IS NOT NULL)),
    CHECK ((state = 'CONFIRMED') = (reason = ''))
);
-- Another transaction is taken only after the one before was refuted: this key is the promise.
CREATE UNIQUE INDEX refund_proofs_standing ON refund_proofs (refund_id, merchant_id) WHERE state <> 'REFUTED';

-- One transfer proves one refund, for ever: this key is the promise.
CREATE TABLE refund_transfers (
    chain_id     bigint NOT NULL,
    tx_hash      text NOT NULL,
    log_index    bigint NOT NULL,
    claim_id     uuid NOT NULL,
    refund_id    text NOT NULL,
    merchant_id  text NOT NULL,
    amount_base  numeric(78, 0) NOT NULL CHECK (amount_base > 0),
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    sender       text NOT NULL,
    block_number bigint NOT NULL,
    block_hash   text NOT NULL,
    block_time   timestamptz NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tx_hash, log_index, chain_id),
    UNIQUE (refund_id, merchant_id)
);

GRANT SELECT, INSERT ON refund_proofs, refund_transfers TO orders;
GRANT UPDATE (state, reason, updated_at, confirmed_at) ON refund_proofs TO orders;

-- migrate:down

DROP TABLE refund_transfers, refund_proofs;
ALTER TABLE refunds DROP COLUMN to_address, DROP COLUMN from_address;
