"""Starts PostgreSQL and Redis as docker-compose.yml configures them, on loopback, and looks at what they grant."""

import hashlib
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
COMPOSE = YAML(typ="safe").load(ROOT / "docker-compose.yml")
SERVICES = COMPOSE["services"]
POSTGRES_BIN, REDIS_SERVER = Path(sys.argv[1]), sys.argv[2]
# Short, because a socket's path is limited, and of a user that is not root, because PostgreSQL refuses root.
TMP = Path(tempfile.mkdtemp(prefix="posduif-stores-", dir="/tmp"))
OWNER = pwd.getpwnam("nobody") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
SECRETS = TMP / "secrets"
RUNNING, COMMANDS = [], []


def as_owner(*command, **options):
    identity = {"user": OWNER.pw_uid, "group": OWNER.pw_gid, "extra_groups": []} if os.getuid() == 0 else {}
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **options.pop("env", {})}
    return subprocess.Popen([str(c) for c in command], cwd=TMP, env=environment, **identity, **options)


def output(*command, **options):
    process = as_owner(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.PIPE, text=True, **options)
    text, _ = process.communicate(timeout=60)
    return process.returncode, text.strip()


def start(*command):
    COMMANDS.append(command)
    log = (TMP / f"{len(COMMANDS)}.log").open("w")
    RUNNING.append(as_owner(*command, stdout=log, stderr=subprocess.STDOUT))


POSTGRES_PORT, REDIS_PORT = free_port(), free_port()


SECRET_NAMES = [
    "jwt_secret", "postgres_admin_password",
    "posduif_admin_password", "posduif_ingester_password", "posduif_api_password",
    "redis_ingester_password", "redis_api_password", "redis_tool_password",
]


def psql(user, sql, database="tenant_1", options=""):
    """By TCP and password, as the services connect; by socket where `user` is the administrator."""
    host = TMP if user == "postgres" else "127.0.0.1"
    service = f"host={host} port={POSTGRES_PORT} user={user} dbname={database} {options}"
    secret = SECRETS / f"{user}_password"
    password = {"PGPASSWORD": secret.read_text() if secret.exists() else ""}
    return output("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql, service, env=password)


def granted(user, sql, **options):
    code, text = psql(user, sql, **options)
    assert code == 0, (user, sql, text)
    return text


def denied(user, sql, **options):
    code, text = psql(user, sql, **options)
    assert code != 0 and re.search("permission denied|must be (owner|superuser)|must have", text), (user, sql, text)


def init_secrets_creates_each_secret_once():
    folder = TMP / "docker"
    folder.mkdir()
    script = folder / "init-secrets.sh"
    shutil.copy(ROOT / "deploy/docker/init-secrets.sh", script)
    made = folder / "secrets"
    subprocess.run([script], check=True, capture_output=True, umask=0o002)
    first = {f.name: f.read_text() for f in made.iterdir()}
    hashes = {f"redis_{user}_sha256" for user in ("ingester", "api", "tool")}
    assert first.keys() == set(SECRET_NAMES) | hashes == COMPOSE["secrets"].keys(), first.keys()
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in first.values()) and len(set(first.values())) == len(first)
    assert made.stat().st_mode & 0o777 == 0o700, "other users of the host can enter"
    assert all(f.stat().st_mode & 0o777 == 0o444 for f in made.iterdir()), "a container's user cannot read it"
    for user in ("ingester", "api", "tool"):
        password = first[f"redis_{user}_password"].encode()
        assert first[f"redis_{user}_sha256"] == hashlib.sha256(password).hexdigest(), user
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


