-- Users who are online are looked for now and then, to find those whose last connection nobody saw end.
CREATE INDEX users_online ON public.users (id) WHERE online_status;
