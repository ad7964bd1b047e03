-- migrate:up

-- What was proved from the chain. A proof outlives the node's index of receipts (about 12 days on BSC) and is what a
-- transfer is known by for ever: rows are never changed, and the service's role has no right to.
CREATE TABLE transfers (
    chain_id     bigint        NOT NULL,
    tx_hash      bytea         NOT NULL CHECK (octet_length(tx_hash) = 32),
    log_index    bigint        NOT NULL CHECK (log_index >= 0),
    block_number bigint        NOT NULL CHECK (block_number > 0),
    block_hash   bytea         NOT NULL CHECK (octet_length(block_hash) = 32),
    block_time   timestamptz   NOT NULL,
    contract     bytea         NOT NULL CHECK (octet_length(contract) = 20),
    sender       bytea         NOT NULL CHECK (octet_length(sender) = 20),
    recipient    bytea         NOT NULL CHECK (octet_length(recipient) = 20),
    amount_base  numeric(78,0) NOT NULL CHECK (amount_base > 0),
    proved_at    timestamptz   NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (chain_id, tx_hash, log_index)
);

-- The highest final block seen on each chain. An endpoint that says less is not believed. To believe it after all (a
-- test chain that was made anew), an operator deletes the row.
CREATE TABLE chain_heads (
    chain_id         bigint      PRIMARY KEY,
    finalized_number bigint      NOT NULL CHECK (finalized_number > 0),
    seen_at          timestamptz NOT NULL DEFAULT clock_timestamp()
);

GRANT SELECT, INSERT ON transfers TO verifier;
GRANT SELECT, INSERT, UPDATE ON chain_heads TO verifier;

-- migrate:down

DROP TABLE chain_heads;
DROP TABLE transfers;
