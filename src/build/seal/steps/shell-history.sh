forget_shells() {
    for name in bash ash sh zsh ksh python node_repl mysql psql sqlite rediscli; do
        drop "$2/.${name}_history"
    done
    drop "$2/.histfile" "$2/.history" "$2/.lesshst" "$2/.viminfo" "$2/.wget-hsts" \
        "$2/.local/share/fish/fish_history" "$2/.local/state/lesshst" "$2/.local/state/python_history"
}

seal_shell_history() {
    each_user forget_shells
    forget_shells root "$R/root"
}
