#!/bin/sh
# Makes an empty folder for the files of a test run and prints it: in memory where there is enough of it, else where
# temporary files go. A test kills processes, never the machine, so an fsync has nothing to prove in it; on a disk
# waiting for it, and carrying it out, is a third of the suite.
set -eu

memory=/dev/shm
needed=6000000 # KiB; a whole run has four of these six gigabytes at most

enough() {
    [ -d "$memory" ] && [ -w "$memory" ] || return 1
    [ "$(df -Pk "$memory" | awk 'NR == 2 { print $4 }')" -ge "$needed" ] || return 1
    [ "$(awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo)" -ge "$((2 * needed))" ] || return 1
    # A container may have less than its machine.
    limit=$(cat /sys/fs/cgroup/memory.max 2>/dev/null || echo max)
    [ "$limit" = max ] || [ "$((limit / 1024))" -ge "$((2 * needed))" ]
}

# Many mount it so that nothing there can be started, which the tests' programs are.
starts() {
    printf '#!/bin/sh\n' >"$1/starts" && chmod 700 "$1/starts" && "$1/starts" 2>/dev/null && rm "$1/starts"
}

made="" # whatever the environment has under this name
if enough; then
    made=$(mktemp -d "$memory/rootward.XXXXXX")
    if ! starts "$made"; then
        rm -rf "$made"
        made=""
    fi
fi
if [ -z "$made" ]; then made=$(mktemp -d "${TMPDIR:-/tmp}/rootward.XXXXXX"); fi
chmod 755 "$made" # servers that do not run as root are started there
echo "$made"
