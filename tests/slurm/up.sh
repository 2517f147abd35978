#!/usr/bin/env bash
# Bring up a private loopback-only SLURM cluster (munged, slurmctld, N x slurmd)
# inside one directory.  Safe to call again: a healthy cluster is left alone and
# a half-dead one is torn down and rebuilt.
#
# Needs no root, no systemd, no cgroups; the packages of install.sh.
#
#   SLAB_DIR    where everything lives            (<system temp>/projgan-slurm)
#               munge wants every folder above it open to all (mode 755)
#   SLAB_NODES  number of simulated nodes         (4)
#   SLAB_CPUS   CPUs each node claims             (2)
#   SLAB_GPUS   fake GPUs each node claims        (2; 0..8)
#   SLAB_MEM    MB of memory each node claims     (2000)
#   SLAB_PORT   first TCP port of a block         (16817)
#   SLAB_ACCT   none | dbd                        (none)
#               dbd : mariadbd + slurmdbd, so that sacct works
#   SLAB_WAIT   seconds allowed for each daemon   (30)
#   SLAB_NODE_TIMEOUT  seconds of silence before a node is DOWN (20)
#   SLAB_BIND_ANY  1: listen on every interface, for hosts whose name is not 127.0.0.1 (0)
#   SLAB_EXTRA  extra slurm.conf lines; a later value wins
#   SLAB_KEEP   1: keep jobs and state of an earlier run (0)
#
# Afterwards:  . "$SLAB_DIR/env.sh"
set -euo pipefail

DIR=${SLAB_DIR:-${TMPDIR:-/tmp}/projgan-slurm}
NODES=${SLAB_NODES:-4}
CPUS=${SLAB_CPUS:-2}
GPUS=${SLAB_GPUS:-2}
MEM=${SLAB_MEM:-2000}
PORT=${SLAB_PORT:-16817}
ACCT=${SLAB_ACCT:-none}
WAIT=${SLAB_WAIT:-30}
KEEP=${SLAB_KEEP:-0}
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
HOST=$(hostname -s)
ME=$(id -un)
export PATH=$PATH:/usr/sbin:/sbin

