# wrapper.sh - runs one script of this folder for the worker.
#
# arguments: (positional)
#   NONCE     a word that tells this script's output from all other
#   STDIN     who has stdin while the script runs: watcher, script or held
#   SCRIPT    its text, with its named arguments before it
#   LIST ...  its positional arguments
#
# It is the body of a compound command, "{ set -- ARGUMENTS...; ... }". A shell reads one from its
# stdin for each script of a job. While the script runs, a watcher reads what else comes on stdin:
# when the SSH channel ends, for whatever reason, it ends the whole process group, so that nothing
# outlives the job. A script that is held has that stdin, too: when it holds what it has to, it
# ends the watcher, and watches in its place. A script that asks the worker has stdin, too: it ends
# the watcher, a child of its own, before it reads the answer, and in any case before it ends
# itself.
#
# prints: a line "NONCE begin" and a line "NONCE end STATUS" around the script's output, on stdout
# and on stderr. By the first, the worker passes over what the account's start-up files and
# earlier scripts say; by the last, it knows for certain that the script ended, and how. Before that
# last one, on stdout, "times=" and what times(1) says of this shell and all that it has waited for.

nonce=$1 stdin=$2 script=$3
shift 3
exec 3<&0
# What the start-up files set for the account itself would lead us elsewhere, or change what
# programs say, or what a server that we start calls itself.
unset PGHOST PGHOSTADDR PGPORT PGUSER PGDATABASE PGSERVICE PGOPTIONS \
    PGTARGETSESSIONATTRS PGDATA CDPATH POSIXLY_CORRECT TMOUT \
    PGAPPNAME PGCLIENTENCODING PGDATESTYLE PGTZ PGGEQO PG_COLOR QUOTING_STYLE
printf '%s begin\n' "$nonce"
printf '%s begin\n' "$nonce" >&2
# watch: starts the watcher.
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
# In a subshell, not by a new sh: nothing in the arguments may be seen in a process list.
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
        # the watcher must be gone before more comes on stdin
        { kill -KILL "$watcher" && wait "$watcher"; } 2>/dev/null
        ;;
esac
printf '\n%s end %s\n' "$nonce" "$status" >&2
printf '\ntimes='
times
printf '\n%s end %s\n' "$nonce" "$status"
