-- In a file of its own: one statement and no transaction, as CONCURRENTLY wants it.
-- migrate:up transaction:false

-- What is SEEN in a range of blocks is found by sightings_block: these blocks are not final, and nearly all in them is SEEN.
DROP INDEX CONCURRENTLY sightings_seen;

-- migrate:down transaction:false

CREATE INDEX CONCURRENTLY sightings_seen ON sightings (chain_id, block_number) WHERE state = 'SEEN';
