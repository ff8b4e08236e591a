"""Compares what the gateway did, by the API server's audit log, with what the manifests let it do.

    rights.py AUDIT-LOG < ROLES

ROLES is what `kubectl get -o json` says of its roles. Fails when something was refused.
"""

import json
import sys


def allowed(roles):
    """Every right, as (group, resource, verb)."""
    for role in roles["items"]:
        for rule in role["rules"]:
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    for verb in rule["verbs"]:
                        yield group, resource, verb


def done(lines):
    """Every stage of a request, as a right and whether it was granted so far."""
    for line in lines:
        event = json.loads(line)
        target = event.get("objectRef")
        if target:
            resource = "/".join(filter(None, [target["resource"], target.get("subresource")]))
            code = event.get("responseStatus", {}).get("code")
            yield (target.get("apiGroup", ""), resource, event["verb"]), code != 403


def main():
    with open(sys.argv[1], encoding="utf-8") as log:
        requests = list(done(log))
    rights = set(allowed(json.load(sys.stdin)))
    refused = {right for right, granted in requests if not granted}
    used = {right for right, granted in requests} - refused
    for title, found in (("used", used & rights), ("never used", rights - used), ("refused", refused)):
        for group, resource, verb in sorted(found):
            print(f"{title}: {verb} {'.'.join(filter(None, [resource, group]))}")
    sys.exit(1 if refused else 0)


if __name__ == "__main__":
    main()
