# wrapper.sh - runs one script of this folder for the worker.
#
# Arguments: NONCE SCRIPT ARGUMENTS...
# It is read from stdin up to its end; what follows on stdin is watched: when
# the SSH channel ends, for whatever reason, the whole process group is ended,
# so that nothing outlives the job. The marker lines tell the worker where the
# script's own output begins, past all that the account's start-up files say, and,
# beyond doubt, that and how the script ended.

nonce=$1 script=$2
shift 2
exec 3<&0 0</dev/null
# What those files set for the account's own use would lead us elsewhere.
unset PGHOST PGHOSTADDR PGPORT PGUSER PGDATABASE PGSERVICE PGOPTIONS \
    PGTARGETSESSIONATTRS PGDATA CDPATH POSIXLY_CORRECT
printf '%s begin\n' "$nonce"
printf '%s begin\n' "$nonce" >&2
{
    # read, for cat would be one more process
    while read -r _ <&3; do :; done
    trap '' TERM
    kill -TERM 0
    sleep 3
    kill -KILL 0
} >/dev/null 2>&1 &
watcher=$!
exec 3<&-
# In a subshell, not by a new sh: arguments may hold what must not be seen in a
# process list.
(
    eval "$script"
)
status=$?
kill -KILL "$watcher" 2>/dev/null
printf '\n%s end %s\n' "$nonce" "$status"
exit "$status"
