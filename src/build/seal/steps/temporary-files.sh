seal_temporary_files() {
    for temporary in "$R/tmp" "$R/var/tmp"; do
        sweep "$temporary"
        # What is mounted there stays, and so does the way to it.
        [ ! -d "$temporary" ] || find "$temporary" -xdev -depth -type d ! -path "$temporary" -exec rmdir {} \; 2>/dev/null
    done
}
