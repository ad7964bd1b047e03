-- migrate:up

-- Addresses that may receive. CATCHING_UP: blocks up to looked_number have been looked through for it (NULL: where its
-- past begins is not known yet, from_time decides); WATCHED: everything up to the chain's cursor has; ENDED: its time is
-- over, and what came after looked_number was not looked for.
CREATE TABLE watches (
    chain_id      bigint      NOT NULL,
    address       bytea       NOT NULL CHECK (octet_length(address) = 20),
    from_block    bigint      NOT NULL CHECK (from_block >= 0),
    from_time     timestamptz NOT NULL,
    until         timestamptz,
    state         text        NOT NULL DEFAULT 'CATCHING_UP' CHECK (state IN ('CATCHING_UP', 'WATCHED', 'ENDED')),
    looked_number bigint      CHECK (looked_number >= 0),
    added_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (chain_id, address),
    CHECK (state = 'CATCHING_UP' OR looked_number IS NOT NULL)
);
CREATE INDEX watches_catching_up ON watches (chain_id, looked_number) WHERE state = 'CATCHING_UP';
CREATE INDEX watches_watched ON watches (chain_id, until) WHERE state = 'WATCHED';

-- How far a chain has been looked through. All but the term is NULL until its first final block was seen. Every write of
-- a scanner names its term: one that lost the lead without noticing writes nothing.
CREATE TABLE cursors (
    chain_id         bigint      PRIMARY KEY,
    term             bigint      NOT NULL CHECK (term > 0),
    first_number     bigint      CHECK (first_number > 0),
    number           bigint      CHECK (number >= first_number - 1),
    hash             bytea       CHECK (octet_length(hash) = 32),
    scanned_number   bigint      CHECK (scanned_number >= number),
    swept_number     bigint      CHECK (swept_number <= number),
    swept_time       timestamptz,
    head_number      bigint,
    finalized_number bigint,
    moved_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (num_nulls(first_number, number, hash, scanned_number, swept_number, swept_time, head_number,
                     finalized_number) IN (0, 8))
);

-- Final blocks that the cursor stood on: what is walked back over when the chain changes beyond finality. `operator` is
-- whose word the blocks up to it, from the pin before, were first looked through by.
CREATE TABLE pins (
    chain_id bigint NOT NULL,
    number   bigint NOT NULL CHECK (number > 0),
    hash     bytea  NOT NULL CHECK (octet_length(hash) = 32),
    operator text   NOT NULL,
    PRIMARY KEY (chain_id, number)
);

-- Transfers found on watched addresses: one in one block; in another block it is another row, and so it is when one operator
-- shows another sender or amount in the same place: only what is proved becomes FINAL. Rows are the trail and are never deleted. A row is a debt while its version is above the confirmed one.
CREATE TABLE sightings (
    id                uuid          PRIMARY KEY DEFAULT gen_random_uuid(),
    chain_id          bigint        NOT NULL,
    tx_hash           bytea         NOT NULL CHECK (octet_length(tx_hash) = 32),
    log_index         bigint        NOT NULL CHECK (log_index >= 0),
    block_number      bigint        NOT NULL CHECK (block_number > 0),
    block_hash        bytea         NOT NULL CHECK (octet_length(block_hash) = 32),
    block_time        timestamptz   NOT NULL,
    contract          bytea         NOT NULL CHECK (octet_length(contract) = 20),
    sender            bytea         NOT NULL CHECK (octet_length(sender) = 20),
    recipient         bytea         NOT NULL CHECK (octet_length(recipient) = 20),
    amount_base       numeric(78,0) NOT NULL CHECK (amount_base > 0),
    -- The log index that the transfer was first proved with, which it is known by for ever: log_index is another one
    -- when a reorganisation beyond finality has moved its transaction to another block.
    known_index       bigint        NOT NULL CHECK (known_index >= 0),
    state             text          NOT NULL CHECK (state IN ('SEEN', 'FINAL', 'GONE', 'REVERSED')),
    -- Since when a FINAL one has to be proved again, because its block may not be canonical any more.
    doubted_at        timestamptz   CHECK (doubted_at IS NULL OR state = 'FINAL'),
    version           bigint        NOT NULL DEFAULT 1,
    confirmed_version bigint        NOT NULL DEFAULT 0 CHECK (confirmed_version BETWEEN 0 AND version),
    next_report_at    timestamptz   NOT NULL,
    looks             integer       NOT NULL DEFAULT 0,
    next_look_at      timestamptz   NOT NULL DEFAULT clock_timestamp(),
    seen_at           timestamptz   NOT NULL DEFAULT clock_timestamp(),
    changed_at        timestamptz   NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (chain_id, tx_hash, log_index, block_hash, contract, sender, recipient, amount_base)
);
-- One transfer pays once.
CREATE UNIQUE INDEX sightings_final ON sightings (chain_id, tx_hash, known_index) WHERE state = 'FINAL';
CREATE INDEX sightings_block ON sightings (chain_id, block_number);
CREATE INDEX sightings_seen ON sightings (chain_id, block_number) WHERE state = 'SEEN';
CREATE INDEX sightings_doubted ON sightings (chain_id, block_number) WHERE doubted_at IS NOT NULL;
CREATE INDEX sightings_open ON sightings (next_report_at) WHERE version > confirmed_version;

GRANT SELECT, INSERT, UPDATE (from_block, from_time, until, state, looked_number) ON watches TO verifier;
GRANT SELECT, INSERT, UPDATE ON cursors TO verifier;
GRANT SELECT, INSERT, DELETE ON pins TO verifier;
-- What was seen on the chain is never changed, only where it stands; and the block's time, which is one operator's word
-- until it is proved.
GRANT SELECT, INSERT,
      UPDATE (block_time, known_index, state, doubted_at, version, confirmed_version, next_report_at, looks, next_look_at, changed_at)
    ON sightings TO verifier;

-- migrate:down

DROP TABLE sightings;
DROP TABLE pins;
DROP TABLE cursors;
DROP TABLE watches;
