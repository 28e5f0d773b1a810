"""Values that people install the chart with: each way of it that renders something else."""

from typing import Any

MONITORED: dict[str, Any] = {
    "metrics": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}, "interval": "15s"},
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
        "dashboards": {"enabled": True},
    }
}

CASES: dict[str, dict[str, Any]] = {
    "what is required": {},
    "tested and monitored": {**MONITORED, "test": {"table": "airlines", "key": "UA"}},
    "settings": {
        "settings": {
            "group": "shop",
            "memory_budget": 536870912,
            "shutdown_timeout": "1.5 m",
            "log_level": "debug",
        },
        "terminationGracePeriodSeconds": 120,
        "resources": {"limits": {"memory": "1G", "cpu": 2}},
    },
    "zone and secrets": {
        "zone": "eu-1a",
        "internalAuth": {"existingSecret": "between-workers", "existingSecretKey": "secrets"},
        "settings": {"schema_registry": "https://registry:8081", "shutdown_timeout": "25s"},
        "schemaRegistry": {
            "existingSecret": "registry",
            "userKey": "user",
            "passwordKey": "password",
        },
    },
    "a schema registry by token": {
        "settings": {"schema_registry": "https://registry:8081", "shutdown_timeout": "25s"},
        "schemaRegistry": {"existingSecret": "registry", "tokenKey": "token"},
    },
    "a login by password over TLS": {
        "kafka": {
            "bootstrapServers": "kafka:9093",
            "securityProtocol": "SASL_SSL",
            "sasl": {"mechanism": "SCRAM-SHA-512", "existingSecret": "kafka-login"},
            "tls": {"existingSecret": "kafka-tls"},
        }
    },
    "a login by token": {
        "kafka": {
            "bootstrapServers": "kafka:9093",
            "securityProtocol": "SASL_SSL",
            "sasl": {
                "mechanism": "OAUTHBEARER",
                "existingSecret": "kafka-client",
                "tokenUrl": "https://login.example.com/token?a=b",
                "scope": "kafka: read",
            },
        }
    },
    "certificates on both sides": {
        "kafka": {
            "bootstrapServers": "kafka:9093",
            "securityProtocol": "SSL",
            "tls": {"existingSecret": "kafka-tls", "clientCertificate": True, "keyPasswordKey": "password"},
        }
    },
    "every kind of table": {
        "tables": [
            {
                "name": "carriers_of_flights",
                "description": "Flights, by carrier and number: 'UA', \"1545\".",
                "version": 2,
                "source": {
                    "topic": "flights",
                    "key": {"format": "json", "fields": ["carrier", "flight"]},
                    "value": "json",
                    "partitioner": "crc32",
                },
                "columns": {"from": "origin", "to": "dest"},
            },
            {"name": "raw", "source": {"topic": "raw", "key": "bytes", "value": "bytes"}},
        ]
    },
    "a zone of a group": {
        "zone": "eu-1a",
        "settings": {"group": "shop.", "shutdown_timeout": "25s"},
        "podDisruptionBudget": {"wholeGroup": True},
        "test": {"table": "airlines", "key": "UA"},
    },
    "autoscaling": {"autoscaling": {"enabled": True, "minReplicas": 2, "maxReplicas": 8, "partitions": 8}},
    "no volumes": {"persistence": {"enabled": False}, "preStopSleepSeconds": 0, "replicaCount": 1},
    "bare": {
        "podDisruptionBudget": {"enabled": False},
        "networkPolicy": {"enabled": False},
        "serviceAccount": {"create": False},
        "topologySpreadConstraints": [],
        "resources": {"requests": None, "limits": None},
    },
    "closed network": {
        "networkPolicy": {
            "allowExternal": False,
            "extraIngress": [{"from": [{"podSelector": {"matchLabels": {"app": "other"}}}]}],
            "extraEgress": [{"ports": [{"port": 9092, "protocol": "TCP"}]}],
        },
        "test": {"table": "airlines", "key": "UA"},
    },
    "ingress": {
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "annotations": {"example.com/a": "b"},
            "hosts": ["tables.example.com", "rows.example.com"],
            "tls": [{"secretName": "tables", "hosts": ["tables.example.com"]}],
        },
        "service": {"type": "LoadBalancer", "port": 8080, "annotations": {"example.com/lb": "internal"}},
    },
    "names, image and labels": {
        "fullnameOverride": "rows",
        "commonLabels": {"team": "data", "release": "common", "grafana_dashboard": "0", "rows-client": "false"},
        "test": {"table": "airlines", "key": "UA"},
        "podLabels": {"tier": "back"},
        "podAnnotations": {"example.com/a": "b"},
        "clusterDomain": "k8s.example.com",
        "image": {
            "registry": "registry.example.com",
            "repository": "data/tablehouse",
            "digest": "sha256:" + "0123456789abcdef" * 4,
        },
        "imagePullSecrets": [{"name": "registry"}],
        "serviceAccount": {"name": "rows", "annotations": {"example.com/role": "rows"}},
        **MONITORED,
    },
    "placed": {
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "data", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [{"key": "arch", "operator": "In", "values": ["x"]}]}]
                }
            }
        },
        "priorityClassName": "high",
        "podManagementPolicy": "OrderedReady",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}},
        "persistence": {"size": "1Ti", "storageClass": "fast", "accessModes": ["ReadWriteOncePod"]},
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Delete"},
    },
    "extras": {
        "extraEnv": [
            {"name": "TZ", "value": "UTC"},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        ],
        "extraEnvFrom": [{"secretRef": {"name": "more"}}],
        "extraVolumes": [{"name": "scratch", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
        "extraObjects": [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": '{{ include "tablehouse.fullname" . }}-more'},
                "data": {"release": "{{ .Release.Name }}"},
            }
        ],
    },
}