say() { printf '[up %5.1fs] %s\n' "$(bc_elapsed)" "$*"; }
bc_elapsed() { local n; n=$(date +%s%N); echo "$(( (n - T0) / 1000000000 )).$(( ((n - T0) / 100000000) % 10 ))"; }
T0=$(date +%s%N)
die() {
  say "FAILED: $*"
  for f in "$DIR"/log/*.log "$DIR"/log/*.out; do
    [ -s "$f" ] && { echo "--- tail of $f"; tail -n 15 "$f"; }
  done
  SLAB_DIR=$DIR "$HERE/down.sh" || true
  exit 1
}
# poll SECONDS command...   (every 0.1 s; gives up early once a daemon has died)
poll() {
  local end=$(( $(date +%s) + $1 )) pid tick name; shift
  until "$@" >/dev/null 2>&1; do
    [ "$(date +%s)" -lt "$end" ] || return 1
    while read -r pid tick name; do
      [ -d "/proc/$pid" ] || { say "$name exited early"; return 1; }
    done < <(cat "$DIR/run/pids" 2>/dev/null)
    sleep 0.1
  done
}
case $ACCT in dbd|none) ;; *) echo "SLAB_ACCT must be none or dbd" >&2; exit 2;; esac
case $DIR in /*) ;; *) echo "SLAB_DIR must be absolute" >&2; exit 2;; esac

# With NoInAddrAny every daemon, and srun, binds to whatever the host name
# resolves to.  127.0.0.1 is what we want; another 127.x address breaks srun
# (its peers come from 127.0.0.1); an interface address works but is exposed.
if [ "${SLAB_BIND_ANY:-0}" = 1 ]; then
  ADDR=127.0.0.1 COMM=
else
  ADDR=$(getent ahostsv4 "$HOST" | awk 'NR == 1 {print $1}' || true)
  COMM=CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
  case $ADDR in
    127.0.0.1) ;;
    ''|127.*) say "FAILED: '$HOST' resolves to '${ADDR:-nothing}'; put '127.0.0.1 $HOST' first in /etc/hosts, or set SLAB_BIND_ANY=1"; exit 1 ;;
    *) say "note: '$HOST' is $ADDR, so the ports are not on loopback" ;;
  esac
fi

# ---------------------------------------------------------------- one at a time
mkdir -p "$DIR"; chmod 755 "$DIR"
exec 9>"$DIR/.lock"
flock -w 120 9 || { echo "another up.sh holds $DIR/.lock" >&2; exit 1; }

export SLURM_CONF=$DIR/etc/slurm.conf
ready() {   # every node up and none of them in trouble
  local n
  n=$(timeout 5 sinfo -h -N -o '%N %T' 2>/dev/null |
      awk '$2 ~ /^(idle|mixed|allocated|completing)$/' | sort -u | wc -l)
  [ "$n" = "$NODES" ]
}
intact() {   # the newest process recorded under each name is still the one we started
  local pid tick name
  while read -r pid tick name; do
    [ "$(sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null | awk '$1 != "Z" {print $20}')" = "$tick" ] || return 1
  done < <(awk '{l[$3] = $0} END {for (n in l) print l[n]}' "$DIR/run/pids")
}
sig="$NODES/$CPUS/$GPUS/$MEM/$PORT/$ACCT/${SLAB_NODE_TIMEOUT:-20}/${SLAB_BIND_ANY:-0}/$(printf %s "${SLAB_EXTRA:-}" | cksum | tr -d ' ')"
if [ -s "$DIR/run/pids" ]; then
  if [ "$(cat "$DIR/run/signature" 2>/dev/null)" = "$sig" ] && intact && ready; then
    say "already up"; exit 0
  fi
  say "left-overs found, stopping them first"
  SLAB_DIR=$DIR "$HERE/down.sh" 9>&-
fi
[ "$KEEP" = 1 ] || rm -rf "$DIR/state" "$DIR/spool" "$DIR/db" "$DIR/jobcomp.log"
rm -rf "$DIR/log" "$DIR/run" "$DIR/etc"
mkdir -p "$DIR"/{etc,run,log,state,spool}
chmod 700 "$DIR/run" ; chmod 755 "$DIR/run"
echo "$sig" >"$DIR/run/signature"
: >"$DIR/run/pids"

# start NAME command...: the process writes its own pid, so it is exact even
# when setsid forks; stdin and the lock are closed so no pipe is held open.
start() {
  local name=$1; shift
  rm -f "$DIR/run/$name.p"
  setsid bash -c 'echo $$ >"$0.tmp"; mv "$0.tmp" "$0"; exec "$@"' "$DIR/run/$name.p" "$@" \
    </dev/null >"$DIR/log/$name.out" 2>&1 9>&- &
  poll 10 test -s "$DIR/run/$name.p" || die "$name did not start"
  local pid; pid=$(cat "$DIR/run/$name.p")
  # pid + kernel start tick: slurm_down never signals a recycled pid
  local tick; tick=$(sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null | awk '{print $20}' || true)
  echo "$pid ${tick:-0} $name" >>"$DIR/run/pids"
}

# ---------------------------------------------------------------- configuration
hi=$((PORT + 9 + NODES))
if [ "$GPUS" -gt 0 ]; then
  devs=(/dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty /dev/ptmx /dev/console)
  files=$(IFS=,; echo "${devs[*]:0:$GPUS}")
  echo "Name=gpu Type=fake File=$files Flags=nvidia_gpu_env" >"$DIR/etc/gres.conf"
  gres=" Gres=gpu:fake:$GPUS"
else
  gres=
fi
case $ACCT in
  dbd) acct="AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=$ADDR
AccountingStoragePort=$((PORT + 2))
# clients reach slurmdbd through this munge socket (AuthInfo is not used there)
AccountingStoragePass=$DIR/run/munge.sock
AccountingStorageTRES=gres/gpu" ;;
  *)   acct="AccountingStorageType=accounting_storage/none" ;;
esac
cat >"$DIR/etc/slurm.conf" <<CONF
ClusterName=lab
SlurmctldHost=$HOST($ADDR)
SlurmUser=$ME
SlurmdUser=$ME
AuthType=auth/munge
CredType=cred/munge
# cred_expire also sets how long a requeued job sits in PENDING(BeginTime); stock is 120 s.
# Keep it well above KillWait or the new copy meets the old one still dying ("Duplicate jobid").
AuthInfo=socket=$DIR/run/munge.sock,cred_expire=8
$COMM
SlurmctldPort=$PORT
SlurmctldPidFile=$DIR/run/slurmctld.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
StateSaveLocation=$DIR/state
SlurmdPidFile=$DIR/run/slurmd-%n.pid
SlurmdLogFile=$DIR/log/slurmd-%n.log
SlurmdSpoolDir=$DIR/spool/%n
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobCompType=jobcomp/filetxt
JobCompLoc=$DIR/jobcomp.log
$acct
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=5,sched_interval=5,batch_sched_delay=0,sched_min_interval=0
SlurmctldParameters=preempt_send_user_signal
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
MinJobAge=86400
# a fresh cluster never counts from job 1 again: files of an older one's jobs may still lie about
FirstJobId=$(( ($(date +%s) % 6000000) * 10 + 1 ))
MaxJobCount=20000
KillWait=2
CompleteWait=0
SlurmctldTimeout=30
SlurmdTimeout=${SLAB_NODE_TIMEOUT:-20}
ReturnToService=1
InactiveLimit=0
$([ -n "$gres" ] && echo GresTypes=gpu)
NodeName=node[1-$NODES] NodeHostname=$HOST NodeAddr=$ADDR Port=[$((PORT + 10))-$hi] CPUs=$CPUS RealMemory=$MEM$gres State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 GraceTime=10 State=UP
PartitionName=urgent Nodes=ALL MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF State=UP
${SLAB_EXTRA:-}
CONF

cat >"$DIR/env.sh" <<ENV
export SLURM_CONF=$DIR/etc/slurm.conf
export SLAB_DIR=$DIR
ENV
. "$DIR/env.sh"
export MUNGE_SOCKET=$DIR/run/munge.sock

# ---------------------------------------------------------------- munge
head -c 1024 /dev/urandom >"$DIR/run/munge.key"; chmod 400 "$DIR/run/munge.key"
start munged munged --foreground --num-threads=2 \
  --key-file="$DIR/run/munge.key" --socket="$MUNGE_SOCKET" --pid-file="$DIR/run/munged.pid" \
  --log-file="$DIR/log/munged.log" --seed-file="$DIR/run/munged.seed"
munge_ok() { munge -S "$MUNGE_SOCKET" -n | unmunge -S "$MUNGE_SOCKET"; }
poll "$WAIT" munge_ok || die "munged"
say "munged answers"

# ---------------------------------------------------------------- accounting
if [ "$ACCT" = dbd ]; then
  if [ ! -d "$DIR/db/data/mysql" ]; then
    mkdir -p "$DIR/db/tmp"
    mariadb-install-db --no-defaults --user="$ME" --datadir="$DIR/db/data" \
      --auth-root-authentication-method=normal --skip-test-db >"$DIR/log/mariadb-install.out" 2>&1 || die mariadb-install-db
    say "database files made"
  fi
  mkdir -p "$DIR/db/tmp"
  start mariadbd mariadbd --no-defaults --user="$ME" --datadir="$DIR/db/data" --tmpdir="$DIR/db/tmp" \
    --socket="$DIR/run/db.sock" --pid-file="$DIR/run/mariadb.pid" \
    --bind-address=127.0.0.1 --port=$((PORT + 3)) --skip-log-bin --performance-schema=OFF \
    --innodb-buffer-pool-size=64M --innodb-log-file-size=64M --innodb-lock-wait-timeout=900 --innodb-flush-log-at-trx-commit=2
  poll "$WAIT" test -S "$DIR/run/db.sock" || die "mariadbd"
  say "mariadbd listens"
  cat >"$DIR/etc/slurmdbd.conf" <<DBD
AuthType=auth/munge
AuthInfo=socket=$DIR/run/munge.sock
DbdHost=$HOST
DbdAddr=$ADDR
DbdPort=$((PORT + 2))
SlurmUser=$ME
LogFile=$DIR/log/slurmdbd.log
PidFile=$DIR/run/slurmdbd.pid
CommunicationParameters=NoInAddrAny
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$((PORT + 3))
StorageUser=root
StorageLoc=slurm_acct
DBD
  chmod 600 "$DIR/etc/slurmdbd.conf"
  start slurmdbd slurmdbd -D
  poll "$WAIT" sacctmgr -n -i show cluster || die "slurmdbd"
  say "slurmdbd answers"
  sacctmgr -n show cluster format=cluster 2>/dev/null | grep -qw lab ||
    sacctmgr -i add cluster lab >"$DIR/log/sacctmgr.out" 2>&1 || die "sacctmgr add cluster"
fi

# ---------------------------------------------------------------- slurm
start slurmctld slurmctld -D
poll "$WAIT" timeout 5 scontrol ping || die "slurmctld"
poll "$WAIT" sh -c 'timeout 5 scontrol ping | grep -q UP' || die "slurmctld"
say "slurmctld answers"
for i in $(seq "$NODES"); do mkdir -p "$DIR/spool/node$i"; start "slurmd$i" slurmd -D -N "node$i"; done
poll "$WAIT" ready || die "nodes not idle: $(sinfo -h -N -o '%N=%T(%E)' | tr '\n' ' ')"
say "all $NODES nodes idle"
# srun can exit 0 although no task was launched, so look at what the tasks print
timeout "$WAIT" srun -N"$NODES" -n"$NODES" -t1 printenv SLURMD_NODENAME >"$DIR/log/smoke.out" 2>"$DIR/log/smoke.err" || true
[ "$(grep -c '^node[0-9]*$' "$DIR/log/smoke.out")" = "$NODES" ] || die "smoke job: $(cat "$DIR/log/smoke.err")"
say "smoke job ran on every node; source $DIR/env.sh"
