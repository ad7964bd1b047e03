-- migrate:up

-- In a file of its own: a new value cannot be named in the transaction that adds it, and the next file does.
ALTER TYPE event_type ADD VALUE IF NOT EXISTS 'SUSPENSE_RECEIVED';
ALTER TYPE event_type ADD VALUE IF NOT EXISTS 'SUSPENSE_RELEASED';
ALTER TYPE event_type ADD VALUE IF NOT EXISTS 'PAYMENT_REVERSED';

-- migrate:down

-- The values stay: to take one back is to write the books anew, and the code before runs beside them.
