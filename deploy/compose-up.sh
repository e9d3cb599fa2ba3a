#!/usr/bin/env bash
# Starts the fleet of docker-compose.yml from nothing: makes the secrets that are missing in deploy/secrets, starts the
# primaries, makes a token for each replica that has none, starts the rest. May be run again at any time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly dir=deploy/secrets

# Only the owner may enter the directory. The files in it can be read by all, because the process in a container is
# another user and Compose mounts each file as it is.
mkdir -p -m 0700 "$dir"
umask 022
for name in admin_password clickhouse_password; do
  [ -s "$dir/$name" ] || head -c 18 /dev/urandom | base64 >"$dir/$name"
done
# A password made of base64 has characters that mean something in a URL.
password=$(sed -e 's/%/%25/g; s|/|%2F|g; s/+/%2B/g; s/=/%3D/g; s/@/%40/g; s/:/%3A/g; s/?/%3F/g; s/#/%23/g' "$dir/clickhouse_password")
printf 'clickhouse://dnsfleet:%s@clickhouse:9000/dnsfleet\n' "$password" >"$dir/querylog_url"
for n in 1 2 3; do
  [ -e "$dir/replica_${n}_token" ] || : >"$dir/replica_${n}_token" # Compose wants every file before it starts anything
done

docker compose up -d --build --wait redis primary-1 primary-2
for n in 1 2 3; do
  file=$dir/replica_${n}_token
  [ -s "$file" ] && continue
  answer=$(docker compose exec -T primary-1 /dnsfleet token create --name "replica-$n" --instance "replica-$n" --json)
  secret=$(sed -n 's/.*"secret": *"\([^"]*\)".*/\1/p' <<<"$answer")
  [ -n "$secret" ] || { echo "no token for replica-$n: $answer" >&2; exit 1; }
  printf '%s\n' "$secret" >"$file"
done
docker compose up -d --wait

echo "dashboard: http://127.0.0.1:8053 and http://127.0.0.1:8054, the password is in $dir/admin_password"
echo "try it:    dig @127.0.0.1 -p 5301 example.org"
