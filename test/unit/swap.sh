#!/bin/sh
# swap.sh: killed at any step, it completes, and in between nothing half can be started.
set -u
# shellcheck source=test/lib/remote_scripts.sh
. "${0%/*}/../lib/remote_scripts.sh"

lay_out beside
rm "$work/proven"
swap
ok 'nothing without a proven copy' fails_with not_proven
for place in beside inside; do
    lay_out $place
    swap
    ok "$place: runs" printed result=swapped
    ok "$place: all is in place" swapped
    swap
    ok "again, $place: says so" printed result=already_swapped
    ok "again, $place: all is in place" swapped
done

# Can PGDATA be started as it is, as far as PostgreSQL can tell?
startable() {
    [ -e "$pgdata/PG_VERSION" ]
}
for place in beside inside; do
    # after a call is the same as before the next, but for what the shell does
    # itself: that is looked at once
    for FP_TEST_AFTER in no yes; do
        [ "$place$FP_TEST_AFTER" != insideyes ] || continue
        calls=0
        all_well=yes
        while :; do
            calls=$((calls + 1))
            lay_out $place
            ! swap_killed_at "$calls" || break
            # what is at PGDATA is the old before all changes, nothing that
            # starts, or the whole copy
            if startable; then
                case $(read_all "$pgdata") in
                    "$old_data_whole" | "$copy_whole") ;;
                    *) all_well="at $calls could be started: $(read_all "$pgdata")" ;;
                esac
            elif ! has_phase swapping; then
                all_well="no mark at $calls"
            fi
            swap
            if [ "$rc" -ne 0 ] || ! swapped; then
                all_well="not completed after a kill at $calls"
            fi
            [ "$all_well" = yes ] || break
        done
        ok "$place: killed at each of $((calls - 1)) calls (after it: $FP_TEST_AFTER), it completes" is "$all_well" yes
    done
done

FP_TEST_AFTER=no

# A name with symbolic links in it, while what it leads to is moved away.
lay_out beside
ln -s node "$top/link"
ln -s "$pgdata" "$top/link to data"
swap_killed_at 7
ok 'killed, and the data is away' is "$rc$(test -e "$pgdata" || echo away)" 137away
for name in "$top/link/${pgdata##*/}" "$top/link to data" "$pgdata/"; do
    run survey.sh pgdata="$name" port=1
    want=$(emitted pgdata "$pgdata")
    ok "survey: finds it as ${name#"$top"}" printed "$want"
    ok "survey: and that a swap is to be completed" printed pgdata_state=empty
done
run swap.sh pgdata="$top/link/${pgdata##*/}" waldir="$wal" -- "$space1" "$space2"
ok 'completed by another name' swapped

# As somebody may do after a power failure, for the mark does not keep others from it.
for place in beside inside; do
    lay_out $place
    calls=5
    [ $place = beside ] || calls=9
    swap_killed_at "$calls"
    ok "$place: killed before its first rename" is "$(read_all "$pgdata")$(head -n 1 "$work/swap.list")" "old old old old old old old old $pgdata"
    (cd "$pgdata" && exec sleep 30) &
    server=$!
    echo "$server" >"$pgdata/postmaster.pid"
    sleep 0.2
    swap
    ok "$place: not while the old data is in use again" fails_with running
    run basebackup.sh conninfo= version=150010 waldir="$wal"
    ok "basebackup, $place: goes on then with a new copy" fails_with copy_failed
    ok "basebackup, $place: nothing is left of the first" is "$(find "$work" "$copy" -mindepth 1 2>/dev/null)" ''
    ok "basebackup, $place: the old data is untouched" is "$(read_all "$pgdata")" "$old_data_whole"
    kill "$server"
    wait "$server" 2>/dev/null
done

# A disk that is not mounted after a power failure is no folder without a copy.
for one in data space1; do
    lay_out inside
    swap_killed_at 9
    mount=$pgdata
    [ "$one" = data ] || mount=$space1
    mv "$mount" "$top/unmounted"
    mkdir "$mount"
    swap
    ok "goes on only with the disk of $one" fails_with swap_failed
    rmdir "$mount"
    mv "$top/unmounted" "$mount"
    swap
    ok "and completes when it is back" swapped
done

# A file system may have no modes, and chmod say nothing.
mkdir "$top/no_modes"
printf '#!/bin/sh\nexit 0\n' >"$top/no_modes/chmod"
chmod +x "$top/no_modes/chmod"
all_programs=$PATH
for place in beside inside; do
    lay_out $place
    before=$(read_all "$pgdata")$(ls "$work")
    PATH=$top/no_modes:$PATH
    swap
    PATH=$all_programs
    ok "$place: not where a start cannot be prevented" fails_with permission
    ok "$place: and nothing was changed then" is "$(read_all "$pgdata")$(ls "$work")" "$before"
    swap
    ok "$place: it is swapped when it can" swapped
done

# What is not the SSH user's to move; root may all.
lay_out inside
mkdir -p "$pgdata/backup/of root"
chmod 500 "$pgdata/backup"
if [ "$(id -u)" -ne 0 ]; then
    swap
    ok 'not where something cannot be moved' fails_with permission
    ok 'and nothing was changed' is "$(read_all "$pgdata")$(ls "$work")" 'old old old old old old old old proven'
fi
chmod 700 "$pgdata/backup"

lay_out beside
rm -rf "$pgdata" "$wal" "$space1"
swap
ok 'onto nothing' is "$(read_all "$pgdata")" "$copy_whole"
ok 'onto nothing keeps nothing' test ! -e "$work/old"
lay_out beside
rm -rf "$pgdata"
mkdir "$pgdata"
swap
ok 'onto an empty folder' is "$(cat "$pgdata/what")" new
lay_out inside
find "$pgdata" -mindepth 1 -maxdepth 1 ! -name '.follow*' -exec rm -r '{}' +
mkdir "$work/config"
touch "$work/config/restored"
swap
ok 'the configuration is to be put back again' test ! -e "$work/config/restored"
ok 'into an empty folder' is "$(read_all "$pgdata")" "$copy_whole"
ok 'into an empty folder keeps nothing' test ! -e "$old_data"
lay_out beside
mkdir "$work/old"
echo older >"$work/old/what"
swap
ok "an earlier job's old data stays" is "$(cat "$work/old/what" "$work/old.2/what" "$wal.follow_primary_old.2/00000002.history" | tr '\n' ' ')" 'older old old '
lay_out inside
mkdir "$pgdata/.follow_primary_old"
echo older >"$pgdata/.follow_primary_old/what"
swap
ok "swap, inside: an earlier job's old data stays" is "$(cat "$pgdata/.follow_primary_old/what" "$pgdata/.follow_primary_old.2/what" "$wal/.follow_primary_old.2/00000002.history" | tr '\n' ' ')" 'older old old '
done_testing
