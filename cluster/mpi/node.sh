#!/bin/sh
# A node that mpirun reaches: sshd on port 2222, as an ordinary user, for the key in ~/secrets alone. The first node
# makes the key, and all nodes share the folder. One key says who may come in and, as host key, who answers.
#   node.sh        serve until stopped
#   node.sh keys   make the keys only
set -eu
secrets=$HOME/secrets
umask 077
exec 9> "$secrets/lock"
flock 9
if [ ! -e "$secrets/known_hosts" ]; then
    rm -f "$secrets/key"
    ssh-keygen -q -t ed25519 -N '' -C 'dist_relu cluster' -f "$secrets/key"
    cp "$secrets/key.pub" "$secrets/authorized_keys"
    sed 's/^/* /' "$secrets/key.pub" > "$secrets/known_hosts"
fi
exec 9>&-
if [ "${1:-}" != keys ]; then
    exec /usr/sbin/sshd -D -e -f /opt/cluster/sshd_config
fi
