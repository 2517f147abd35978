#!/usr/bin/env bash
# Stop the cluster that up.sh made in SLAB_DIR.  Signals go to recorded
# pids only, and only while the pid still has the start tick noted at launch.
set -uo pipefail
DIR=${SLAB_DIR:-${TMPDIR:-/tmp}/projgan-slurm}
export SLURM_CONF=$DIR/etc/slurm.conf PATH=$PATH:/usr/sbin:/sbin
[ -f "$DIR/run/pids" ] || { echo "[down] nothing recorded in $DIR"; exit 0; }

same() {   # same PID TICK: still the process we started, and not a zombie
  local s; s=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  s=${s##*) }; set -- "$2" $s
  [ "$2" != Z ] && [ "${21}" = "$1" ]
}
stop() {   # stop PID TICK SECONDS
  same "$1" "$2" || return 0
  kill -TERM "$1" 2>/dev/null
  local k
  for ((k = 0; k < $3 * 10; k++)); do same "$1" "$2" || return 0; sleep 0.1; done
  echo "[down] $1 ignored TERM, KILL"; kill -KILL "$1" 2>/dev/null
  sleep 0.2
}
# pids of job steps and job processes of this cluster only: they carry both a
# SLURM_JOB_ID and this very SLURM_CONF, or are a slurmstepd with this SLURM_CONF
strays() {
  local p e
  for p in /proc/[0-9]*; do
    e=$( { tr '\0' '\n' <"$p/environ"; } 2>/dev/null) || continue
    grep -qxF "SLURM_CONF=$SLURM_CONF" <<<"$e" || continue
    if grep -q '^SLURM_JOB_ID=' <<<"$e" || [ "$(cat "$p/comm" 2>/dev/null)" = slurmstepd ]; then
      [ "${p#/proc/}" = "$$" ] || echo "${p#/proc/}"
    fi
  done
}

if timeout 5 scontrol ping 2>/dev/null | grep -q UP; then
  timeout 5 scancel --full --user="$(id -un)" >/dev/null 2>&1
  for _ in $(seq 50); do
    [ -z "$(timeout 5 squeue -h -o %i 2>/dev/null)" ] && break; sleep 0.1
  done
fi
# nodes first, then controller, database daemon, database, munge last
order() { awk '{r=9} $3~/^slurmd[0-9]/{r=1} $3=="slurmctld"{r=2} $3=="slurmdbd"{r=3} $3=="mariadbd"{r=4} $3=="munged"{r=5} {print r, $0}' "$DIR/run/pids" | sort -n; }
while read -r _ pid tick name; do
  stop "$pid" "$tick" 10
done < <(order)
left=$(strays)
if [ -n "$left" ]; then
  echo "[down] job processes left:" $left
  kill -TERM $left 2>/dev/null; sleep 1
  left=$(strays); [ -z "$left" ] || kill -KILL $left 2>/dev/null
fi
bad=0
while read -r _ pid tick name; do
  same "$pid" "$tick" && { echo "[down] $name ($pid) is still there"; bad=1; }
done < <(order)
[ $bad = 0 ] && rm -f "$DIR/run/pids"
echo "[down] stopped"
exit $bad
