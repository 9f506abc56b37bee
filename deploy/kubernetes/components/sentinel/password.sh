# Sets `password` to the password in the form of redis.conf, each byte as in \x22. Sets REDISCLI_AUTH
# to the password itself.
file=/run/secrets/redis/password
password=$(od -An -v -tx1 $file | tr -d '\n' | sed 's/\( 0[ad]\)*$//')
case $password in
  "" | *" 00"* | *" 0a"* | *" 0d"*)
    echo "the password must be one line, and not empty" >&2
    exit 1 ;;
esac
password=$(echo "$password" | sed 's/ /\\x/g')
REDISCLI_AUTH=$(tr -d '\r\n' <$file)
export REDISCLI_AUTH
