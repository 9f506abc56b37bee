# Starts a sentinel. Its file keeps the name of the primary; the first primary is redis-0.
. /scripts/password.sh
unset REDISCLI_AUTH
cd /data
[ -s sentinel.conf ] || cat >sentinel.conf <<END
sentinel resolve-hostnames yes
sentinel announce-hostnames yes
sentinel announce-ip $(hostname).sentinel
sentinel monitor friendlyhello redis-0.redis 6379 2
sentinel down-after-milliseconds friendlyhello 5000
sentinel failover-timeout friendlyhello 30000
END
# The password may have changed since the file was written.
grep -vE '^(requirepass|user|sentinel (auth-pass|sentinel-pass)) ' sentinel.conf >sentinel.new
cat >>sentinel.new <<END
requirepass "$password"
sentinel auth-pass friendlyhello "$password"
sentinel sentinel-pass "$password"
END
mv sentinel.new sentinel.conf
exec redis-server sentinel.conf --sentinel
