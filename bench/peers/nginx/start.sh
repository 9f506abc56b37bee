#!/bin/sh
# nginx cannot read its port and Redis's from the environment. This script writes them into nginx's
# configuration, in the current folder.
redis=${REDIS_URL#redis://*:}
if [ -n "$TLS_CERT" ]; then
    tls=ssl
    echo "ssl_certificate $TLS_CERT; ssl_certificate_key $TLS_KEY;" > tls.conf
fi
sed "s/@PORT@/$PORT/; s/@REDIS@/${redis%/*}/; s/@PROCESSES@/$PROCESSES/; s/@TLS@/$tls/" \
    "$(dirname "$0")/nginx.conf" > nginx.conf
exec nginx -p . -c nginx.conf
