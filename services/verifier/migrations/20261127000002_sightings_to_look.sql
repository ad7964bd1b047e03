-- One statement and no transaction, as CONCURRENTLY wants it: transfers are found meanwhile.
-- migrate:up transaction:false

-- What is to be looked at next, whatever else there is that is SEEN and has its turn later.
CREATE INDEX CONCURRENTLY sightings_to_look ON sightings (chain_id, next_look_at) INCLUDE (block_number)
    WHERE state = 'SEEN';

-- migrate:down transaction:false

DROP INDEX CONCURRENTLY sightings_to_look;
