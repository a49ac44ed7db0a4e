# Checks the RPM with rpm's own tools, installs it, uses it, and removes it.
set -euo pipefail
. "$(dirname "$0")/common.sh"
package=$1/dio-trace-$2-1.x86_64.rpm
db=(--dbpath /tmp/rpmdb)

say "rpm -qip"
rpm "${db[@]}" -qip "$package" | tee /tmp/info
expect /tmp/info '^License +: MIT OR Apache-2.0'
expect /tmp/info '^Version +: '"$2"
say "rpm -qp --scripts --requires"
rpm "${db[@]}" -qp --scripts --requires "$package" | tee /tmp/scripts
expect /tmp/scripts 'preuninstall'
grep -q 'lib.*\.so' /tmp/scripts && fail "it needs shared libraries"
rpm "${db[@]}" -K --nosignature "$package"
say "rpm -i"
# Debian's rpm knows none of Debian's own packages, so /bin/sh is missing to it.
rpm "${db[@]}" -i --nodeps "$package"
rpm "${db[@]}" -V --nodeps dio-trace
dio-trace --version
dio-trace doctor
traces dio-trace
say "rpm -e"
rpm "${db[@]}" -ql dio-trace >/tmp/list
rpm "${db[@]}" -e dio-trace
while read -r path; do [ ! -f "$path" ] || fail "$path is left"; done </tmp/list
say right
