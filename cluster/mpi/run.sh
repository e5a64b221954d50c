#!/bin/sh
# Run a program on the containers of a compose service: run.sh SERVICE NODES RANKS PROGRAM...
# Waits until NODES of them answer; ranks go to one after the other.
set -eu
service=$1 nodes=$2 ranks=$3
shift 3
/opt/cluster/node.sh keys
deadline=$(($(date +%s) + 60))
while :; do
    hosts=
    count=0
    for host in $(getent ahostsv4 "$service" | awk '{print $1}' | sort -u -V); do
        if ssh -n "$host" true 2> /dev/null; then
            hosts=$hosts${hosts:+,}$host
            count=$((count + 1))
        fi
    done
    [ "$count" -lt "$nodes" ] || break
    if [ "$(date +%s)" -gt "$deadline" ]; then
        echo "run.sh: $count of $nodes containers of $service answer after 60 seconds (${hosts:-none})." >&2
        exit 1
    fi
    sleep 1
done
exec mpirun -launcher ssh -hosts "$hosts" -n "$ranks" "$@"
