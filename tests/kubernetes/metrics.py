"""A stand-in for metrics-server: it says how much CPU every worker uses, as a test wants it."""

import json
import ssl
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.kubernetes.addresses import CONTROL_PLANE
from tests.kubernetes.cluster import NAMESPACE, Cluster
from tests.kubernetes.release import Release
from tests.support.authority import Authority

_PORT = 4443
_GROUP = "metrics.k8s.io/v1beta1"
_API = "v1beta1.metrics.k8s.io"


class Metrics:
    """Serves the API for as long as it is entered."""

    def __init__(self, cluster: Cluster, release: Release, folder: Path) -> None:
        self._cluster = cluster
        self._release = release
        self._folder = folder
        self.millicores = 0

    def __enter__(self) -> Self:
        chain, key = Authority(self._folder / "metrics").certificate(CONTROL_PLANE)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain, key)
        self._server = ThreadingHTTPServer((CONTROL_PLANE, _PORT), self._handler())
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self._cluster.apply(*_objects())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Helm and kubectl ask every registered server what it has.
        self._cluster.kubectl("delete", "apiservice", _API)
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, path: str) -> dict[str, Any]:
        if not path.startswith(f"/apis/{_GROUP}/namespaces/"):
            resource = {"name": "pods", "singularName": "", "namespaced": True, "kind": "PodMetrics", "verbs": ["list"]}
            return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": _GROUP, "resources": [resource]}
        usage = {"cpu": f"{self.millicores}m", "memory": "100Mi"}
        items = [
            {
                "metadata": {"name": pod, "namespace": NAMESPACE},
                "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "window": "15s",
                "containers": [{"name": "worker", "usage": usage}],
            }
            for pod in self._release.pods()
        ]
        return {"kind": "PodMetricsList", "apiVersion": _GROUP, "metadata": {}, "items": items}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        metrics = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(metrics._answer(self.path)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler


def _objects() -> list[dict[str, Any]]:
    place = {"name": "metrics", "namespace": NAMESPACE}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": place, "spec": {"ports": [{"port": _PORT}]}}
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {**place, "labels": {"kubernetes.io/service-name": "metrics"}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": _PORT, "protocol": "TCP"}],
        "endpoints": [{"addresses": [CONTROL_PLANE], "conditions": {"ready": True}}],
    }
    registration = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": _API},
        "spec": {
            "group": "metrics.k8s.io",
            "version": "v1beta1",
            "service": {**place, "port": _PORT},
            "insecureSkipTLSVerify": True,
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
        },
    }
    return [service, endpoints, registration]
