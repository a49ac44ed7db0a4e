# Installs the Debian package, uses it, and removes it. $1: the folder of the artefacts.
set -euo pipefail
. "$(dirname "$0")/common.sh"

# The files of the system, without what is no file of a package or what dpkg and caches keep.
files() {
	find / -xdev \( -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /dev -o -path /mnt \
		-o -path /out -o -path /var/lib/dpkg -o -path /var/cache -o -path /var/log -o -path /lib/modules \
		-o -path /usr/lib/modules \) -prune -o -print | sort
}

say "$(. /etc/os-release; echo "$PRETTY_NAME"), Linux $(uname -r), $(ldd --version | head -1)"
files >/tmp/before
say "dpkg -i dio-trace_$2_amd64.deb"
dpkg -i "$1/dio-trace_$2_amd64.deb"
dio-trace --version
say "dio-trace doctor"
dio-trace doctor
traces dio-trace
say "man dio-trace-run"
man -P cat dio-trace-run >/tmp/man
expect /tmp/man 'OVERHEAD'
say "completion of dio-trace ch"
# The loader has one name in bash-completion 2.12 and later and another before, which returns 124.
bash -c '. /usr/share/bash-completion/bash_completion
	_comp_load dio-trace 2>/dev/null || _completion_loader dio-trace || [ $? = 124 ]
	COMP_WORDS=(dio-trace ch); COMP_CWORD=1; COMP_LINE="dio-trace ch"; COMP_POINT=12
	function=$(complete -p dio-trace | sed "s/.*-F \([^ ]*\).*/\1/")
	"$function" dio-trace ch dio-trace; echo "${COMPREPLY[@]}"' | tee /tmp/complete
expect /tmp/complete 'check'
say "dpkg -P dio-trace"
dpkg -P dio-trace
files >/tmp/after
diff /tmp/before /tmp/after || fail "the package left files behind"
say right
