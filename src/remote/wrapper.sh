# wrapper.sh - runs one script of this folder for the worker.
#
# Arguments: NONCE STDIN SCRIPT ARGUMENTS...
#   STDIN  whose it is while the script runs: the watcher's, the script's, or held
#
# It is the body of a compound command, "{ set -- ARGUMENTS...; ... }", that a
# shell reads from its stdin, one for each script of a job. What else comes on
# stdin while the script runs is watched: when the SSH channel ends, for whatever
# reason, the whole process group is ended, so that nothing outlives the job. A
# script that is held has that stdin, too: it ends the watcher, and watches in its
# place, once it holds what it is to hold. One that asks the worker has it, too: it
# ends the watcher, a child of its own, before it reads the answer, and in any case
# before it ends itself. The marker lines tell the worker where the script's own
# output begins, past all that the account's start-up files and earlier scripts say,
# and, beyond doubt, that and how the script ended.

nonce=$1 stdin=$2 script=$3
shift 3
exec 3<&0
# What the start-up files set for the account's own use would lead us elsewhere.
unset PGHOST PGHOSTADDR PGPORT PGUSER PGDATABASE PGSERVICE PGOPTIONS \
    PGTARGETSESSIONATTRS PGDATA CDPATH POSIXLY_CORRECT TMOUT
printf '%s begin\n' "$nonce"
printf '%s begin\n' "$nonce" >&2
# watch: ends this process group when the channel ends; sets watcher to who does.
watch() {
    {
        # read, for cat would be one more process
        while read -r _ <&3; do :; done
        trap '' TERM
        kill -TERM 0
        sleep 3
        kill -KILL 0
    } </dev/null >/dev/null 2>&1 &
    watcher=$!
}
# In a subshell, not by a new sh: arguments may hold what must not be seen in a
# process list.
case $stdin in
    script)
        (watch; eval "$script") <&3
        status=$?
        ;;
    held)
        watch
        (eval "$script") <&3 3<&-
        status=$?
        ;;
    watcher)
        watch
        (eval "$script") </dev/null 3<&-
        status=$?
        # It must be gone before more comes on stdin.
        { kill -KILL "$watcher" && wait "$watcher"; } 2>/dev/null
        ;;
esac
printf '\n%s end %s\n' "$nonce" "$status" >&2
printf '\n%s end %s\n' "$nonce" "$status"
