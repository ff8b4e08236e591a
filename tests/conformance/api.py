"""A client of the API server: requests, and watches that never end."""

import http.client
import json
import ssl
import threading
import urllib.parse

# How long a watch that says nothing is kept, in seconds.
WATCH = 300
# Between two tries to reach the API server, in seconds.
PAUSE = 0.2


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, status, body):
        super().__init__(f"{status}: {body[:300]!r}")
        self.status = status


class Api:
    """Talks to one API server with one bearer token."""

    def __init__(self, server, ca, token):
        self.address = urllib.parse.urlsplit(server).netloc
        self.tls = ssl.create_default_context(cafile=ca)
        # The API server's own certificate names the addresses it was made with.
        self.tls.check_hostname = False
        self.token = token
        self.local = threading.local()

    def connect(self, timeout):
        return http.client.HTTPSConnection(self.address, timeout=timeout, context=self.tls)

    def ask(self, method, path, body=None, content_type="application/json"):
        """The answer as it was decoded; `Refused` when it is no success."""
        headers = {"authorization": f"Bearer {self.token}", "content-type": content_type}
        payload = None if body is None else json.dumps(body)
        for last in (False, True):
            connection = getattr(self.local, "connection", None)
            if connection is None:
                connection = self.local.connection = self.connect(30)
            try:
                connection.request(method, path, payload, headers)
                answer = connection.getresponse()
                text = answer.read()
                break
            except (OSError, http.client.HTTPException):
                # A connection that idled may have been closed.
                connection.close()
                self.local.connection = None
                if last:
                    raise
        if answer.status >= 300:
            raise Refused(answer.status, text)
        return json.loads(text)

    def get(self, path):
        """The object, or None where there is none."""
        try:
            return self.ask("GET", path)
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    def patch(self, path, changes):
        """Merges `changes` into an object."""
        return self.ask("PATCH", path, changes, "application/merge-patch+json")

    def follow(self, path, tell):
        """Lists and watches a collection for ever: `tell(kind, object)` hears ADDED, MODIFIED and
        DELETED, of an object that went while no watch was open, too.
        """
        known = {}
        stopped = threading.Event()
        while not stopped.wait(PAUSE):
            try:
                listed = self.ask("GET", path)
            except (Refused, OSError, http.client.HTTPException):
                continue
            found = {key(item): item for item in listed["items"]}
            for gone in known.keys() - found.keys():
                tell("DELETED", known[gone])
            for name, item in found.items():
                tell("MODIFIED" if name in known else "ADDED", item)
            known = found
            version = listed["metadata"]["resourceVersion"]
            try:
                for event in self.events(path, version):
                    if event["type"] == "ERROR":
                        break
                    item = event["object"]
                    if event["type"] == "DELETED":
                        known.pop(key(item), None)
                    else:
                        known[key(item)] = item
                    tell(event["type"], item)
            except (Refused, OSError, http.client.HTTPException, ValueError):
                pass

    def events(self, path, version):
        connection = self.connect(WATCH + 10)
        query = f"watch=true&resourceVersion={version}&timeoutSeconds={WATCH}"
        try:
            headers = {"authorization": f"Bearer {self.token}"}
            connection.request("GET", f"{path}?{query}", headers=headers)
            answer = connection.getresponse()
            if answer.status != 200:
                raise Refused(answer.status, answer.read())
            for line in answer:
                yield json.loads(line)
        finally:
            connection.close()


def key(item):
    """By what one object is known from another of its kind."""
    metadata = item["metadata"]
    return metadata.get("namespace", ""), metadata["name"]
