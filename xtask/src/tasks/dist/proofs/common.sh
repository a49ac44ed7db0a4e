# Used by the proofs: what dio-trace must see wherever it was installed.

say() { echo "== $*"; }
fail() { echo "WRONG: $*" >&2; exit 1; }
# expect FILE PATTERN
expect() { grep -qE -- "$2" "$1" || { cat "$1"; fail "no /$2/ in $1"; }; }

# shows FILE COMMAND…: the command's output goes to the file and is shown; it must succeed.
shows() {
	local file=$1 code=0
	shift
	"$@" >"$file" 2>&1 || code=$?
	cat "$file"
	[ "$code" = 0 ] || fail "$1 ended with $code"
}

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
	shows /tmp/plain "$@" run --all -- dd if=/mnt/plain/file of=/dev/null bs=64k iflag=direct status=none
	expect /tmp/plain 'direct +/mnt/plain/file'
	expect /tmp/plain 'lost none'
	say "dio-trace run -- dd if=/mnt/journal/file iflag=direct"
	shows /tmp/journal "$@" run -- dd if=/mnt/journal/file of=/dev/null bs=64k iflag=direct status=none
	expect /tmp/journal 'fallback +/mnt/journal/file'
	expect /tmp/journal 'data=journal'
	umount /mnt/plain /mnt/journal
}
