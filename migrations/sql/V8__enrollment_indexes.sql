-- Tokens are found by what they let in (repeats, lists of devices) and by whom they concern (voiding them).
CREATE INDEX enrollment_tokens_of_device ON public.enrollment_tokens (device_id);
CREATE INDEX enrollment_tokens_of_creator ON public.enrollment_tokens (created_by);
CREATE INDEX enrollment_tokens_of_bound_user ON public.enrollment_tokens (bound_user_id);
