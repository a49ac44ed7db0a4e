# The tarball's program in a root without any C library: busybox and nothing else.
set -euo pipefail
. "$(dirname "$0")/common.sh"

mkdir -p /tmp/t /tmp/root/{bin,proc,sys,dev,tmp,mnt}
tar --zstd -xf "$1/dio-trace-$2-x86_64-linux.tar.zst" -C /tmp/t
find /tmp/t -type f | sort
cp "/tmp/t/dio-trace-$2-x86_64-linux/dio-trace" "$(command -v busybox)" /tmp/root/bin/
for applet in sh dd cat ls; do ln -s busybox "/tmp/root/bin/$applet"; done
for mounted in proc sys dev; do mount --rbind "/$mounted" "/tmp/root/$mounted"; done
say "dio-trace doctor, in a root with busybox alone"
chroot /tmp/root /bin/dio-trace doctor
say "dio-trace run -- dd"
dd if=/dev/zero of=/dev/vda bs=64k count=4 conv=fsync status=none
shows /tmp/seen chroot /tmp/root /bin/dio-trace run --all -- \
	/bin/dd if=/dev/vda of=/dev/null bs=64k count=4 iflag=direct
expect /tmp/seen 'direct +/dev/vda'
traces /tmp/root/bin/dio-trace
say right
