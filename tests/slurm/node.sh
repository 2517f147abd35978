#!/usr/bin/env bash
# Failure drills on one simulated node of the cluster in SLAB_DIR.
#   node.sh crash  node3   power cut: SIGKILL slurmd, its slurmstepds and their job processes
#   node.sh agent  node3   SIGKILL slurmd only; the job keeps running unsupervised
#   node.sh freeze node3   SIGSTOP slurmd (node looks unreachable);  thaw undoes it
#   node.sh start  node3   start slurmd again and clear a DOWN/DRAIN mark
#   node.sh agent|start controller   the same for slurmctld
set -euo pipefail
DIR=${SLAB_DIR:-${TMPDIR:-/tmp}/projgan-slurm}; export SLURM_CONF=$DIR/etc/slurm.conf PATH=$PATH:/usr/sbin:/sbin
act=$1 node=$2 key=slurmd${2#node}
[ "$node" != controller ] || key=slurmctld
tick() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '{print $20}'; }
read -r pid t _ < <(awk -v k="$key" '$3 == k {l = $0} END {print l}' "$DIR/run/pids")
alive() { [ "$(tick "$pid")" = "$t" ]; }
steps() {   # stepds hold their node's log open; job processes name the node in their environment
  local p e
  for p in /proc/[0-9]*; do
    e=$( { tr '\0' '\n' <"$p/environ"; } 2>/dev/null) || continue
    grep -qxF "SLURM_CONF=$SLURM_CONF" <<<"$e" || continue
    if [ "$(cat "$p/comm" 2>/dev/null)" = slurmstepd ]; then
      ls -l "$p/fd" 2>/dev/null | grep -q "/slurmd-$node.log$" && echo "${p#/proc/}"
    elif grep -q '^SLURM_JOB_ID=' <<<"$e" && grep -qx "SLURMD_NODENAME=$node" <<<"$e"; then echo "${p#/proc/}"
    fi
  done
  return 0
}
case $act in
  crash)  alive && kill -KILL "$pid"
          # stepds first, so none of them lives to report the death of its tasks
          s=$(steps); for p in $s; do [ "$(cat "/proc/$p/comm" 2>/dev/null)" = slurmstepd ] && kill -STOP "$p" 2>/dev/null || true; done
          for p in $s; do kill -KILL "$p" 2>/dev/null || true; done; echo "killed $pid" $s ;;
  agent)  alive && kill -KILL "$pid"; echo "killed $pid" ;;
  freeze) alive && kill -STOP "$pid" ;;
  thaw)   alive && kill -CONT "$pid" ;;
  start)  if ! alive; then
            rm -f "$DIR/run/$key.p"
            run=(slurmd -D -N "$node")
            [ "$node" != controller ] || run=(slurmctld -D)
            setsid bash -c 'echo $$ >"$0.tmp"; mv "$0.tmp" "$0"; exec "$@"' "$DIR/run/$key.p" "${run[@]}" </dev/null >>"$DIR/log/$key.out" 2>&1 &
            for _ in $(seq 50); do [ -s "$DIR/run/$key.p" ] && break; sleep 0.1; done
            n=$(cat "$DIR/run/$key.p"); echo "$n $(tick "$n") $key" >>"$DIR/run/pids"
          fi
          for _ in $(seq 150); do
            if [ "$node" = controller ]; then timeout 5 scontrol ping | grep -q UP && exit 0; sleep 0.2; continue; fi
            s=$(sinfo -h -N -n "$node" -o %T | head -n 1)
            case $s in idle|mixed|allocated) echo "$node $s"; exit 0 ;; down|drained|draining) scontrol update nodename="$node" state=resume 2>/dev/null || true ;; esac
            sleep 0.2
          done; echo "$node still $s" >&2; exit 1 ;;
  *) echo "usage: $0 crash|agent|freeze|thaw|start nodeN" >&2; exit 2 ;;
esac
