#!/bin/sh
# nginx reads neither its port nor Redis's from the environment: they are written into its
# configuration, in the current folder.
redis=${REDIS_URL#redis://*:}
sed "s/@PORT@/$PORT/; s/@REDIS@/${redis%/*}/" "$(dirname "$0")/nginx.conf" > nginx.conf
exec nginx -p . -c nginx.conf
