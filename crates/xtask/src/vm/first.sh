#!/bin/busybox sh
# The initramfs's init: what it takes to mount the root disk, and on from there.
b=/bin/busybox
$b mount -t devtmpfs dev /dev
for module in /modules/*; do $b insmod "$module"; done
until [ -b /dev/vda ]; do $b usleep 10000; done
$b mount -t ext4 -o noatime /dev/vda /root || exec $b poweroff -f
exec $b switch_root /root /sbin/init
