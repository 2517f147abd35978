#!/usr/bin/env bash
# Installs what up.sh needs, on Debian and its kin: install.sh [dbd]. Exit status 1 where it cannot.
set -euo pipefail
want=(munge slurmctld slurmd slurm-client)
[ "${1:-}" = dbd ] && want+=(slurmdbd mariadb-server-core mariadb-client-core)
missing=()
for p in "${want[@]}"; do
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null || true)" = installed ] || missing+=("$p")
done
[ ${#missing[@]} -gt 0 ] || exit 0
command -v apt-get >/dev/null || { echo "install.sh: no apt-get here" >&2; exit 1; }
SUDO=; [ "$(id -u)" = 0 ] || SUDO="sudo -n"
apt() { $SUDO env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=180 "$@"; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT
{ apt update && apt install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 || { tail -n 5 "$log" >&2; exit 1; }
