"""One pod: a network namespace, and its containers as processes in it.

An image is a program in a directory of ours. A container sees a root directory of its own, with
that program, the system's libraries, its volumes and a resolv.conf, as its user; there are no
limits, and no process of another container is hidden from it.
"""

import base64
import http.client
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time

from api import Refused

# Of the machine's root directory, what every container may read.
SHARED = ["bin", "dev", "etc/ssl", "lib", "lib64", "proc", "sbin", "usr"]
# Between a container's end and its next start, in seconds.
RESTART = 1
# The longest that a probe's turn is waited for, whatever its period, in seconds.
PERIOD = 1


class Pod:
    """Runs from its making until `delete` is called."""

    def __init__(self, node, item):
        self.node = node
        self.item = item
        self.spec = item["spec"]
        self.name = item["metadata"]["name"]
        self.namespace = item["metadata"]["namespace"]
        self.path = f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"
        self.directory = os.path.join(node.directory, "pods", item["metadata"]["uid"])
        self.started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.leaving = threading.Event()
        self.grace = 0
        self.containers = []
        self.address, self.sandbox, self.link = None, None, None
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        """Starts everything, then tells the API server of what changes, and cleans up at the end."""
        try:
            self.bind()
            self.join_network()
            for spec in self.spec["containers"]:
                self.containers.append(Container(self, spec))
            told = None
            while not self.leaving.is_set():
                status = self.status()
                if status != told:
                    self.tell(status)
                    told = status
                self.leaving.wait(0.05)
            self.tell(self.status())
        except (Refused, OSError, subprocess.CalledProcessError, KeyError, ValueError) as error:
            self.node.log(f"{self.name}: {error!r}")
        self.leaving.wait()
        self.stop()

    def delete(self, grace):
        """Begins the end: containers get `grace` seconds."""
        self.grace = grace
        self.leaving.set()

    def bind(self):
        if self.spec.get("nodeName"):
            return
        target = {"apiVersion": "v1", "kind": "Node", "name": self.node.name}
        binding = {"apiVersion": "v1", "kind": "Binding", "target": target}
        binding["metadata"] = {"name": self.name}
        self.node.api.ask("POST", f"{self.path}/binding", binding)

    def join_network(self):
        """A namespace of its own, and a way to it: nobody else has its ports."""
        number = self.node.next_number()
        self.address = f"{self.node.network}.{1 + number // 250}.{1 + number % 250}"
        self.sandbox = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        pid = self.sandbox.pid
        own = os.readlink("/proc/self/ns/net")
        while os.readlink(f"/proc/{pid}/ns/net") == own:
            time.sleep(0.001)
        self.link = f"pod{number}"
        call("ip", "link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        call("ip", "link", "set", self.link, "up")
        call("ip", "route", "add", f"{self.address}/32", "dev", self.link, "src", self.node.address)
        inside = ["nsenter", f"--net=/proc/{pid}/ns/net", "ip"]
        call(*inside, "link", "set", "lo", "up")
        call(*inside, "address", "add", f"{self.address}/32", "dev", "eth0")
        call(*inside, "link", "set", "eth0", "up")
        call(*inside, "route", "add", self.node.address, "dev", "eth0")
        call(*inside, "route", "add", "default", "via", self.node.address)

    def status(self):
        containers = [container.status() for container in self.containers]
        ready = bool(containers) and all(c["ready"] for c in containers)
        ready = ready and not self.leaving.is_set()
        conditions = [("Initialized", True), ("Ready", ready), ("ContainersReady", ready), ("PodScheduled", True)]
        return {
            "phase": "Running" if containers else "Pending",
            "conditions": [
                {"type": kind, "status": str(status), "lastTransitionTime": self.started}
                for kind, status in conditions
            ],
            "hostIP": self.node.address,
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
            "startTime": self.started,
            "containerStatuses": containers,
        }

    def tell(self, status):
        try:
            self.node.api.patch(f"{self.path}/status", {"status": status})
        except Refused as refused:
            if refused.status != 404:
                self.node.log(f"{self.name}: its status: {refused}")

    def stop(self):
        """Ends everything, and takes the object away."""
        threads = [threading.Thread(target=c.stop, args=[self.grace]) for c in self.containers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.sandbox:
            self.sandbox.kill()
            self.sandbox.wait()
        if self.link:
            subprocess.run(["ip", "link", "delete", self.link], stderr=subprocess.DEVNULL, check=False)
        shutil.rmtree(self.directory, ignore_errors=True)
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0}
        options["preconditions"] = {"uid": self.item["metadata"]["uid"]}
        try:
            self.node.api.ask("DELETE", self.path, options)
        except Refused as refused:
            if refused.status not in (404, 409):
                self.node.log(f"{self.name}: {refused}")

    def object(self, kind, name):
        """An object of its namespace, waited for."""
        while not self.leaving.is_set():
            found = self.node.api.get(f"/api/v1/namespaces/{self.namespace}/{kind}/{name}")
            if found:
                return found
            self.leaving.wait(0.2)
        raise ValueError(f"no {kind} {name}")

    def field(self, path):
        """A field by its path, as the downward API has them."""
        values = {
            "metadata.name": self.name,
            "metadata.namespace": self.namespace,
            "metadata.uid": self.item["metadata"]["uid"],
            "spec.nodeName": self.node.name,
            "spec.serviceAccountName": self.spec.get("serviceAccountName", "default"),
            "status.hostIP": self.node.address,
            "status.podIP": self.address,
        }
        chosen = re.fullmatch(r"metadata\.(annotations|labels)\['(.*)'\]", path)
        if chosen:
            return self.item["metadata"].get(chosen[1], {}).get(chosen[2], "")
        return values[path]

    def write_volume(self, volume):
        """Lays a volume out as files; where they are."""
        place = os.path.join(self.directory, "volumes", volume["name"])
        os.makedirs(place, exist_ok=True)
        os.chmod(place, 0o777)
        for name, content in self.files(volume):
            with open(os.path.join(place, name), "wb") as file:
                file.write(content)
        return place

    def files(self, volume):
        """Names and contents of what a volume begins with."""
        if "emptyDir" in volume:
            return
        if "configMap" in volume:
            kind, source, name = "configmaps", volume["configMap"], "name"
        elif "secret" in volume:
            kind, source, name = "secrets", volume["secret"], "secretName"
        elif "projected" in volume:
            for source in volume["projected"].get("sources") or []:
                if "serviceAccountToken" in source:
                    yield self.token(source["serviceAccountToken"])
                else:
                    yield from self.files({k: {**v, "secretName": v.get("name")} for k, v in source.items()})
            return
        elif "downwardAPI" in volume:
            for entry in volume["downwardAPI"].get("items") or []:
                yield entry["path"], self.field(entry["fieldRef"]["fieldPath"]).encode()
            return
        else:
            raise ValueError(f"a volume of no known kind: {volume}")
        collection = f"/api/v1/namespaces/{self.namespace}/{kind}/{source[name]}"
        found = self.node.api.get(collection) if source.get("optional") else self.object(kind, source[name])
        data = (found or {}).get("data") or {}
        chosen = {i["key"]: i["path"] for i in source["items"]} if source.get("items") else {k: k for k in data}
        for field, path in chosen.items():
            if field in data:
                text = data[field]
                yield path, base64.b64decode(text) if kind == "secrets" else text.encode()

    def token(self, wanted):
        account = self.spec.get("serviceAccountName", "default")
        path = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/{account}/token"
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        if wanted.get("audience"):
            asked["spec"]["audiences"] = [wanted["audience"]]
        return wanted["path"], self.node.api.ask("POST", path, asked)["status"]["token"].encode()


class Container:
    """A process that is started again when it ends, and the probes of it."""

    def __init__(self, pod, spec):
        self.pod = pod
        self.spec = spec
        self.name = spec["name"]
        self.ready = False
        self.restarts = 0
        self.process = None
        # Nothing starts once the end has begun.
        self.starting = threading.Lock()
        self.root = os.path.join(pod.directory, self.name)
        self.mounts = self.prepare()
        self.environment = self.variables()
        threading.Thread(target=self.keep, daemon=True).start()
        threading.Thread(target=self.watch, daemon=True).start()

    def status(self):
        running = self.process is not None and self.process.poll() is None
        state = {"running": {"startedAt": self.pod.started}} if running else {"waiting": {"reason": "CrashLoopBackOff"}}
        return {
            "name": self.name,
            "ready": self.ready and running,
            "started": running,
            "restartCount": self.restarts,
            "image": self.spec["image"],
            "imageID": self.spec["image"],
            "containerID": f"process://{self.pod.name}/{self.name}",
            "state": state,
        }

    def prepare(self):
        """Makes its root directory; what is to be mounted there."""
        image = self.spec["image"].rsplit("/", 1)[-1].split("@")[0].split(":")[0]
        program = os.path.join(self.pod.node.images, image)
        if not os.access(program, os.X_OK):
            raise ValueError(f"no image {program}")
        mounts = [(program, "/app")]
        for directory in SHARED:
            source = os.path.join("/", directory)
            if os.path.islink(source):
                os.makedirs(self.root, exist_ok=True)
                os.symlink(os.readlink(source), self.root + source)
            else:
                mounts.append((source, source))
        volumes = {volume["name"]: volume for volume in self.pod.spec.get("volumes") or []}
        for mount in self.spec.get("volumeMounts") or []:
            place = self.pod.write_volume(volumes[mount["name"]])
            path = mount["mountPath"].replace("/var/run/", "/run/")
            mounts.append((os.path.join(place, mount.get("subPath", "")), path))
        for source, target in mounts:
            target = self.root + target
            if os.path.isdir(source):
                os.makedirs(target, exist_ok=True)
            else:
                os.makedirs(os.path.dirname(target), exist_ok=True)
                open(target, "wb").close()
        os.makedirs(self.root + "/tmp", exist_ok=True)
        os.chmod(self.root + "/tmp", 0o777)
        os.makedirs(self.root + "/var", exist_ok=True)
        os.makedirs(self.root + "/run", exist_ok=True)
        os.symlink("/run", self.root + "/var/run")
        node = self.pod.node
        os.makedirs(self.root + "/etc", exist_ok=True)
        with open(self.root + "/etc/resolv.conf", "w", encoding="ascii") as file:
            search = f"{self.pod.namespace}.svc.{node.domain} svc.{node.domain} {node.domain}"
            file.write(f"nameserver {node.address}\nsearch {search}\noptions ndots:5\n")
        with open(self.root + "/etc/hosts", "w", encoding="ascii") as file:
            file.write(f"127.0.0.1 localhost\n{self.pod.address} {self.pod.name}\n")
        return mounts

    def variables(self):
        """Its environment."""
        found = {"PATH": "/usr/bin:/bin", "HOSTNAME": self.pod.name, "HOME": "/tmp"}
        found["KUBERNETES_SERVICE_HOST"], found["KUBERNETES_SERVICE_PORT"] = self.pod.node.service
        for entry in self.spec.get("env") or []:
            source = entry.get("valueFrom")
            if source is None:
                value = re.sub(
                    r"\$\(([A-Za-z0-9_.-]+)\)",
                    lambda match: found.get(match[1], match[0]),
                    entry.get("value", ""),
                )
            elif "fieldRef" in source:
                value = self.pod.field(source["fieldRef"]["fieldPath"])
            elif "secretKeyRef" in source:
                chosen = source["secretKeyRef"]
                value = base64.b64decode(self.pod.object("secrets", chosen["name"])["data"][chosen["key"]]).decode()
            elif "configMapKeyRef" in source:
                chosen = source["configMapKeyRef"]
                value = self.pod.object("configmaps", chosen["name"])["data"][chosen["key"]]
            else:
                raise ValueError(f"a variable from nowhere known: {entry}")
            found[entry["name"]] = value
        return found

    def start(self):
        security = {**self.pod.spec.get("securityContext", {}), **self.spec.get("securityContext", {})}
        user = security.get("runAsUser", 0)
        group = security.get("runAsGroup", user)
        lines = ["set -e", "mount --make-rprivate /"]
        lines += [f"mount --rbind '{source}' '{self.root}{target}'" for source, target in self.mounts]
        lines.append(f'exec {shutil.which("chroot")} --userspec={user}:{group} --groups={group} "$0" "$@"')
        command = self.spec.get("command") or ["/app"]
        inside = ["nsenter", f"--net=/proc/{self.pod.sandbox.pid}/ns/net", "unshare", "--mount"]
        place = os.path.join(self.pod.node.directory, "logs")
        os.makedirs(place, exist_ok=True)
        with open(os.path.join(place, f"{self.pod.name}.{self.name}.log"), "ab") as log:
            self.process = subprocess.Popen(
                [*inside, "sh", "-c", "\n".join(lines), self.root, *command, *(self.spec.get("args") or [])],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def keep(self):
        """Starts it, and again whenever it has ended."""
        while not self.pod.leaving.is_set():
            with self.starting:
                if self.pod.leaving.is_set():
                    return
                self.start()
            self.process.wait()
            if not self.pod.leaving.is_set():
                self.restarts += 1
                self.ready = False
                self.pod.node.log(f"{self.pod.name}: {self.name} ended with {self.process.returncode}")
            self.pod.leaving.wait(RESTART)

    def watch(self):
        """Asks whether it is ready, at first often. Nothing is done about one that does not live."""
        probe = self.spec.get("readinessProbe")
        if probe is None:
            self.ready = True
            return
        while not self.pod.leaving.is_set():
            self.ready = self.probe(probe)
            period = min(PERIOD, probe.get("periodSeconds", 10)) if self.ready else 0.1
            self.pod.leaving.wait(period)

    def port(self, port):
        """A number, whether it was given by number or by name."""
        if isinstance(port, int):
            return port
        return next(p["containerPort"] for p in self.spec["ports"] if p.get("name") == port)

    def probe(self, probe):
        timeout = probe.get("timeoutSeconds", 1)
        try:
            if "tcpSocket" in probe:
                address = (self.pod.address, self.port(probe["tcpSocket"]["port"]))
                socket.create_connection(address, timeout).close()
                return True
            if "httpGet" in probe:
                return 200 <= self.get(probe["httpGet"], timeout) < 400
        except (OSError, http.client.HTTPException):
            return False
        raise ValueError(f"a probe of no known kind: {probe}")

    def get(self, action, timeout):
        """The status that a request gets, as the kubelet sends it."""
        host, port = action.get("host") or self.pod.address, self.port(action["port"])
        headers = {"user-agent": "kube-probe/1.20"}
        headers.update((h["name"], h["value"]) for h in action.get("httpHeaders") or [])
        if action.get("scheme") == "HTTPS":
            tls = ssl.create_default_context()
            tls.check_hostname = False
            tls.verify_mode = ssl.CERT_NONE
            connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=tls)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=timeout)
        try:
            connection.request("GET", action.get("path", "/"), headers=headers)
            return connection.getresponse().status
        finally:
            connection.close()

    def stop(self, grace):
        """Lets it end in `grace` seconds, and makes it end then."""
        end = time.monotonic() + grace
        before = (self.spec.get("lifecycle") or {}).get("preStop") or {}
        if "httpGet" in before and grace > 0:
            try:
                self.get(before["httpGet"], grace)
            except (OSError, http.client.HTTPException):
                pass
        with self.starting:
            if self.process is None:
                return
        try:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(max(0, end - time.monotonic()))
        except ProcessLookupError:
            pass
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def call(*command):
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
