-- migrate:up

-- What a merchant moves from an order's own address to a wallet: no customer has paid by it.
ALTER TABLE suspense DROP CONSTRAINT suspense_reason_check;
-- The rows there hold one of the reasons of before: nobody has to wait for a look at them.
ALTER TABLE suspense ADD CONSTRAINT suspense_reason_check
    CHECK (reason IN ('underpaid', 'surplus', 'late', 'wrong_asset', 'payer_mismatch', 'ambiguous', 'unattributed',
                      'order_closed', 'reappeared', 'internal')) NOT VALID;

-- migrate:down

UPDATE suspense SET reason = 'unattributed' WHERE reason = 'internal';
ALTER TABLE suspense DROP CONSTRAINT suspense_reason_check;
ALTER TABLE suspense ADD CONSTRAINT suspense_reason_check
    CHECK (reason IN ('underpaid', 'surplus', 'late', 'wrong_asset', 'payer_mismatch', 'ambiguous', 'unattributed',
                      'order_closed', 'reappeared')) NOT VALID;
