#!/bin/sh
# Brings the virtual machine up, runs the tests, and switches it off.
export PATH=/opt/knarr/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount --make-rshared /
for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control; done
ip link set lo up
modprobe -a overlay veth bridge nf_tables nft_chain_nat nft_masq nft_nat br_netfilter loop ext4 quota_v2 xfs
python3 /guest.py </dev/null 2>&1 && echo "VERDICT: passed" || echo "VERDICT: failed"
sync
busybox poweroff -f
