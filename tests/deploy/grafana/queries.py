"""Prints the queries of a Grafana dashboard as Prometheus rules, which promtool can parse."""

import json
import re
import sys


def queries(panels):
    for panel in panels:
        for target in panel.get("targets", []):
            yield target["expr"]
        yield from queries(panel.get("panels", []))


def filled_in(query):
    """The query with values in place of Grafana's variables."""
    return re.sub(r"\$\w+", "x", query.replace("$__rate_interval", "5m"))


with open(sys.argv[1], encoding="utf-8") as file:
    found = list(queries(json.load(file)["panels"]))
assert found, "no queries"
rules = [{"record": f"query:{n}", "expr": filled_in(query)} for n, query in enumerate(found)]
# JSON is YAML.
json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, sys.stdout)
