"""The one node of a cluster for tests: what a scheduler, a kubelet and the cluster's DNS are
elsewhere, as far as Knative's conformance tests of ingresses need them.

    node.py --server URL --ca FILE --token TOKEN --address IP --images DIRECTORY --directory DIRECTORY

It needs root, and network namespaces of which it may fill its own.
"""

import argparse
import itertools
import os
import sys
import threading

from api import Api, Refused
from names import Names
from pod import Pod


class Node:
    """What its pods share."""

    name = "node"
    domain = "cluster.local"
    # Where every pod finds the API server.
    service = ("10.96.0.1", "443")

    def __init__(self, options):
        self.api = Api(options.server, options.ca, options.token)
        self.address = options.address
        # Pods have addresses of the same half, from the second quarter on.
        self.network = ".".join(options.address.split(".")[:2])
        self.images = options.images
        self.directory = options.directory
        self.numbers = itertools.count(1)
        self.pods = {}

    def next_number(self):
        return next(self.numbers)

    def log(self, line):
        print(line, file=sys.stderr, flush=True)

    def register(self):
        """Makes the object that says where this node is."""
        item = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": self.name}}
        item["metadata"]["labels"] = {"kubernetes.io/hostname": self.name}
        try:
            self.api.ask("POST", "/api/v1/nodes", item)
        except Refused as refused:
            if refused.status != 409:
                raise
        status = {
            "addresses": [{"type": "InternalIP", "address": self.address}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }
        self.api.patch(f"/api/v1/nodes/{self.name}/status", {"status": status})

    def hear(self, kind, item):
        """Takes in one event of a pod."""
        uid = item["metadata"]["uid"]
        pod = self.pods.get(uid)
        if kind == "DELETED":
            if pod:
                pod.delete(0)
                del self.pods[uid]
        elif "deletionTimestamp" in item["metadata"]:
            if pod and not pod.leaving.is_set():
                pod.delete(item["metadata"].get("deletionGracePeriodSeconds", 30))
        elif pod is None:
            self.pods[uid] = Pod(self, item)

    def run(self):
        """Never returns."""
        self.register()
        names = Names(self.domain)
        follow = [
            ("/api/v1/services", lambda kind, item: names.tell(names.services, kind, item)),
            ("/api/v1/endpoints", lambda kind, item: names.tell(names.endpoints, kind, item)),
            ("/api/v1/pods", self.hear),
        ]
        for path, tell in follow:
            threading.Thread(target=self.api.follow, args=[path, tell], daemon=True).start()
        names.serve(self.address)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    for option in ("server", "ca", "token", "address", "images", "directory"):
        parser.add_argument(f"--{option}", required=True)
    options = parser.parse_args()
    options.directory = os.path.abspath(options.directory)
    Node(options).run()


if __name__ == "__main__":
    main()
