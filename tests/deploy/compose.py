"""docker-compose.yml, its config and the build context in; what no schema can say about them out."""

import re
import subprocess
import tomllib
from pathlib import Path

from ruamel.yaml import YAML

import report

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = YAML(typ="safe").load(ROOT / "docker-compose.yml")
CONFIG = YAML(typ="safe").load(ROOT / "deploy/docker/config.yaml")
SERVICES = COMPOSE["services"]
OURS = {"ingester": "posduif-ingester", "api": "posduif-sync-api", "migrate": "posduif", "tool": "posduif"}


def only_the_balancer_publishes_a_port_and_leads_outside():
    assert [n for n, s in SERVICES.items() if "ports" in s] == ["balancer"]
    inside = {n for n, network in COMPOSE["networks"].items() if (network or {}).get("internal")}
    outside = [n for n, s in SERVICES.items() if not set(s["networks"]) <= inside]
    assert outside == ["balancer"], outside
    assert "data" not in SERVICES["balancer"]["networks"], "the balancer must not reach the stores"


def every_container_is_hardened_and_limited():
    for name, service in SERVICES.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"] and "cap_add" not in service, name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert {"memory", "pids"} <= service["deploy"]["resources"]["limits"].keys(), name
        assert "max-size" in service["logging"]["options"], name
        assert "restart" in service, name
        assert not service.get("privileged"), name


def every_image_has_a_version():
    for name, service in SERVICES.items():
        tag = service["image"].partition(":")[2]
        assert tag and tag != "latest", name


def api_can_be_scaled():
    assert "container_name" not in SERVICES["api"] and "ports" not in SERVICES["api"]


def services_start_after_migrations_and_healthy_stores():
    for name in ("ingester", "api"):
        needs = {n: c["condition"] for n, c in SERVICES[name]["depends_on"].items()}
        assert needs == {
            "postgres": "service_healthy",
            "redis": "service_healthy",
            "migrate": "service_completed_successfully",
        }, name


def each_container_holds_only_the_secrets_it_uses():
    holders = {}
    for name, service in SERVICES.items():
        for secret in service.get("secrets", []):
            holders.setdefault(secret, set()).add(name)
    assert holders == {
        "jwt_secret": {"api"},
        "postgres_admin_password": {"postgres"},
        "posduif_admin_password": {"postgres", "migrate", "tool"},
        "posduif_ingester_password": {"postgres", "ingester"},
        "posduif_api_password": {"postgres", "migrate", "tool", "api"},
        "redis_ingester_password": {"ingester"},
        "redis_api_password": {"api"},
        "redis_tool_password": {"redis", "migrate", "tool"},
        "redis_ingester_sha256": {"redis"},
        "redis_api_sha256": {"redis"},
        "redis_tool_sha256": {"redis"},
    }, holders
    # That init-secrets.sh makes just these, stores.py finds out by running it.
    assert holders.keys() == COMPOSE["secrets"].keys(), COMPOSE["secrets"]


def every_secret_file_that_is_named_is_mounted():
    for name, service in SERVICES.items():
        text = f"{service.get('environment')} {service.get('command')} {service.get('healthcheck')}"
        for secret in re.findall(r"/run/secrets/(\w+)", text):
            assert secret in service["secrets"], f"{name} does not mount {secret}"
    tenant = CONFIG["tenants"][0]
    for key, names in {
        "password_file": ("api", "migrate", "tool"),
        "ingester_password_file": ("ingester",),
        "admin_password_file": ("migrate", "tool"),
    }.items():
        for name in names:
            assert Path(tenant[key]).name in SERVICES[name]["secrets"], name


def each_service_logs_in_to_redis_as_its_own_user():
    for name, user in {"ingester": "ingester", "api": "api", "migrate": "tool", "tool": "tool"}.items():
        environment = SERVICES[name]["environment"]
        assert f"//posduif_{user}@" in environment["POSDUIF__REDIS__URL"], name
        assert environment["POSDUIF__REDIS__PASSWORD_FILE"] == f"/run/secrets/redis_{user}_password", name


def no_secret_stands_in_a_file_or_in_the_environment():
    for name, service in SERVICES.items():
        for key in service.get("environment") or {}:
            assert not re.search(r"PASSWORD$|SECRET$|TOKEN$", key), f"{name}: {key}"
    for path in ("docker-compose.yml", "deploy/docker/config.yaml"):
        for url in re.findall(r"\w+://\S+", (ROOT / path).read_text()):
            assert not re.search(r"//[^/@\s]*:[^/@\s]*@", url), f"{path}: {url}"
    ignored = subprocess.run(
        ["git", "-C", ROOT, "check-ignore", *(s["file"] for s in COMPOSE["secrets"].values())],
        capture_output=True, text=True,
    ).stdout.split()
    assert len(ignored) == len(COMPOSE["secrets"]), f"git ignores only {ignored}"


