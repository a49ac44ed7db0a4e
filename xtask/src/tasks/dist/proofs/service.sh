# The systemd unit of the package, under systemd: a recording that is always on.
set -euo pipefail
. "$(dirname "$0")/common.sh"
state=/var/lib/dio-trace

say "$(systemctl --version | head -1), PID 1: $(cat /proc/1/comm)"
dpkg -i "$1/dio-trace_$2_amd64.deb"
systemctl daemon-reload
if command -v systemd-analyze >/dev/null; then
	systemd-analyze verify /usr/lib/systemd/system/dio-trace.service
	systemd-analyze security --no-pager dio-trace.service | tail -1
fi
say "systemctl enable --now dio-trace"
systemctl enable --now dio-trace
for _ in $(seq 120); do
	journalctl -u dio-trace -o cat --no-pager | grep -q 'tracing' && break
	sleep 1
done
journalctl -u dio-trace -o cat --no-pager
systemctl is-active dio-trace
modprobe ext4
mkfs.ext4 -q -F /dev/vdb 1G
mkdir -p /mnt/journal
mount -o data=journal /dev/vdb /mnt/journal
dd if=/dev/zero of=/mnt/journal/file bs=64k count=4 conv=fsync status=none
dd if=/mnt/journal/file of=/dev/null bs=64k iflag=direct status=none
say "systemctl kill --signal=SIGUSR1 dio-trace"
systemctl kill --signal=SIGUSR1 dio-trace
for _ in $(seq 60); do [ -s $state/flight.dio.1 ] && break; sleep 1; done
ls -l $state
dio-trace report $state/flight.dio.1 | tee /tmp/report
expect /tmp/report 'fallback .*/mnt/journal/file'
expect /tmp/report 'data=journal'
say "systemctl stop dio-trace"
systemctl stop dio-trace
systemctl show -p Result,ExecMainStatus dio-trace | tee /tmp/result
expect /tmp/result 'Result=success'
[ -s $state/flight.dio.2 ] || fail "no recording was written at the end"
say "apt purge"
dpkg -P dio-trace
[ ! -e $state ] || fail "$state is left"
systemctl list-unit-files --no-legend 'dio-trace*' | grep . && fail "the unit is left"
say right
