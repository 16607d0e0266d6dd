#!/bin/busybox sh
# The virtual machine's first process: finds the disk and goes on there.
/bin/busybox mkdir -p /proc /dev
/bin/busybox mount -t devtmpfs dev /dev
while read -r module; do /bin/busybox insmod "/modules/$module"; done </modules/order
until [ -b /dev/vda ]; do /bin/busybox sleep 0.1; done
/bin/busybox mount -t ext4 /dev/vda /new
/bin/busybox umount /dev
exec /bin/busybox switch_root /new /boot.sh
