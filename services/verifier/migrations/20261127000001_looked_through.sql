-- migrate:up

-- Every block of an earlier time was looked through for all that are WATCHED and had joined by then, those that are not
-- final as well. NULL: not since the chain was last changed beyond finality.
ALTER TABLE cursors ADD COLUMN looked_through_at timestamptz;

-- Since when an address is WATCHED: a look that reached only to a time before has not seen it. NULL: from before this column.
ALTER TABLE watches ADD COLUMN joined_at timestamptz;
GRANT UPDATE (joined_at) ON watches TO verifier;

-- migrate:down

ALTER TABLE watches DROP COLUMN joined_at;
ALTER TABLE cursors DROP COLUMN looked_through_at;
