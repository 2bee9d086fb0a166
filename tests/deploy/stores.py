"""Starts PostgreSQL and Redis as docker-compose.yml configures them, on loopback, and looks at what they grant."""

import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ruamel.yaml import YAML

import report
from replicas import free_port

ROOT = Path(__file__).resolve().parents[2]
SERVICES = YAML(typ="safe").load(ROOT / "docker-compose.yml")["services"]
POSTGRES_BIN, REDIS_SERVER = Path(sys.argv[1]), sys.argv[2]
# Short, because a socket's path is limited, and of a user that is not root, because PostgreSQL refuses root.
TMP = Path(tempfile.mkdtemp(prefix="posduif-stores-", dir="/tmp"))
OWNER = pwd.getpwnam("nobody") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
SECRETS = TMP / "secrets"
RUNNING = []


def as_owner(*command, **options):
    identity = {"user": OWNER.pw_uid, "group": OWNER.pw_gid, "extra_groups": []} if os.getuid() == 0 else {}
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **options.pop("env", {})}
    return subprocess.Popen([str(c) for c in command], cwd=TMP, env=environment, **identity, **options)


def output(*command, **options):
    process = as_owner(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.PIPE, text=True, **options)
    text, _ = process.communicate(timeout=60)
    return process.returncode, text.strip()


def start(*command):
    log = (TMP / f"{len(RUNNING)}.log").open("w")
    RUNNING.append(as_owner(*command, stdout=log, stderr=subprocess.STDOUT))


POSTGRES_PORT, REDIS_PORT = free_port(), free_port()


def psql(user, sql, database="tenant_1", options=""):
    """By TCP and password, as the services connect; by socket where `user` is the administrator."""
    host = TMP if user == "postgres" else "127.0.0.1"
    service = f"host={host} port={POSTGRES_PORT} user={user} dbname={database} {options}"
    password = {"PGPASSWORD": (SECRETS / "postgres_password").read_text()}
    return output("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql, service, env=password)


def init_secrets_creates_each_secret_once():
    folder = TMP / "docker"
    folder.mkdir()
    script = folder / "init-secrets.sh"
    shutil.copy(ROOT / "deploy/docker/init-secrets.sh", script)
    made = folder / "secrets"
    subprocess.run([script], check=True, capture_output=True, umask=0o002)
    first = {f.name: f.read_text() for f in made.iterdir()}
    assert sorted(first) == ["jwt_secret", "postgres_admin_password", "postgres_password", "redis_password"]
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in first.values()) and len(set(first.values())) == 4
    assert made.stat().st_mode & 0o777 == 0o700, "other users of the host can enter"
    assert all(f.stat().st_mode & 0o777 == 0o444 for f in made.iterdir()), "a container's user cannot read it"
    (made / "jwt_secret").unlink()
    subprocess.run([script], check=True, capture_output=True)
    second = {f.name: f.read_text() for f in made.iterdir()}
    assert second.pop("jwt_secret") != first.pop("jwt_secret") and second == first
    # The containers get the files alone, so the folder's mode does not concern them.
    made.rename(SECRETS)
    SECRETS.chmod(0o755)


def postgres_accepts_the_shipped_settings():
    data = TMP / "data"
    code, text = output(POSTGRES_BIN / "initdb", "-D", data, "-U", "postgres", "--auth-local=trust", "--auth-host=scram-sha-256")
    assert code == 0, text
    program, *flags = SERVICES["postgres"]["command"]
    assert program == "postgres"
    start(POSTGRES_BIN / "postgres", "-D", data, *flags, "-k", TMP, "-p", str(POSTGRES_PORT), "-clisten_addresses=127.0.0.1")
    report.eventually(lambda: psql("postgres", "SELECT 1", "postgres")[0] == 0, "PostgreSQL answers")
    assert psql("postgres", "SHOW wal_level", "postgres") == (0, "logical")
    assert psql("postgres", "SHOW max_slot_wal_keep_size", "postgres") == (0, "4GB")


def the_service_role_logs_in_by_password_and_replicates():
    assert psql("postgres", "CREATE DATABASE tenant_1", "postgres")[0] == 0
    sql = (ROOT / "deploy/docker/postgres/service-role.sql").read_text()
    assert "/run/secrets/" in sql
    file = TMP / "service-role.sql"
    file.write_text(sql.replace("/run/secrets/", f"{SECRETS}/"))
    where = f"host={TMP} port={POSTGRES_PORT} user=postgres dbname=tenant_1"
    code, text = output("psql", "-X", "-v", "ON_ERROR_STOP=1", "-f", file, where)
    assert code == 0, text
    assert psql("posduif", "SELECT current_user") == (0, "posduif")
    code, text = psql("posduif", "IDENTIFY_SYSTEM", options="replication=database")
    assert code == 0 and text.endswith("|tenant_1"), text
    code, text = psql("posduif", "SELECT pg_create_logical_replication_slot('s', 'pgoutput', true)")
    assert code == 0, text


