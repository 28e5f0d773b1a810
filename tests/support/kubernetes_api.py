"""An API server of Kubernetes with one StatefulSet: as much as Helm asks of it to look that up and to render."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_KINDS = {
    "v1": ["ConfigMap", "Service", "ServiceAccount"],
    "apps/v1": ["StatefulSet"],
    "autoscaling/v2": ["HorizontalPodAutoscaler"],
    "networking.k8s.io/v1": ["NetworkPolicy"],
    "policy/v1": ["PodDisruptionBudget"],
}


def _group(name_and_version: str) -> dict[str, Any]:
    name, _, version = name_and_version.rpartition("/")
    known = {"groupVersion": name_and_version, "version": version}
    return {"name": name, "versions": [known], "preferredVersion": known}


def _resource(kind: str) -> dict[str, Any]:
    plural = kind.lower().removesuffix("y") + ("ies" if kind.endswith("y") else "s")
    return {"name": plural, "singularName": kind.lower(), "namespaced": True, "kind": kind, "verbs": ["get"]}


_DISCOVERY: dict[str, Any] = {
    "/version": {"major": "1", "minor": "30", "gitVersion": "v1.30.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(name) for name in _KINDS if "/" in name]},
    **{
        f"/{'apis' if '/' in name else 'api'}/{name}": {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": name,
            "resources": [_resource(kind) for kind in kinds],
        }
        for name, kinds in _KINDS.items()
    },
}


@contextlib.contextmanager
def running(stateful_set: str, namespace: str, replicas: int) -> Iterator[list[str]]:
    """Serve the StatefulSet of a release of its name; gives the flags with which Helm asks this server."""
    paths = {
        **_DISCOVERY,
        f"/apis/apps/v1/namespaces/{namespace}/statefulsets/{stateful_set}": {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": {
                "name": stateful_set,
                "namespace": namespace,
                "labels": {"app.kubernetes.io/managed-by": "Helm"},
                "annotations": {"meta.helm.sh/release-name": stateful_set, "meta.helm.sh/release-namespace": namespace},
            },
            "spec": {"replicas": replicas},
        },
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            document = paths.get(self.path.partition("?")[0])
            body = json.dumps(document or {"kind": "Status", "apiVersion": "v1", "code": 404, "reason": "NotFound"})
            self.send_response(200 if document else 404)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            address = f"http://127.0.0.1:{server.server_port}"
            yield ["--dry-run=server", "--disable-openapi-validation", "--kube-apiserver", address]
        finally:
            server.shutdown()
            thread.join()
