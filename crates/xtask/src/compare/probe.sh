# What a container's program finds around it, part by part. Run by busybox's shell with its default image.
part() { echo "=== $1"; }
part environment; tr '\000' '\n' < /proc/$$/environ
part status; cat /proc/self/status
part limits; cat /proc/self/limits
part mounts; cat /proc/self/mountinfo
part namespaces; for n in /proc/$$/ns/*; do echo "${n##*/} $(readlink $n)"; done
part devices; find /dev ! -type l -exec stat -c '%n|%F|%a|%u:%g|%t:%T' {} \;
part links; find /dev -type l | while read l; do echo "$l $(readlink $l)"; done
part descriptors; for f in 0 1 2 3 4 5 6 7 8 9; do [ -e /proc/$$/fd/$f ] && echo "$f $(readlink /proc/$$/fd/$f)"; done
part process
echo "directory $(readlink /proc/$$/cwd)"
echo "mask $(umask)"
echo "score $(cat /proc/self/oom_score_adj)"
echo "number $$"
echo "label $(cat /proc/self/attr/current 2>/dev/null)"
part sysctls; cd /proc/sys
for s in kernel/hostname kernel/domainname kernel/shmmax kernel/shmmni kernel/msgmax kernel/sem kernel/shm_rmid_forced \
    net/core/somaxconn net/ipv4/ip_forward net/ipv4/ip_local_port_range net/ipv4/ip_unprivileged_port_start \
    net/ipv4/ping_group_range net/ipv4/conf/all/rp_filter net/ipv6/conf/all/disable_ipv6 fs/mqueue/msg_max; do
    [ -e $s ] && echo "$s $(cat $s)"
done
part cgroup; cd /sys/fs/cgroup
for s in memory/memory.limit_in_bytes memory/memory.soft_limit_in_bytes memory/memory.memsw.limit_in_bytes \
    cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us cpu/cpu.shares cpuset/cpuset.cpus pids/pids.max devices/devices.list \
    memory.max memory.low memory.swap.max cpu.max cpu.weight cpuset.cpus pids.max; do
    [ -e $s ] && cat $s | while read line; do echo "$s $line"; done
done
part hosts; cat /etc/hosts
part resolver; cat /etc/resolv.conf; echo
part hostname; cat /etc/hostname
part address; ip -4 -o addr show dev eth0 2>/dev/null
part end
