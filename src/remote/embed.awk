# embed.awk - turns the scripts named as arguments into C string constants.
#
# src/remote/rewind.sh becomes: static const char rewind_sh[] = "...";
# A line that reads a library, as . "${0%/*}/lib.sh", is replaced by that file's text. Comment
# lines are left out: they are for the reader of the file.

function put(line) {
    if (line ~ /^[ \t]*#/ || line ~ /^[ \t]*$/)
        return
    gsub(/\\/, "&&", line)
    gsub(/"/, "\\\"", line)
    gsub(/\t/, "\\t", line)
    printf "\t\"%s\\n\"\n", line
}

FNR == 1 {
    if (NR > 1)
        print "\t;"
    name = FILENAME
    dir = FILENAME
    sub(/[^\/]*$/, "", dir)
    sub(/.*\//, "", name)
    sub(/\.sh$/, "", name)
    printf "\nstatic const char %s_sh[] =\n", name
}

/^\. "\$\{0%\/\*\}\/[a-z]+\.sh"$/ {
    shared = $0
    sub(/.*\//, dir, shared)
    sub(/"$/, "", shared)
    while ((getline line < shared) > 0)
        put(line)
    close(shared)
    next
}

{ put($0) }

END { if (NR) print "\t;" }
