# Runs a server ("$@") that must not outlive Tally.
#
# Tally holds the other end of our stdin and never writes to it: when it reads as closed, Tally
# has stopped or died, whatever killed it. The server then gets SIGTERM, and 10 s later SIGKILL.
# Exits with the server's status.

exec 3<&0
"$@" </dev/null 3<&- &
server=$!

(
    while read -r _; do :; done <&3
    kill -TERM "$server"
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        sleep 1
        kill -0 "$server" || exit
    done
    kill -KILL "$server"
) 2>/dev/null &
watcher=$!

wait "$server"
status=$?
kill "$watcher" 2>/dev/null
exit "$status"
