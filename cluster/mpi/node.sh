#!/bin/sh
# A node that mpirun reaches: sshd on port 2222, as an ordinary user, for the key in ~/secrets alone. The first node
# makes the key, and all nodes share the folder. One key says who may come in and, as host key, who answers.
#   node.sh        serve until stopped
#   node.sh keys   make the key only
set -eu
umask 077
secrets=$HOME/secrets
key=$secrets/id_rsa # that of Kubernetes' MPI operator
if [ ! -e "$key" ]; then
    key=$secrets/key
    exec 9> "$secrets/lock"
    flock 9
    if [ ! -e "$secrets/authorized_keys" ]; then
        rm -f "$key"
        ssh-keygen -q -t ed25519 -N '' -C 'dist_relu cluster' -f "$key"
        cp "$key.pub" "$secrets/authorized_keys"
    fi
    exec 9>&-
fi
if [ "${1:-}" != keys ]; then
    exec /usr/sbin/sshd -D -e -f /opt/cluster/sshd_config -h "$key"
fi
