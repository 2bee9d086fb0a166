-- Which files and partitions the synced tables had when their changes were last known to be in the log: what shows in no
-- message of the WAL (a partition that was dropped, a table that was rewritten) shows by comparing. Written by the
-- ingester that holds the fencing token.
ALTER TABLE posduif_engine.sync_epoch ADD COLUMN relations text NOT NULL DEFAULT '';
