"""Network policies, evaluated: exactly the flows that the parts need are open."""

from __future__ import annotations

from urllib.parse import urlsplit

from tests.helpers.kubernetes_manifests import APPLIED, JOBS, load, pods

OBJECTS = load(*APPLIED)
POLICIES = [found["spec"] for found in OBJECTS if found["kind"] == "NetworkPolicy"]
PORTS = (443, 5000, 5432, 6379, 8265, 8333, 8888, 9333)
OPERATORS = (  # by Helm, by kustomize; pods of other Ray clusters share the latter's name
    {"app.kubernetes.io/name": "kuberay-operator"},
    {"app.kubernetes.io/name": "kuberay", "app.kubernetes.io/component": "kuberay-operator"},
)


def parts() -> dict[str, dict[str, str]]:
    """Labels of each kind of pod."""
    found = {}
    for name, pod in pods(load(*APPLIED, *JOBS)):
        labels = pod["metadata"]["labels"]
        found[labels["app.kubernetes.io/component"] + ("-head" if "head" in name else "")] = labels
    return found


def selects(selector: dict, labels: dict[str, str]) -> bool:
    """Whether a label selector matches."""
    assert selector.keys() <= {"matchLabels"}
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def opens(rule: dict, peers: str, other: dict[str, str], port: int, inside: bool) -> bool:
    """Whether one rule lets a port of or to another pod, inside the namespace or not, pass."""
    if "ports" in rule and port not in [entry["port"] for entry in rule["ports"]]:
        return False
    return peers not in rule or any(
        selects(peer["podSelector"], other) and (peer.get("namespaceSelector") == {} or inside)
        for peer in rule[peers]
        if "kubernetes.io/metadata.name" not in str(peer.get("namespaceSelector"))
    )


def passes(way: str, labels: dict[str, str], other: dict[str, str], port: int, inside=True) -> bool:
    """Whether any policy of a pod lets it send (Egress) or receive (Ingress)."""
    peers = {"Egress": "to", "Ingress": "from"}[way]
    ours = [one for one in POLICIES if selects(one["podSelector"], labels)]
    assert any(way in one["policyTypes"] for one in ours)
    rules = [rule for one in ours if way in one["policyTypes"] for rule in one.get(way.lower(), [])]
    return any(opens(rule, peers, other, port, inside) for rule in rules)


def test_exactly_the_flows_that_are_used_are_open() -> None:
    kinds = parts()
    assert kinds.keys() == {"postgres", "s3", "buckets", "mlflow", "ray", "ray-head", "submitter"}
    open_flows = {
        (source, target, port)
        for source, sender in kinds.items()
        for target, receiver in kinds.items()
        for port in PORTS
        if passes("Egress", sender, receiver, port) and passes("Ingress", receiver, sender, port)
    }
    ray = ("ray", "ray-head")
    expected = {(source, target, port) for source in ray for target in ray for port in PORTS}
    expected |= {(source, "s3", 8333) for source in (*ray, "buckets", "mlflow")}
    expected |= {(source, "mlflow", 5000) for source in ray}
    expected |= {("mlflow", "postgres", 5432), ("submitter", "ray-head", 8265)}
    assert open_flows == expected


def test_from_outside_only_the_operator_reaches_the_head() -> None:
    others = {"app.kubernetes.io/name": "kuberay", "ray.io/node-type": "head"}
    strangers = [*OPERATORS, {}, others, {"app.kubernetes.io/component": "ray"}]
    reached = {
        (number, target, port)
        for number, stranger in enumerate(strangers)
        for target, labels in parts().items()
        for port in PORTS
        if passes("Ingress", labels, stranger, port, inside=False)
    }
    assert reached == {(0, "ray-head", 8265), (1, "ray-head", 8265)}


def test_every_pod_may_ask_for_names_and_nothing_is_open_by_default() -> None:
    by_name = {
        found["metadata"]["name"]: found["spec"]
        for found in OBJECTS
        if found["kind"] == "NetworkPolicy"
    }
    closed = by_name["deny-by-default"]
    assert closed == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    names = by_name["dns"]
    assert names["podSelector"] == {}
    assert {entry["port"] for entry in names["egress"][0]["ports"]} == {53}


def test_addresses_in_the_settings_are_those_of_services() -> None:
    services = {
        found["metadata"]["name"]: found["spec"]["ports"][0]["port"]
        for found in OBJECTS
        if found["kind"] == "Service"
    }
    (config,) = [found["data"] for found in OBJECTS if found["kind"] == "ConfigMap"]
    for setting in ("AWS_ENDPOINT_URL", "MLFLOW_TRACKING_URI"):
        address = urlsplit(config[setting])
        assert services[address.hostname] == address.port
    assert services["postgres"] == 5432
