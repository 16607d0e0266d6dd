#!/usr/bin/env bash
# Boots Debian's kernel in a virtual machine (emulated: no KVM needed) with cgroup v2 and nothing but the wheel installed,
# and runs packaging/vm/guest.py in it: vm-test.sh WHEEL. What was fetched is kept in target/vm. Run as root.
set -euo pipefail
wheel=$(realpath "${1:?the wheel to test}")
here=$(cd "$(dirname "$0")" && pwd)
work=$here/../target/vm
python=$(command -v "${PYTHON:-python3}")
case $python in /*) ;; *) python=$PWD/$python ;; esac
mkdir -p "$work"
cd "$work"
export PATH=$PATH:/usr/sbin:/sbin

if [ ! -e kernel/done ]; then
  rm -rf kernel && mkdir kernel
  package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends:/ {print $2; exit}')
  (cd kernel && apt-get download -qq "$package" && dpkg -x ./*.deb . && rm ./*.deb)
  touch kernel/done
fi
release=$(basename kernel/lib/modules/*)

if [ ! -e base-2.tar ]; then
  mmdebstrap --quiet --variant=minbase \
    --include=python3,python3-venv,nftables,iproute2,busybox-static,kmod,mount,e2fsprogs,xfsprogs bookworm base.new.tar
  mv base.new.tar base-2.tar
fi
rm -rf root initramfs wheels
mkdir -p root initramfs/{bin,modules,new} wheels
tar -xf base-2.tar -C root
"$python" -m pip download -q --python-version 3.11 --only-binary=:all: -d wheels "$wheel" --disable-pip-version-check
cp "$wheel" wheels/
cp -r wheels root/wheels
chroot root python3 -m venv /opt/knarr
chroot root env -u PIP_FIND_LINKS /opt/knarr/bin/pip install -q --no-index --find-links /wheels knarr
rm -rf root/wheels
mkdir -p root/lib/modules
cp -r "kernel/lib/modules/$release" root/lib/modules/
chroot root depmod "$release"
cp "$here/vm/guest.py" root/guest.py
install -m 755 "$here/vm/boot.sh" root/boot.sh
rm -f disk
mkfs.ext4 -q -d root disk 2G

cp root/bin/busybox initramfs/bin/
for module in virtio_pci virtio_blk; do
  chroot root modprobe -S "$release" --show-depends "$module" | awk '$1 == "insmod" {print "root" $2}'
done | awk '!seen[$0]++' >order
while read -r module; do
  cp "$module" initramfs/modules/
  basename "$module"
done <order >initramfs/modules/order
install -m 755 "$here/vm/init.sh" initramfs/init
(cd initramfs && find . | ../root/bin/busybox cpio -o -H newc 2>/dev/null | gzip -1) >initramfs.gz

timeout "${VM_PATIENCE:-900}" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 1536 -nographic -no-reboot \
  -kernel kernel/boot/vmlinuz-* -initrd initramfs.gz -append "console=ttyS0 panic=-1 quiet" \
  -drive file=disk,format=raw,if=virtio,cache=unsafe </dev/null | tee console.log
grep -q '^VERDICT: passed' console.log