def the_shipped_script_makes_roles_and_database_and_can_be_repeated():
    """As the image runs it: in the tenant's database, which the image has made as the administrator's."""
    assert psql("postgres", "CREATE DATABASE tenant_1", "postgres")[0] == 0
    (init,) = [c for c in SERVICES["postgres"]["configs"] if c["target"].startswith("/docker-entrypoint-initdb.d/")]
    text = (ROOT / COMPOSE["configs"][init["source"]]["file"]).read_text()
    for config in SERVICES["postgres"]["configs"]:
        text = text.replace(config["target"], str(ROOT / COMPOSE["configs"][config["source"]]["file"]))
    # The owner of the server need not be able to read this checkout.
    scripts = TMP / "postgres"
    shutil.copytree(ROOT / "deploy/postgres", scripts)
    file = TMP / "init.sql"
    file.write_text(text.replace(str(ROOT / "deploy/postgres"), str(scripts)))
    assert granted("postgres", "ALTER SYSTEM SET log_statement = 'all'", database="postgres") == ""
    assert granted("postgres", "SELECT pg_reload_conf()", database="postgres") == "t"
    where = f"host={TMP} port={POSTGRES_PORT} user=postgres dbname=tenant_1"
    for _ in range(2):
        code, said = output("psql", "-X", "-v", "ON_ERROR_STOP=1", "-f", file, where, env={"POSDUIF_SECRETS": str(SECRETS)})
        assert code == 0, said
        assert not any((SECRETS / name).read_text() in said for name in SECRET_NAMES), "a password was shown"
    code, said = output("psql", "-X", "-v", "ON_ERROR_STOP=1", "-f", file, where, env={"POSDUIF_SECRETS": str(TMP)})
    assert code != 0 and "password files are missing" in said, said
    log = "".join(f.read_text() for f in TMP.glob("*.log"))
    assert "DO $tenant$" in log, "the log is not where it is looked for"
    assert not any((SECRETS / name).read_text() in log for name in SECRET_NAMES), "a password stands in the server's log"


def each_role_logs_in_by_password_and_only_the_ingester_replicates():
    for role in ("posduif_admin", "posduif_ingester", "posduif_api"):
        assert granted(role, "SELECT current_user") == role
        attributes = "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls FROM pg_roles WHERE rolname = current_user"
        assert granted(role, attributes) == "f", role
    assert granted("posduif_ingester", "IDENTIFY_SYSTEM", options="replication=database").endswith("|tenant_1")
    granted("posduif_ingester", "SELECT pg_create_logical_replication_slot('s', 'pgoutput', true)")
    for role in ("posduif_admin", "posduif_api"):
        code, _ = psql(role, "IDENTIFY_SYSTEM", options="replication=database")
        assert code != 0, f"{role} replicates"
        denied(role, "SELECT pg_create_logical_replication_slot('s', 'pgoutput', true)")


def only_the_owner_makes_anything_and_nobody_has_rights_that_were_not_granted():
    created = """
        CREATE SCHEMA later; CREATE TABLE later.rows (id bigserial PRIMARY KEY, value text);
        CREATE TABLE messages (id bigserial PRIMARY KEY, value text); CREATE PUBLICATION p FOR TABLE messages"""
    granted("posduif_admin", created)
    for role in ("posduif_ingester", "posduif_api"):
        for sql in (
            "SELECT FROM messages", "INSERT INTO messages(value) VALUES ('a')", "SELECT FROM later.rows",
            "DROP TABLE messages", "ALTER PUBLICATION p DROP TABLE messages", "CREATE TABLE public.mine ()",
            "CREATE TEMP TABLE mine ()", "CREATE SCHEMA mine", "CREATE ROLE other", "SELECT FROM pg_authid",
            "ALTER SYSTEM SET work_mem = '1MB'", "COPY messages TO PROGRAM 'true'", "SET ROLE posduif_admin",
        ):
            denied(role, sql)
    granted("postgres", "CREATE ROLE stranger LOGIN PASSWORD 'x'")
    code, text = output("psql", "-X", "-c", "SELECT 1", f"host=127.0.0.1 port={POSTGRES_PORT} user=stranger dbname=tenant_1", env={"PGPASSWORD": "x"})
    assert code != 0 and "permission denied for database" in text, text


