# shellcheck shell=bash
# What the scripts need from the machine. Source it under `set -euo pipefail`.
#
# Every need_* function may be called again at no cost, says what it does when it does something, and starts nothing that is
# already there. What a function starts, the matching stop_* stops; what was running before is left alone.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
CACHE="${VANTAGE_CACHE:-$HOME/.cache/vantage}"
ENGINE="$CACHE/engine"
VENV="$ROOT/.venv"
PYTHON="$VENV/bin/python3"
mkdir -p "$CACHE"

say() { printf '==> %s\n' "$*"; }
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}
digest() { sha256sum | cut -c1-16; }

# --- packages -------------------------------------------------------------------------------------------------------

# need_apt PACKAGE...: install those that are missing.
need_apt() {
  local package missing=()
  if ! command -v dpkg-query >/dev/null; then
    die "these Debian packages are needed, and this is not a Debian system: $*. Install what they hold by other means."
  fi
  for package in "$@"; do
    if [[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" != installed ]]; then
      missing+=("$package")
    fi
  done
  ((${#missing[@]})) || return 0
  if ((EUID != 0)); then
    die "packages are missing; as root: apt-get install --no-install-recommends ${missing[*]}"
  fi
  say "installing ${missing[*]}"
  local log="$CACHE/apt.log"
  if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } \
    >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    die "apt-get could not install ${missing[*]}: see above and $log"
  fi
}

# need_command COMMAND PACKAGE...: install the packages only when the command is missing, wherever it came from.
need_command() {
  local command="$1"
  shift
  command -v "$command" >/dev/null || need_apt "$@"
}

# need_postgresql: the programs of the PostgreSQL server, which Debian keeps out of the path. Nothing is started.
need_postgresql() {
  command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || need_apt postgresql
}

# need_other_engines: what tests start beside the engine that they share: a second Docker with a bridge of its own, and Podman
# with the runtime and the init process of its containers. Nothing is started.
need_other_engines() {
  need_command dockerd docker.io
  need_command ip iproute2
  need_command podman podman
  need_command runc runc
  need_command catatonit catatonit
}

# need_proxies: the reverse proxies that stand in front of the server in tests.
need_proxies() {
  need_command nginx nginx-light
  need_command haproxy haproxy
}

# --- Python ---------------------------------------------------------------------------------------------------------

suitable_python() {
  local candidate
  for candidate in python3.11 python3 python3.12 python3.13 python3.14; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return 0
    fi
  done
  return 1
}

# need_python: .venv in the repository with this project and its development tools, renewed when pyproject.toml changes.
need_python() {
  local stamp="$VENV/.vantage-stamp" wanted python
  wanted="$(digest <"$ROOT/pyproject.toml")"
  if [[ -x "$PYTHON" && -f "$stamp" && "$(<"$stamp")" == "$wanted" ]]; then
    return 0
  fi
  if [[ ! -x "$PYTHON" ]]; then
    if ! python="$(suitable_python)"; then
      need_apt python3 python3-venv
      python="$(suitable_python)" || die "Python 3.11 or newer with the venv module is needed; $(python3 --version) is too old"
    fi
    say "creating .venv with $("$python" --version)"
    "$python" -m venv "$VENV"
  fi
  say "installing vantage and its development tools into .venv"
  (cd "$ROOT" && "$PYTHON" -m pip install -qq --disable-pip-version-check --editable '.[dev]') </dev/null
  printf '%s\n' "$wanted" >"$stamp"
}

# need_npm DIRECTORY: the Node.js packages of a directory that has a package.json.
need_npm() {
  local directory="$1" stamp="$1/node_modules/.vantage-stamp" wanted
  [[ -f "$directory/package.json" ]] || return 0
  need_command node nodejs
  need_command npm npm
  wanted="$(cat "$directory"/package*.json | digest)"
  if [[ -f "$stamp" && "$(<"$stamp")" == "$wanted" ]]; then
    return 0
  fi
  say "installing the Node.js packages of ${directory#"$ROOT"/}"
  local action=install
  [[ ! -f "$directory/package-lock.json" ]] || action=ci
  (cd "$directory" && npm "$action" --silent --no-audit --no-fund </dev/null)
  # Again, because npm may have written the lock file.
  cat "$directory"/package*.json | digest >"$stamp"
}

# --- Docker ---------------------------------------------------------------------------------------------------------

engine_started_here=false

engine_answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

# The process in our pid file, if it still is the engine that we started (a pid may have been given to another program since).
engine_pid() {
  local pid
  [[ -f "$ENGINE/dockerd.pid" ]] || return 1
  pid="$(<"$ENGINE/dockerd.pid")"
  tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF -- "--pidfile $ENGINE/dockerd.pid" || return 1
  printf '%s\n' "$pid"
}

# start_engine OPTION...: one attempt; true once the engine accepts calls, false when it gives up or the deadline passes.
start_engine() {
  local log="$ENGINE/dockerd.log" pid
  : >"$log"
  # Nine is the lock of need_engine: an engine that inherited it would hold it for as long as it runs.
  setsid dockerd --data-root "$ENGINE/data" --exec-root /run/vantage-engine --pidfile "$ENGINE/dockerd.pid" \
    --host unix:///var/run/docker.sock "$@" </dev/null >"$log" 2>&1 9>&- &
  pid=$!
  disown "$pid"
  if (set +o pipefail && timeout 60 tail -n +1 --pid="$pid" -f "$log" 2>/dev/null | grep -q -m1 'API listen on') &&
    engine_answers; then
    return 0
  fi
  kill "$pid" 2>/dev/null || true
  timeout 20 tail --pid="$pid" -f /dev/null || true
  return 1
}

# need_engine: a Docker engine that answers, started here when none does.
need_engine() {
  need_command docker docker.io
  engine_answers && return 0
  if [[ -n "${DOCKER_HOST:-}" ]]; then
    die "no Docker engine answers at DOCKER_HOST=$DOCKER_HOST. Start it, or unset DOCKER_HOST to have one started here."
  fi
  if ((EUID != 0)); then
    die "no Docker engine answers. Start one (as root: systemctl start docker, or scripts/setup --engine), join the group docker,
or set DOCKER_HOST to an engine that you may use (rootless Docker or Podman's API socket will do)."
  fi
  need_command dockerd docker.io
  need_command iptables iptables
  mkdir -p "$ENGINE"
  exec 9>"$ENGINE/lock"
  flock 9
  # Installing the package may have started it, and so may somebody else while we waited for the lock.
  if ! engine_answers; then
    say "starting a Docker engine (data in $ENGINE)"
    # Weaker kernels and containers lack NAT tables or overlayfs. Nothing here needs a container network.
    if ! start_engine && ! start_engine --iptables=false --bridge=none &&
      ! start_engine --iptables=false --bridge=none --storage-driver=vfs; then
      tail -n 15 "$ENGINE/dockerd.log" >&2
      exec 9>&-
      die "Docker does not start on this machine (log above and in $ENGINE/dockerd.log). Containers need root and a kernel with
namespaces and cgroups: use a virtual machine, or set DOCKER_HOST to an engine elsewhere on this machine."
    fi
    engine_started_here=true
  fi
  exec 9>&-
}

# stop_engine [--any]: stop the engine that this process started; with --any also one that an earlier run left running.
stop_engine() {
  local pid
  [[ "$engine_started_here" == true || "${1:-}" == --any ]] || return 0
  engine_started_here=false
  pid="$(engine_pid)" || return 0
  kill "$pid"
  timeout 60 tail --pid="$pid" -f /dev/null || die "the Docker engine (pid $pid) does not stop; see $ENGINE/dockerd.log"
}

# need_base_image: vantage/algorithm-base:latest, as the sources are now.
need_base_image() {
  need_python
  need_engine
  "$PYTHON" "$ROOT/scripts/lib/base_image.py" --cache "$CACHE"
}

# --- registry -------------------------------------------------------------------------------------------------------

registry_pid=""
REGISTRY_ADDRESS=""

# need_registry DIRECTORY: an OCI registry on a loopback port that the system picks; sets REGISTRY_ADDRESS.
need_registry() {
  local directory="$1" log="$1/registry.log"
  [[ -z "$registry_pid" ]] || return 0
  need_command docker-registry docker-registry
  mkdir -p "$directory/storage"
  cat >"$directory/registry.yml" <<YAML
version: 0.1
log: {level: info, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: "$directory/storage"}, delete: {enabled: true}}
http: {addr: "127.0.0.1:0"}
YAML
  : >"$log"
  OTEL_TRACES_EXPORTER=none docker-registry serve "$directory/registry.yml" </dev/null >"$log" 2>&1 &
  registry_pid=$!
  # shellcheck disable=SC2034  # the result: read by the caller
  if ! REGISTRY_ADDRESS="$(set +o pipefail && timeout 30 tail -n +1 --pid="$registry_pid" -f "$log" |
    grep -m1 -oP 'listening on \K127\.0\.0\.1:[0-9]+')"; then
    stop_registry
    die "the registry does not start: $(tail -n 3 "$log")"
  fi
}

stop_registry() {
  [[ -n "$registry_pid" ]] || return 0
  kill "$registry_pid" 2>/dev/null || true
  wait "$registry_pid" 2>/dev/null || true
  registry_pid=""
}
