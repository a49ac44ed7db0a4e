# Runs the OCI image in a container, with the privileges that docs/install.md names, and has it trace
# a program in another container.
set -euo pipefail
. "$(dirname "$0")/common.sh"
work=/tmp/image
mkdir -p $work/layout && cd $work

say "unpacking the image: an OCI layout"
tar -xf "$1/dio-trace-$2-oci.tar" -C layout
skopeo --override-arch amd64 copy -q "oci:layout:$2" oci:one:dio-trace
umoci unpack --image one:dio-trace dio-trace
ls -l dio-trace/rootfs dio-trace/rootfs/usr/bin

# The container to trace: busybox, and a file on a disk of its own.
mkfs.ext4 -q -F /dev/vdb 1G
mkdir -p /mnt/volume app/rootfs/{bin,data,proc}
mount -o data=journal /dev/vdb /mnt/volume
# Long enough that one process reads it all the time.
truncate -s 8G /mnt/volume/table
cp "$(command -v busybox)" app/rootfs/bin/
ln -s busybox app/rootfs/bin/dd; ln -s busybox app/rootfs/bin/sh

python3 - <<'P'
import json

def config(path, change):
    with open(path) as file:
        spec = json.load(file)
    change(spec)
    with open(path, "w") as file:
        json.dump(spec, file)

def tracer(spec):
    process = spec["process"]
    process["terminal"] = False
    process["args"] = ["/usr/bin/dio-trace", "audit", "-d", "10", "--by", "container"]
    caps = ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_SYS_RESOURCE"]
    process["capabilities"] = {kind: caps for kind in ("bounding", "effective", "permitted")}
    process["noNewPrivileges"] = True
    linux = spec["linux"]
    # The host's processes; the image's own files.
    linux["namespaces"] = [{"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network"}]
    linux["maskedPaths"] = []
    linux["readonlyPaths"] = []
    linux["seccomp"] = None
    spec["root"]["readonly"] = True
    spec["mounts"] = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "ro"]},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
    ]
    spec.pop("hooks", None)

config("dio-trace/config.json", tracer)
P
crun spec -b app
python3 - <<'P'
import json
with open("app/config.json") as file:
    spec = json.load(file)
spec["process"]["terminal"] = False
spec["process"]["args"] = ["/bin/sh", "-c",
    "while :; do dd if=/data/table of=/dev/null bs=64k iflag=direct; done"]
spec["mounts"] = [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
    {"destination": "/data", "type": "none", "source": "/mnt/volume", "options": ["rbind"]},
]
spec["linux"]["cgroupsPath"] = \
    "/libpod-4cf2a1d6c0b34f0c9e3d1f6a7b8c9d0e1f2a3b4c5d6e7f8091a2b3c4d5e6f708"
with open("app/config.json", "w") as file:
    json.dump(spec, file)
P
crun --cgroup-manager=cgroupfs run -d -b app app >/dev/null 2>&1 </dev/null
say "crun run dio-trace audit -d 10 --by container"
shows /tmp/seen crun --cgroup-manager=cgroupfs run -b dio-trace dio-trace
crun --cgroup-manager=cgroupfs delete -f app
expect /tmp/seen 'fallback .*table'
expect /tmp/seen 'data=journal'
expect /tmp/seen '4cf2a1d6c0b3'
say right