def redis(*commands, user="tester"):
    """Speaks to the server as the shipped health check does: the password goes by standard input."""
    secret = SECRETS / f"redis_{user}_password"
    name, password = (f"posduif_{user}", secret.read_text()) if secret.exists() else (user, "test")
    lines = [f"AUTH {name} {password}"] * (user is not None) + list(commands)
    process = as_owner("redis-cli", "-p", str(REDIS_PORT), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return process.communicate("\n".join(lines) + "\n", timeout=30)[0].split("\n")


def redis_starts_by_the_shipped_command_with_its_settings():
    (script,) = SERVICES["redis"]["command"]
    shell, *options = SERVICES["redis"]["entrypoint"]
    for old, new in [
        ("$$", "$"),
        ("/run/secrets/", f"{SECRETS}/"),
        ("/run/valkey/", f"{TMP}/"),
        ("/etc/valkey/users.list", f"{TMP}/users.list"),
        ("valkey-server /etc/valkey/valkey.conf", f"{REDIS_SERVER} {TMP}/valkey.conf --port {REDIS_PORT} --bind 127.0.0.1"),
    ]:
        assert old in script, f"{old!r} is no longer in the command"
        script = script.replace(old, new)
    users = (ROOT / "deploy/redis/users.acl").read_text()
    if re.search(r"v=7\.0\.", output(REDIS_SERVER, "--version")[1]):
        assert "+waitaof" in users
        users = users.replace(" +waitaof", "")
    # Somebody who may look at settings, too.
    tester = hashlib.sha256(b"test").hexdigest()
    (TMP / "users.list").write_text(f"{users}\nuser tester on #{tester} ~* &* +@all\n")
    config = (ROOT / "deploy/docker/valkey.conf").read_text()
    (TMP / "valkey.conf").write_text(config.replace("/run/valkey/", f"{TMP}/").replace("/data", str(TMP)))
    start(shell, *options, script)
    report.eventually(lambda: "PONG" in redis("PING"), "Redis answers")
    assert "NOAUTH" in redis("PING", user=None)[0]
    got = redis(*(f"CONFIG GET {key}" for key in ("appendonly", "appendfsync", "maxmemory-policy", "save")))
    settings = dict(zip(got[1::2], got[2::2]))
    expected = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction", "save": ""}
    assert expected.items() <= settings.items(), settings
    assert (TMP / "users.acl").stat().st_mode & 0o777 == 0o600
    default = redis("ACL GETUSER default")
    assert "off" in default and "nopass" not in default, default


def the_users_of_redis_log_in_and_reach_nothing_else():
    for user in ("ingester", "api", "tool"):
        assert redis("PING", user=user)[:2] == ["OK", "PONG"], user
        for command in ("GET other", "FLUSHALL", "CONFIG GET maxmemory", "KEYS *", "ACL LIST", "SHUTDOWN", "MONITOR"):
            assert "NOPERM" in redis(command, user=user)[1], (user, command)
    assert "OK" in redis("SET posduif:x 1", user="ingester") and "NOPERM" in redis("DEL posduif:x", user="api")[1]
    assert "NOPERM" in redis("SET posduif:x 1", user="tool")[1]


def what_redis_holds_is_there_after_a_restart():
    """A script is a transaction in the append-only file, which a disabled user without rights would not be allowed to read."""
    assert "OK" in redis("EVAL \"redis.call('SET', KEYS[1], 1); return redis.call('SET', KEYS[2], 2)\" 2 posduif:a posduif:b", user="ingester")
    process, command = RUNNING.pop(), COMMANDS[-1]
    process.terminate()
    process.wait(timeout=30)
    start(*command)
    report.eventually(lambda: "PONG" in redis("PING"), "Redis answers again")
    assert redis("GET posduif:b", user="ingester")[1] == "2"


def the_health_check_of_redis_needs_the_right_password():
    kind, script = SERVICES["redis"]["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    script = script.replace("$$", "$").replace("valkey-cli", f"redis-cli -p {REDIS_PORT}")
    right = script.replace("/run/secrets/redis_tool_password", f"{SECRETS}/redis_tool_password")
    wrong = script.replace("/run/secrets/redis_tool_password", f"{SECRETS}/jwt_secret")
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
        the_shipped_script_makes_roles_and_database_and_can_be_repeated,
        each_role_logs_in_by_password_and_only_the_ingester_replicates,
        only_the_owner_makes_anything_and_nobody_has_rights_that_were_not_granted,
        redis_starts_by_the_shipped_command_with_its_settings,
        the_users_of_redis_log_in_and_reach_nothing_else,
        what_redis_holds_is_there_after_a_restart,
        the_health_check_of_redis_needs_the_right_password,
    )
finally:
    stop()