def the_service_role_uses_what_migrations_create_and_changes_no_schema():
    created = """
        CREATE SCHEMA later; CREATE TABLE later.rows (id bigserial PRIMARY KEY, value text);
        CREATE TABLE messages (id bigserial PRIMARY KEY, value text); CREATE SEQUENCE later.token;
        CREATE PUBLICATION p FOR TABLE messages"""
    assert psql("postgres", created)[0] == 0
    for table in ("later.rows", "public.messages"):
        for sql in (f"INSERT INTO {table}(value) VALUES ('a')", f"UPDATE {table} SET value = 'b'", f"DELETE FROM {table}"):
            code, text = psql("posduif", sql)
            assert code == 0, text
    assert psql("posduif", "SELECT nextval('later.token')") == (0, "1")
    for sql in ("DROP TABLE messages", "ALTER PUBLICATION p DROP TABLE messages", "CREATE TABLE public.mine ()", "CREATE ROLE other"):
        code, text = psql("posduif", sql)
        assert code != 0 and ("must be owner" in text or "permission denied" in text), (sql, text)


def redis(*commands, authenticate=True):
    """Speaks to the server as the shipped health check does: the password goes by standard input."""
    lines = [f"AUTH {(SECRETS / 'redis_password').read_text()}"] * authenticate + list(commands)
    process = as_owner("redis-cli", "-p", str(REDIS_PORT), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return process.communicate("\n".join(lines) + "\n", timeout=30)[0].split("\n")


def redis_starts_by_the_shipped_command_and_keeps_what_it_holds():
    (script,) = SERVICES["redis"]["command"]
    shell, *options = SERVICES["redis"]["entrypoint"]
    for old, new in [
        ("$$", "$"),
        ("/run/secrets/", f"{SECRETS}/"),
        ("/run/valkey/", f"{TMP}/"),
        ("valkey-server /etc/valkey/valkey.conf", f"{REDIS_SERVER} {TMP}/valkey.conf --port {REDIS_PORT} --bind 127.0.0.1"),
    ]:
        assert old in script, f"{old!r} is no longer in the command"
        script = script.replace(old, new)
    config = (ROOT / "deploy/docker/valkey.conf").read_text()
    (TMP / "valkey.conf").write_text(config.replace("/run/valkey/", f"{TMP}/").replace("/data", str(TMP)))
    start(shell, *options, script)
    report.eventually(lambda: "PONG" in redis("PING"), "Redis answers")
    assert "NOAUTH" in redis("PING", authenticate=False)[0]
    got = redis(*(f"CONFIG GET {key}" for key in ("appendonly", "appendfsync", "maxmemory-policy", "save")))
    settings = dict(zip(got[1::2], got[2::2]))
    expected = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction", "save": ""}
    assert expected.items() <= settings.items(), settings
    assert (TMP / "auth.conf").stat().st_mode & 0o777 == 0o600


def the_health_check_of_redis_needs_the_right_password():
    kind, script = SERVICES["redis"]["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    script = script.replace("$$", "$").replace("valkey-cli", f"redis-cli -p {REDIS_PORT}")
    right = script.replace("/run/secrets/redis_password", f"{SECRETS}/redis_password")
    wrong = script.replace("/run/secrets/redis_password", f"{SECRETS}/jwt_secret")
    assert output("sh", "-c", right)[0] == 0
    assert output("sh", "-c", wrong)[0] == 1


def prepare():
    os.chown(TMP, OWNER.pw_uid, OWNER.pw_gid)


def stop():
    for process in RUNNING:
        process.terminate()
    for process in RUNNING:
        process.wait(timeout=30)
    shutil.rmtree(TMP, ignore_errors=True)


prepare()
try:
    report.run(
        init_secrets_creates_each_secret_once,
        postgres_accepts_the_shipped_settings,
        the_service_role_logs_in_by_password_and_replicates,
        the_service_role_uses_what_migrations_create_and_changes_no_schema,
        redis_starts_by_the_shipped_command_and_keeps_what_it_holds,
        the_health_check_of_redis_needs_the_right_password,
    )
finally:
    stop()
