#!/usr/bin/env bash
# Makes certificates for a TRIAL of deploy/nats/server.conf: an authority and a certificate for each
# server, for 30 days, with all keys in one folder. In production take those of your own authority,
# and keep its key away from the servers.
#
#   deploy/nats/certificates.sh FOLDER HOST...     each HOST a name or an address of one server
#
# FOLDER then holds ca.pem (NATS_CA, --log-ca) and HOST.pem, HOST.key (NATS_CERT, NATS_KEY).
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
umask 077
folder=$1
shift
mkdir -p "$folder"
cd "$folder"

new_key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
if [ ! -e ca.key ]; then
    openssl req -x509 "${new_key[@]}" -keyout ca.key -out ca.pem -days 30 \
        -subj "/CN=convergio trial authority" \
        -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign" 2>/dev/null
fi
for host in "$@"; do
    case $host in
        *[!0-9.]*) [[ $host == *:* ]] && name=IP:$host || name=DNS:$host ;;
        *) name=IP:$host ;;
    esac
    openssl req "${new_key[@]}" -keyout "$host.key" -out "$host.csr" -subj "/CN=$host" 2>/dev/null
    # Servers are clients of each other.
    openssl x509 -req -in "$host.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 \
        -out "$host.pem" -extfile <(
            echo "subjectAltName=$name"
            echo "extendedKeyUsage=serverAuth,clientAuth"
            echo "basicConstraints=critical,CA:FALSE"
        ) 2>/dev/null
    rm "$host.csr"
done
