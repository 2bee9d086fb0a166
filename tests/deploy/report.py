"""Sentence-named checks in, one `ok` or `not ok` line each out, for check.sh to count."""

import sys
import time
import traceback


def run(*checks):
    failed = 0
    for check in checks:
        sentence = check.__name__.replace("_", " ")
        try:
            check()
            print(f"ok {sentence}", flush=True)
        except Exception as error:
            failed += 1
            where = traceback.extract_tb(error.__traceback__)[1]
            print(f"not ok {sentence}: line {where.lineno}: {error!r}", flush=True)
    sys.exit(1 if failed else 0)


def eventually(predicate, what, seconds=15):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if predicate():
            return
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what}")
