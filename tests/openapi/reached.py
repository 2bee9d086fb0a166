"""The document and the reports of all callers in, whether every operation has ever succeeded for anybody out.

A run that is refused everywhere finds nothing, and says nothing.
"""

import json
import sys


def operations(file):
    with open(file, encoding="utf-8") as text:
        paths = json.load(text)["paths"]
    return {f"{method.upper()} {path}" for path, item in paths.items() for method in item}


def accepted(file):
    with open(file, encoding="utf-8") as text:
        rates = json.load(text)["valid_rates"]
    return {name for name, phases in rates.items() if any(phase["accepted"] for phase in phases.values())}


def main(document, *reports):
    known = operations(document)
    missed = known - set().union(*map(accepted, reports))
    print(f"{len(known - missed)} of {len(known)} operations succeeded", *sorted(missed), sep="\n")
    sys.exit(1 if missed or len(known) < 20 else 0)


main(*sys.argv[1:])
