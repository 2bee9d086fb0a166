-- Every epoch that was opened, and why: what `posduif status` shows after a fail-over, and what keeps the ingester from
-- replacing a slot again and again that the server keeps losing.
CREATE TABLE posduif_engine.epoch_history (
    epoch     text PRIMARY KEY,
    token     bigint NOT NULL,
    -- A constant word, as in the metric posduif_ingester_epochs_opened_total.
    reason    text NOT NULL,
    detail    text NOT NULL,
    opened_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX epoch_history_by_time ON posduif_engine.epoch_history (opened_at);