def the_log_fits_into_the_memory_of_redis():
    megabytes = int(re.search(r"^maxmemory (\d+)mb$", (ROOT / "deploy/docker/valkey.conf").read_text(), re.M)[1])
    payload = CONFIG["sync"]["retention"]["max_bytes"] * len(CONFIG["tenants"])
    assert payload * 4 / 3 < megabytes * 2**20, "the log would be halved under pressure instead of trimmed"


def every_file_that_is_mounted_or_built_exists():
    for config in COMPOSE["configs"].values():
        assert (ROOT / config["file"]).is_file(), config
    for name, package in OURS.items():
        dockerfile = ROOT / SERVICES[name]["build"]["dockerfile"]
        assert f"-p {package} " in dockerfile.read_text(), f"{name}: {dockerfile} builds another package"
        assert f'ENTRYPOINT ["{package}"]' in dockerfile.read_text(), name
    for name, service in SERVICES.items():
        for config in service.get("configs", []):
            assert config["source"] in COMPOSE["configs"], f"{name}: {config}"


def health_checks_ask_the_ports_that_the_config_binds():
    for image, key in (("ingester", "ingester_bind"), ("sync-api", "api_bind")):
        port = CONFIG["admin"][key].rpartition(":")[2]
        assert f'CMD ["healthcheck", "{port}"]' in (ROOT / f"deploy/docker/{image}.Dockerfile").read_text(), image
    balancer = (ROOT / "deploy/docker/haproxy.cfg").read_text()
    assert f"check port {CONFIG['admin']['api_bind'].rpartition(':')[2]} " in balancer
    assert f"api:{CONFIG['api']['bind'].rpartition(':')[2]}\n" in balancer


def config_has_only_keys_of_the_contract():
    allowed = {
        "tenants": {
            "id", "url", "password_file", "ingester_url", "ingester_password_file", "admin_url", "admin_password_file", "ca_file",
        },
        "api": {"bind", "public_url", "trusted_proxies"},
        "admin": {"ingester_bind", "api_bind"},
    }
    assert CONFIG.keys() <= allowed.keys() | {"redis", "sync", "auth", "rate_limit", "log"}, CONFIG.keys()
    for section, keys in allowed.items():
        for entry in CONFIG[section] if section == "tenants" else [CONFIG[section]]:
            assert entry.keys() <= keys, f"{section}: {entry.keys() - keys}"


def the_build_context_holds_all_that_cargo_reads():
    lines = [l for l in (ROOT / ".dockerignore").read_text().splitlines() if l and l[0] != "#"]
    assert lines[0] == "*", "an allow-list starts by leaving everything out"
    allowed = [ROOT / l[1:] for l in lines if l[0] == "!"]

    def inside(path):
        return any(path == a or a in path.parents for a in allowed)

    members = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["members"]
    for needed in ["Cargo.toml", "Cargo.lock", "deploy/docker/healthcheck.sh", *members]:
        assert inside(ROOT / needed), f"{needed} is not in the build context"
    tracked = ["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard", "*.rs"]
    for name in subprocess.run(tracked, check=True, capture_output=True, text=True).stdout.split():
        source = ROOT / name
        built = source.read_text().partition("#[cfg(test)]")[0] if "/tests/" not in f"/{name}" else ""
        for target in re.findall(r'include_(?:str|bytes)!\(\s*"([^"]+)"', built):
            file = (source.parent / target).resolve()
            assert inside(file), f"{name} includes {target}, which is not in the build context"
    assert not inside(ROOT / "deploy/docker/secrets/jwt_secret")


report.run(
    only_the_balancer_publishes_a_port_and_leads_outside,
    every_container_is_hardened_and_limited,
    every_image_has_a_version,
    api_can_be_scaled,
    services_start_after_migrations_and_healthy_stores,
    each_container_holds_only_the_secrets_it_uses,
    every_secret_file_that_is_named_is_mounted,
    each_service_logs_in_to_redis_as_its_own_user,
    no_secret_stands_in_a_file_or_in_the_environment,
    the_log_fits_into_the_memory_of_redis,
    every_file_that_is_mounted_or_built_exists,
    health_checks_ask_the_ports_that_the_config_binds,
    config_has_only_keys_of_the_contract,
    the_build_context_holds_all_that_cargo_reads,
)
