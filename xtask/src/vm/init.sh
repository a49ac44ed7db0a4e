# The guest's init, run by busybox sh. xtask sets MODE, WORKSPACE, FRESH (words tag=path),
# TERM_OF_HOST and CONSOLE above. The root is an overlay: a folder of the host (its / or a userland)
# read-only, and a tmpfs on top. /out and the control folder (/vm) are folders of the host, mounted
# writable.
export PATH=/bin:/sbin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for m in $(cat /load-order); do insmod "/m/$m" || echo "xtask init: insmod $m failed"; done

P9=trans=virtio,version=9p2000.L,msize=512000,access=any
die() { echo "xtask init: $*"; echo "$*" >/vm/died; poweroff -f; }
mount -t 9p -o "ro,$P9,cache=loose" root /lower || die "cannot mount the host's root"
mount -t 9p -o "$P9,cache=none" control /vm || die "cannot mount the control folder"
mount -t tmpfs -o size=75% rw /rw
mkdir /rw/upper /rw/work
mount -t overlay -o lowerdir=/lower,upperdir=/rw/upper,workdir=/rw/work overlay /new \
  || die "cannot lay an overlay over the host's root"

mkdir -p /new/out /new/proc /new/sys /new/dev /new/tmp /new/run /new/mnt
mount -t proc proc /new/proc
mount -t sysfs sysfs /new/sys
mount -t devtmpfs dev /new/dev
mkdir -p /new/dev/pts /new/dev/shm
mount -t devpts devpts /new/dev/pts
for t in dev/shm tmp run mnt; do mount -t tmpfs tmpfs "/new/$t"; done
[ -e /new/dev/fd ] || ln -s /proc/self/fd /new/dev/fd
for t in 0:stdin 1:stdout 2:stderr; do
  [ -e "/new/dev/${t#*:}" ] || ln -s "/proc/self/fd/${t%:*}" "/new/dev/${t#*:}"
done
mount -t tracefs tracefs /new/sys/kernel/tracing
mount -t debugfs debugfs /new/sys/kernel/debug
mount -t securityfs securityfs /new/sys/kernel/security 2>/dev/null
mount -t bpf bpf /new/sys/fs/bpf
mount -t cgroup2 cgroup2 /new/sys/fs/cgroup

# Hide the host's own modules: they belong to another kernel.
mkdir -p /new/lib/modules
mount -t tmpfs tmpfs /new/lib/modules
mkdir "/new/lib/modules/$(uname -r)"
mount -t 9p -o "ro,$P9,cache=loose" modules "/new/lib/modules/$(uname -r)" || die "cannot mount the modules"
mount -t 9p -o "$P9,cache=none" out /new/out || die "cannot mount /out"
# The host may change these folders while the guest runs, so the guest must not cache them.
# (A checkout in /tmp is hidden by a tmpfs by now, so its folder may be missing.)
for f in $FRESH; do
  mkdir -p "/new${f#*=}"
  mount -t 9p -o "ro,$P9,cache=none" "${f%%=*}" "/new${f#*=}" || die "cannot mount ${f#*=}"
done
mkdir -p /new/run/vm
mount -o bind /vm /new/run/vm

hostname dio-trace-vm
ifconfig lo 127.0.0.1 up
chroot /new /usr/bin/env PATH=/usr/sbin:/usr/bin:/sbin:/bin modprobe -a nvme loop >/dev/null 2>&1
read -r up _ </proc/uptime
echo "xtask init: up after $up s"
echo "$up" >/vm/up

# Run one job. Its exit code is written last, and renamed into place so that the host never reads
# half of it.
job() {
  ( cd /vm/jobs
    setsid sh -c 'echo $$ >"$1.pid"; exec chroot /new /usr/bin/env -i HOME=/root TERM=dumb \
      PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
      DM_DISABLE_UDEV=1 DIO_TRACE_VM=1 /bin/bash "/run/vm/jobs/$1.sh"' job "$1" >"$1.out" 2>"$1.err" </dev/null
    echo $? >"$1.rc.new"; mv "$1.rc.new" "$1.rc" )
}

case $MODE in
once)
  # No polling loop next to the command: under --icount its instructions would be measured too.
  job 1
  ;;
systemd)
  # The job is a service of the root's own systemd, which takes over as the first process.
  units=/new/run/systemd/system
  mkdir -p $units/multi-user.target.wants
  cat >$units/job.service <<'EOF'
[Unit]
After=multi-user.target
[Service]
Type=oneshot
WorkingDirectory=/run/vm/jobs
Environment=HOME=/root TERM=dumb LANG=C.UTF-8 DIO_TRACE_VM=1
StandardOutput=file:/run/vm/jobs/1.out
StandardError=file:/run/vm/jobs/1.err
ExecStart=/bin/bash /run/vm/jobs/1.sh
ExecStopPost=/bin/sh -c 'echo $EXIT_STATUS >1.rc.new; mv 1.rc.new 1.rc; sync; systemctl poweroff -ff'
EOF
  ln -s ../job.service $units/multi-user.target.wants/job.service
  exec chroot /new /lib/systemd/systemd
  ;;
shell)
  setsid -c chroot /new /usr/bin/env -i -C "$WORKSPACE" PS1='dio-trace-vm:\w\$ ' HOME=/root \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    TERM="$TERM_OF_HOST" DM_DISABLE_UDEV=1 DIO_TRACE_VM=1 \
    /bin/bash --norc --noprofile -i <"/dev/$CONSOLE" >"/dev/$CONSOLE" 2>&1
  ;;
keep)
  while [ ! -e /vm/stop ]; do
    for f in /vm/jobs/*.sh; do
      n=${f##*/}; n=${n%.sh}
      [ -e "$f" ] && [ ! -e "/vm/jobs/$n.begun" ] || continue
      : >"/vm/jobs/$n.begun"
      job "$n" &
    done
    for f in /vm/jobs/*.kill; do
      [ -e "$f" ] || continue
      n=${f##*/}; n=${n%.kill}; rm "$f"
      kill -TERM "-$(cat "/vm/jobs/$n.pid")"
    done
    sleep 0.2
  done
  ;;
esac
sync
poweroff -f
