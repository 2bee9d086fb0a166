-- What a messenger's tenant keeps. Everything a device or an application may see lies in public;
-- every column that an INSERT may leave out has a default, so that plain SQL by others works.

CREATE TABLE public.users (
    id                  uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    username            text NOT NULL UNIQUE CHECK (username <> '' AND length(username) <= 200),
    user_type           text NOT NULL DEFAULT 'mobile' CHECK (user_type IN ('web', 'mobile')),
    -- The latest of the user's devices; never leaves the server.
    device_id           text,
    online_status       boolean NOT NULL DEFAULT false,
    last_seen           timestamptz,
    enrolled_at         timestamptz,
    enrollment_token_id uuid,
    last_message_sent   text,
    last_message_at     timestamptz,
    -- Breaks ties between messages of the same instant.
    last_message_id     uuid,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE public.enrollment_tokens (
    id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    token         text NOT NULL UNIQUE,
    created_by    uuid NOT NULL REFERENCES public.users (id),
    tenant_id     text NOT NULL,
    -- A token for a new phone of an existing user.
    bound_user_id uuid REFERENCES public.users (id),
    expires_at    timestamptz NOT NULL,
    used_at       timestamptz,
    device_id     text,
    created_at    timestamptz NOT NULL DEFAULT now()
);

ALTER TABLE public.users
    ADD FOREIGN KEY (enrollment_token_id) REFERENCES public.enrollment_tokens (id);

CREATE TABLE public.devices (
    id          text PRIMARY KEY,
    user_id     uuid NOT NULL REFERENCES public.users (id),
    device_info jsonb NOT NULL DEFAULT '{}',
    created_at  timestamptz NOT NULL DEFAULT now(),
    last_seen   timestamptz,
    revoked_at  timestamptz
);
CREATE INDEX devices_of_user ON public.devices (user_id);

CREATE TABLE public.messages (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    sender_id    uuid NOT NULL REFERENCES public.users (id),
    recipient_id uuid NOT NULL REFERENCES public.users (id),
    content      text NOT NULL CHECK (content <> ''),
    status       text NOT NULL DEFAULT 'pending_sync' CHECK (status IN ('pending_sync', 'synced', 'read')),
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    synced_at    timestamptz,
    read_at      timestamptz
);
-- A snapshot walks one user's messages in key order, once as sender and once as recipient.
CREATE INDEX messages_sent ON public.messages (sender_id, id);
CREATE INDEX messages_received ON public.messages (recipient_id, id);
-- The newest message of a sender.
CREATE INDEX messages_newest ON public.messages (sender_id, created_at DESC, id DESC);

CREATE TABLE public.sync_metadata (
    device_id              text PRIMARY KEY REFERENCES public.devices (id) ON DELETE CASCADE,
    last_sync_timestamp    timestamptz,
    last_synced_lsn        pg_lsn,
    pending_outgoing_count integer NOT NULL DEFAULT 0,
    sync_status            text NOT NULL DEFAULT 'idle' CHECK (sync_status IN ('idle', 'syncing', 'error')),
    updated_at             timestamptz NOT NULL DEFAULT now()
);

-- users.last_message_* follow messages in the same transaction, whoever writes them: the newest message is the
-- one with the greatest (created_at, id), whatever order they arrive in. Rows of users are locked in key order,
-- so that two statements with several senders cannot deadlock. updated_at is left alone: it belongs to the
-- user's own edits. The functions run with their owner's rights: whoever may write messages need not be allowed
-- to write users.
CREATE FUNCTION posduif_engine.note_new_messages() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM 1 FROM public.users u
     WHERE u.id IN (SELECT sender_id FROM fresh) ORDER BY u.id FOR NO KEY UPDATE;
    UPDATE public.users u
       SET last_message_sent = newest.content,
           last_message_at = newest.created_at,
           last_message_id = newest.id
      FROM (SELECT DISTINCT ON (sender_id) sender_id, id, content, created_at
              FROM fresh ORDER BY sender_id, created_at DESC, id DESC) newest
     WHERE u.id = newest.sender_id
       AND (u.last_message_at IS NULL
            OR (u.last_message_at, coalesce(u.last_message_id, '00000000-0000-0000-0000-000000000000'))
               < (newest.created_at, newest.id));
    RETURN NULL;
END $$;

-- After anything but an INSERT the newest message is looked up again for every sender concerned. All of them are
-- locked first: two deletions of one sender's newest messages must not each find the other's.
CREATE FUNCTION posduif_engine.recompute_last_messages(senders uuid[]) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM 1 FROM public.users u WHERE u.id = ANY (senders) ORDER BY u.id FOR NO KEY UPDATE;
    UPDATE public.users u
       SET last_message_sent = newest.content,
           last_message_at = newest.created_at,
           last_message_id = newest.id
      FROM unnest(senders) AS sender (id)
      LEFT JOIN LATERAL (SELECT m.id, m.content, m.created_at FROM public.messages m
                          WHERE m.sender_id = sender.id
                          ORDER BY m.created_at DESC, m.id DESC LIMIT 1) newest ON true
     WHERE u.id = sender.id
       AND (u.last_message_sent, u.last_message_at, u.last_message_id)
           IS DISTINCT FROM (newest.content, newest.created_at, newest.id);
END $$;

CREATE FUNCTION posduif_engine.note_edited_messages() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    senders uuid[];
BEGIN
    -- Confirmations and reads change nothing of this; they are most of the updates.
    SELECT array_agg(DISTINCT s.id) FILTER (WHERE s.id IS NOT NULL) INTO senders
      FROM former o FULL JOIN fresh n USING (id)
     CROSS JOIN LATERAL (VALUES (o.sender_id), (n.sender_id)) s (id)
     WHERE (o.sender_id, o.content, o.created_at) IS DISTINCT FROM (n.sender_id, n.content, n.created_at);
    IF senders IS NOT NULL THEN
        PERFORM posduif_engine.recompute_last_messages(senders);
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION posduif_engine.note_deleted_messages() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM posduif_engine.recompute_last_messages(array_agg(DISTINCT sender_id)) FROM former;
    RETURN NULL;
END $$;

CREATE FUNCTION posduif_engine.note_truncated_messages() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM posduif_engine.recompute_last_messages(array_agg(id)) FROM public.users WHERE last_message_id IS NOT NULL;
    RETURN NULL;
END $$;

CREATE TRIGGER posduif_new_messages AFTER INSERT ON public.messages
    REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION posduif_engine.note_new_messages();
CREATE TRIGGER posduif_edited_messages AFTER UPDATE ON public.messages
    REFERENCING OLD TABLE AS former NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION posduif_engine.note_edited_messages();
CREATE TRIGGER posduif_deleted_messages AFTER DELETE ON public.messages
    REFERENCING OLD TABLE AS former FOR EACH STATEMENT EXECUTE FUNCTION posduif_engine.note_deleted_messages();
CREATE TRIGGER posduif_truncated_messages AFTER TRUNCATE ON public.messages
    FOR EACH STATEMENT EXECUTE FUNCTION posduif_engine.note_truncated_messages();
