# What is tried on a machine whose cgroups are v2 alone. Prints what it does, and ends with the number of what went wrong.
export PATH=/host:$PATH
cgroups=/sys/fs/cgroup
wrong=0
now() { cut -d' ' -f1 /proc/uptime; }
bad() { echo "!!! $*"; wrong=$((wrong + 1)); }
step() { echo "=== [$(now)] $*"; "$@" || bad "exit code $?: $*"; }
await() {
  end=$(( $(cut -d. -f1 /proc/uptime) + 60 ))
  until eval "$*" > /dev/null 2>&1; do
    [ "$(cut -d. -f1 /proc/uptime)" -lt $end ] || { bad "never: $*"; return; }
    sleep 0.2
  done
  echo "--- [$(now)] $*"
}
there_is() {
  mount | sort; find $cgroups -mindepth 1 -type d | sort; ip netns list; nft list ruleset; ls /sys/class/net
}
containers() { find $cgroups/gantry-dev -path '*/containers/*' -type d; }
members() { for dir in $(containers); do cat "$dir/cgroup.procs"; done | sort -n | tr '\n' ' '; }

# A machine's own processes are not in the root cgroup.
mkdir -p $cgroups/system.slice/test.service
echo 0 > $cgroups/system.slice/test.service/cgroup.procs

step ./runtime-host
there_is > /tmp/before

step gantry dev up --nodes 1 --managers 1
step gantry image import busybox.tar busybox
cat > /tmp/app.yaml << 'Y'
services:
  app:
    image: busybox
    command: ["sh", "-c", "trap 'exit 0' TERM; sleep 3600 & wait"]
    deploy:
      replicas: 2
      resources:
        limits: { cpus: "0.5", memory: 32M, pids: 50 }
Y
step gantry deploy -f /tmp/app.yaml app
step gantry scale app/app=6
count=0
for dir in $(containers | grep -v /shims); do
  [ -e "$dir/memory.max" ] && [ -n "$(cat "$dir/cgroup.procs")" ] || continue
  count=$((count + 1))
  limits="$(cat "$dir/memory.max") $(cat "$dir/cpu.max") $(cat "$dir/pids.max")"
  [ "$limits" = "33554432 50000 100000 50" ] || bad "$dir has the limits $limits"
done
[ $count = 6 ] && echo "the limits of 6 containers are in force" || bad "$count containers have limits"

cat > /tmp/hog.yaml << 'Y'
services:
  hog:
    image: busybox
    command: ["dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"]
    deploy:
      resources:
        limits: { memory: 16M }
      restart_policy: { condition: none }
Y
step gantry deploy -f /tmp/hog.yaml hog
await 'gantry ps --all hog | grep "killed for its memory limit"'

before=$(members)
step gantry dev node kill n1
step gantry dev node start n1
await '[ $(gantry node ls | grep -cw ready) = 1 ]'
await '[ $(gantry ps app | grep -cw running) = 6 ]'
[ "$before" = "$(members)" ] && echo "no container noticed" || bad "containers were $before and are $(members)"

step gantry rm app
step gantry rm hog
[ -z "$(containers)" ] || bad "left: $(containers)"
step gantry dev down
there_is > /tmp/after
cmp -s /tmp/before /tmp/after && echo "nothing is left" || { bad "not as before:"; diff /tmp/before /tmp/after; }
echo "=== [$(now)] $wrong things went wrong"
exit $wrong
