# embed.awk - turns the scripts named as arguments into C string constants.
#
# src/remote/rewind.sh becomes: static const char rewind_sh[] = "...";
# A line that reads a library, as . "${0%/*}/lib.sh", is replaced by that file's text; of its
# functions only those are taken whose names come up, in the script or in other functions that are
# taken, for the node's shell reads all that it is sent. So no script makes up a function's name.
# Comment lines are left out: they are for the reader of the file.

# Adds a line to the script's text; function_of[] tells in which function of a library it is.
function add(line, function_name) {
    if (line ~ /^[ \t]*#/ || line ~ /^[ \t]*$/)
        return
    text[++lines] = line
    function_of[lines] = function_name
    if (function_name == "")
        own = own "\n" line
    else
        body[function_name] = body[function_name] "\n" line
}

function add_library(file,    line, function_name) {
    while ((getline line < file) > 0) {
        if (line ~ /^[a-z_]+\(\) [{(]$/)
            function_name = substr(line, 1, index(line, "(") - 1)
        add(line, function_name)
        if (line ~ /^[})]$/)
            function_name = ""
    }
    close(file)
}

# Sets taken[] for the functions that come up in the words, and in what these take.
function take(words,    n, i, word) {
    n = split(words, word, /[^A-Za-z0-9_]+/)
    for (i = 1; i <= n; i++)
        if ((word[i] in body) && !(word[i] in taken)) {
            taken[word[i]] = 1
            take(body[word[i]])
        }
}

function put(line) {
    gsub(/\\/, "&&", line)
    gsub(/"/, "\\\"", line)
    gsub(/\t/, "\\t", line)
    printf "\t\"%s\\n\"\n", line
}

function put_script(    i, name) {
    take(own)
    name = script
    sub(/.*\//, "", name)
    sub(/\.sh$/, "", name)
    printf "\nstatic const char %s_sh[] =\n", name
    for (i = 1; i <= lines; i++)
        if (function_of[i] == "" || (function_of[i] in taken))
            put(text[i])
    print "\t;"
}

FNR == 1 {
    if (NR > 1)
        put_script()
    script = FILENAME
    lines = 0
    own = ""
    split("", body)
    split("", taken)
}

/^\. "\$\{0%\/\*\}\/[a-z]+\.sh"$/ {
    library = $0
    sub(/.*\//, "", library)
    sub(/"$/, "", library)
    directory = FILENAME
    sub(/[^\/]*$/, "", directory)
    add_library(directory library)
    next
}

{ add($0, "") }

END {
    if (NR)
        put_script()
}
