#!/bin/sh
# Caddy wants the password's hash; it is made here, so that .env holds one form of it alone.
set -eu
PROXY_PASSWORD_HASH=$(printf '%s\n' "$PROXY_PASSWORD" | caddy hash-password)
unset PROXY_PASSWORD
export PROXY_PASSWORD_HASH
exec caddy run --config "$(dirname "$0")/Caddyfile" --adapter caddyfile
