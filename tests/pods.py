"""A local Kubernetes with what Snakemake's executor needs: a pod is a process in an empty folder.

Claims are folders that pods see where they mount them. What a pod's image would have is the environment of the tests.
"""

import base64
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from servers import Local, Quiet

WORK = Path("/workdir")  # where the executor has its jobs run


@dataclass
class Cluster:
    """What was asked for, and the processes that run it."""

    folder: Path
    environment: dict[str, str]
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def configuration(self) -> Path:
        return self.folder / "kubeconfig.yaml"

    def create(self, job: dict[str, Any]) -> None:
        """Run the container of a job; raises KeyError or ValueError where a cluster would refuse it."""
        name, pod = job["metadata"]["name"], job["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        requests, limits = (container["resources"].get(key) or {} for key in ("requests", "limits"))
        if any(limits.get(key) != value for key, value in requests.items() if "/" in key):
            raise ValueError("an extended resource is requested without the same limit")
        work = self.folder / "pods" / name
        work.mkdir(parents=True)
        claims = {each["name"]: each.get("persistentVolumeClaim") for each in pod["volumes"]}
        for mount in container["volumeMounts"]:
            inside = Path(mount["mountPath"]).relative_to(WORK)
            if claim := claims[mount["name"]]:
                (work / inside).parent.mkdir(parents=True, exist_ok=True)
                (work / inside).symlink_to(self.claim(claim["claimName"]))
        environment = dict(self.environment)
        for each in container.get("env") or []:
            place = each["valueFrom"]["secretKeyRef"]
            environment[each["name"]] = base64.b64decode(self.secrets[place["name"]][place["key"]]).decode()
        self.jobs[name] = job
        with (self.folder / "pods" / f"{name}.log").open("wb") as log:
            command = [*container["command"], *container["args"]]
            self.running[name] = subprocess.Popen(
                command, cwd=work, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def claim(self, name: str) -> Path:
        place = self.folder / "claims" / name
        place.mkdir(parents=True, exist_ok=True)
        return place

    def logs(self) -> str:
        return "\n".join(path.read_text()[-4000:] for path in sorted((self.folder / "pods").glob("*.log")))


class Handler(Quiet):
    server: "Server"

    def handle_any(self) -> None:
        address = urlsplit(self.path)
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        *_, kind, name = f"{address.path.removesuffix('/status')}/".split("/namespaces/default/")[1].split("/", 2)[:2]
        status, answer = self.result(kind, name.rstrip("/"), parse_qs(address.query), json.loads(sent or b"{}"))
        body = json.dumps(answer).encode()
        self.start(status, len(body), Content_Type="application/json")
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = handle_any

    def result(self, kind: str, name: str, query: dict[str, list[str]], sent: dict[str, Any]) -> tuple[int, Any]:
        cluster = self.server.cluster
        if self.command == "DELETE":
            return 200, {"status": "Success"}
        if (self.command, kind) == ("POST", "secrets"):
            cluster.secrets[sent["metadata"]["name"]] = sent.get("data") or {}
            return 201, sent
        if (self.command, kind) == ("POST", "jobs"):
            try:
                cluster.create(sent)
            except (KeyError, ValueError) as error:
                return 422, {"status": "Failure", "message": str(error)}
            return 201, sent
        if kind == "pods":
            return 200, {"items": []}
        status = cluster.running[name].poll()
        counts = {} if status is None else {"failed": int(status != 0), "succeeded": int(status == 0)}
        return 200, {**cluster.jobs[name], "status": counts}


class Server(Local):
    cluster: Cluster


@contextmanager
def kubernetes(folder: Path, environment: dict[str, str]) -> Iterator[Cluster]:
    """Serve until the end of the block; then no pod is left.

    environment  of the processes in pods, as an image would give it
    """
    server = Server(Handler)
    server.cluster = Cluster(folder, environment)
    here = {"name": "here", "cluster": {"server": server.address}}
    context = {"name": "here", "context": {"cluster": "here", "user": "nobody"}}
    configuration = {"apiVersion": "v1", "kind": "Config", "current-context": "here", "clusters": [here]}
    configuration |= {"contexts": [context], "users": [{"name": "nobody", "user": {}}]}
    server.cluster.configuration.write_text(yaml.safe_dump(configuration))
    try:
        with server.running():
            yield server.cluster
    finally:
        for process in server.cluster.running.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
