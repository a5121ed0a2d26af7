#!/bin/sh
# The guest's init: mounts what a Debian has mounted, runs /host/run, says how it ended, and switches the machine off.
export PATH=/usr/sbin:/usr/bin HOME=/root RUST_BACKTRACE=1
mount -t devtmpfs dev /dev
mount -t proc -o nosuid,nodev,noexec proc /proc
mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
mkdir -p /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=000 devpts /dev/pts
mount -t tmpfs -o nosuid,nodev tmpfs /dev/shm
mount -t tmpfs -o nosuid,nodev,mode=755 tmpfs /run
mount -t tmpfs -o nosuid,nodev tmpfs /tmp
mount -t cgroup2 -o nosuid,nodev,noexec,nsdelegate cgroup2 /sys/fs/cgroup
mount --make-rshared /
hostname vm
ip link set lo up
mount -t ext4 -o ro,noatime /dev/vdb /host
# Without udev, /sys says which port is which.
for port in /sys/class/virtio-ports/*; do eval "port_$(cat "$port/name")=/dev/${port##*/}"; done
# As systemd has it.
echo "+cpu +memory +pids +cpuset +io" > /sys/fs/cgroup/cgroup.subtree_control
cd /host
setsid /usr/bin/dash ./run < /dev/null > "$port_out" 2>&1
echo "exit $?" > "$port_status"
poweroff -f
