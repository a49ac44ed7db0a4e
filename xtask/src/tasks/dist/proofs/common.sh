# Used by the proofs: what dio-trace must see wherever it was installed.

say() { echo "== $*"; }
fail() { echo "WRONG: $*" >&2; exit 1; }
# expect FILE PATTERN
expect() { grep -qE -- "$2" "$1" || { cat "$1"; fail "no /$2/ in $1"; }; }

# A direct read and a fallback, told apart. $1: the program, with its options' prefix if any.
traces() {
	modprobe ext4
	mkfs.ext4 -q -F /dev/vda 1G
	mkdir -p /mnt/plain /mnt/journal
	mount /dev/vda /mnt/plain
	mkfs.ext4 -q -F /dev/vdb 1G
	mount -o data=journal /dev/vdb /mnt/journal
	for place in plain journal; do
		dd if=/dev/zero of=/mnt/$place/file bs=64k count=4 conv=fsync status=none
	done
	say "dio-trace run -- dd if=/mnt/plain/file iflag=direct"
	"$@" run --all -- dd if=/mnt/plain/file of=/dev/null bs=64k iflag=direct status=none >/tmp/plain 2>&1 \
		|| { cat /tmp/plain; fail "run ended with $?"; }
	cat /tmp/plain
	expect /tmp/plain 'direct +/mnt/plain/file'
	expect /tmp/plain 'lost none'
	say "dio-trace run -- dd if=/mnt/journal/file iflag=direct"
	"$@" run -- dd if=/mnt/journal/file of=/dev/null bs=64k iflag=direct status=none >/tmp/journal 2>&1 \
		|| { cat /tmp/journal; fail "run ended with $?"; }
	cat /tmp/journal
	expect /tmp/journal 'fallback +/mnt/journal/file'
	expect /tmp/journal 'data=journal'
	umount /mnt/plain /mnt/journal
}
