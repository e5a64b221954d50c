#!/bin/sh
# Start the head of a Ray cluster in a container, and make the token that lets others in: head.sh [ray start options]
set -eu
if [ ! -s "$RAY_AUTH_TOKEN_PATH" ]; then
    umask 077
    python -c "import secrets; print(secrets.token_hex(32), end='')" > "$RAY_AUTH_TOKEN_PATH"
fi
exec ray start --head --block --port=6379 "$@"
