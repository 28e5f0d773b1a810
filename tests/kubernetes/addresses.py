"""Addresses of the cluster, all in network namespaces of its own, so that any may be taken."""

#: The machine that has the control plane, the DNS and Kafka.
CONTROL_PLANE = "10.243.0.1"

API_SERVER = f"https://{CONTROL_PLANE}:6443"
PODS = "10.244.0.0/16"
SERVICES = "10.96.0.0/16"


def of_node(number: int) -> str:
    """Return the address of a node; nodes are counted from 1."""
    return f"10.243.0.{10 + number}"


def pods_of_node(number: int) -> str:
    """Return the network of the pods of a node."""
    return f"10.244.{number}.0/24"


def gateway_of_pods(number: int) -> str:
    """Return the address of a node in the network of its pods."""
    return f"10.244.{number}.1"
