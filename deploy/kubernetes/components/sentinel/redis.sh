# Starts Redis as the primary if the sentinels name this server, else as a replica of their primary.
. /scripts/password.sh
me=$(hostname).redis
primary() {
  redis-cli -h sentinel -p 26379 sentinel get-master-addr-by-name friendlyhello 2>/dev/null |
    sed -n '1{/^redis-[0-9]*\.redis$/p;}'
}
until primary=$(primary) && [ "$primary" ]; do sleep 1; done
[ "$primary" = "$me" ] || replicaof="replicaof $primary 6379"
unset REDISCLI_AUTH
exec redis-server - --appendonly yes <<END
requirepass "$password"
masterauth "$password"
replica-announce-ip $me
$replicaof
END
