-- Who operates a tenant and who is kept out of it. Apart from users, whose rows are synced: no declaration of that table
-- can show or grant any of this. A user without a row is enabled and no operator.
CREATE TABLE posduif_engine.accounts (
    user_id     uuid PRIMARY KEY REFERENCES public.users (id) ON DELETE CASCADE,
    is_admin    boolean NOT NULL DEFAULT false,
    disabled_at timestamptz,
    -- Log-ins carry the number of their time; those with an earlier one have ended.
    log_ins     integer NOT NULL DEFAULT 0
);
