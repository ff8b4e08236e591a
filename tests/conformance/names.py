"""The names of Services, as the cluster's DNS has them."""

import socket
import struct
import threading

A, CNAME, AAAA = 1, 5, 28
NO_ERROR, NO_SUCH_NAME = 0, 3
TTL = 1


class Names:
    """Answers `NAME.NAMESPACE.svc.DOMAIN` with what the watches of Services and Endpoints told."""

    def __init__(self, domain):
        self.domain = domain
        self.lock = threading.Lock()
        self.services = {}
        self.endpoints = {}

    def tell(self, table, kind, item):
        """Takes in one event of a watch."""
        name = f"{item['metadata']['name']}.{item['metadata']['namespace']}.svc.{self.domain}"
        with self.lock:
            if kind == "DELETED":
                table.pop(name.lower(), None)
            else:
                table[name.lower()] = item

    def find(self, name):
        """The names that lead on, and the addresses at their end; None where there is no such name."""
        through = []
        while len(through) < 8:
            with self.lock:
                service = self.services.get(name)
                endpoints = self.endpoints.get(name, {})
            if service is None:
                return (through, []) if through else None
            spec = service["spec"]
            if spec.get("type") == "ExternalName":
                name = spec["externalName"].rstrip(".").lower()
                through.append(name)
                continue
            if spec.get("clusterIP") != "None":
                return through, [spec["clusterIP"]]
            subsets = endpoints.get("subsets") or []
            found = [a["ip"] for s in subsets for a in s.get("addresses") or []]
            return through, found
        return through, []

    def serve(self, address):
        """Answers over UDP, for ever."""
        door = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        door.bind((address, 53))
        while True:
            question, sender = door.recvfrom(4096)
            try:
                answer = self.answer(question)
            except (IndexError, UnicodeDecodeError, struct.error):
                continue
            door.sendto(answer, sender)

    def answer(self, question):
        """The message that answers a message."""
        labels, at = [], 12
        while question[at]:
            labels.append(question[at + 1 : at + 1 + question[at]].decode("ascii").lower())
            at += 1 + question[at]
        (wanted,) = struct.unpack_from("!H", question, at + 1)
        asked = question[12 : at + 5]
        found = self.find(".".join(labels))
        records, owner = [], b"\xc0\x0c"
        if found:
            for name in found[0]:
                records.append(record(owner, CNAME, written(name)))
                owner = written(name)
            if wanted == A:
                records += [record(owner, A, socket.inet_aton(ip)) for ip in found[1]]
        code = NO_ERROR if found else NO_SUCH_NAME
        # An answer with authority, recursion asked for and to be had.
        head = question[:2] + struct.pack("!HHHHH", 0x8580 | code, 1, len(records), 0, 0)
        return head + asked + b"".join(records)


def written(name):
    labels = name.split(".")
    return b"".join(bytes([len(label)]) + label.encode("ascii") for label in labels) + b"\0"


def record(owner, kind, data):
    return owner + struct.pack("!HHIH", kind, 1, TTL, len(data)) + data
