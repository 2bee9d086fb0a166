-- What the sync engine keeps for itself, in a schema that is not named like a role: "$user" leads the search path, and
-- the application's own CREATE TABLE must not end up here. Of these tables only the heartbeat is published.

-- Argon2id hashes in PHC string format.
CREATE TABLE posduif_engine.user_credentials (
    user_id       uuid PRIMARY KEY REFERENCES public.users (id) ON DELETE CASCADE,
    password_hash text NOT NULL,
    updated_at    timestamptz NOT NULL DEFAULT now()
);

-- SHA-256 of each device's token, in hexadecimal; the token itself has 256 random bits and is not kept.
CREATE TABLE posduif_engine.device_secrets (
    device_id  text PRIMARY KEY REFERENCES public.devices (id) ON DELETE CASCADE,
    token_hash text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Who may write the log: whoever drew the highest number while holding the slot.
CREATE SEQUENCE posduif_engine.fencing_token;

-- The log's generation. One row; opening an epoch updates it, conditional on the fencing token.
CREATE TABLE posduif_engine.sync_epoch (
    only_row  boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    epoch     text NOT NULL,
    token     bigint NOT NULL,
    reason    text NOT NULL,
    opened_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO posduif_engine.sync_epoch (epoch, token, reason) VALUES ('', 0, 'no log yet');

-- One row every few seconds: moves the watermark of an idle tenant, and shows when a disk was rolled back.
CREATE TABLE posduif_engine.heartbeat (
    sequence bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    nonce    bigint NOT NULL,
    beat_at  timestamptz NOT NULL DEFAULT now()
);
